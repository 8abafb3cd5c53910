//! A listener with a certificate made for the test, and a dialer that trusts it by its pin.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

pub mod relay;
pub mod strangers;

use std::time::Duration;

use backend_quic::QuicBackend;
use mux_api::backend::Backend;
use mux_api::{Config, Error, Listener, Result, Session, Url};
use mux_transport::tls::{SelfSigned, self_signed};

pub fn certificate() -> SelfSigned {
    self_signed(&["localhost", "127.0.0.1"]).expect("makes a certificate")
}

pub fn server_config(made: &SelfSigned) -> Config {
    let mut config = Config::default();
    config.tls.identity_pem = Some((made.cert_pem.clone().into_bytes(), made.key_pem.clone().into_bytes()));
    config
}

pub async fn listen(url: &str, config: &Config) -> Listener {
    let url = Url::parse(url).expect("parses");
    QuicBackend
        .listen(&url, &config.with_url(&url, QuicBackend.options(), true).expect("options"))
        .await
        .expect("listens")
}

pub async fn dial(url: &str, config: &Config) -> Result<Session> {
    let url = Url::parse(url).expect("parses");
    within(QuicBackend.dial(&url, &config.with_url(&url, QuicBackend.options(), true).expect("options"))).await
}

/// Both ends of a session, with `options` of URLs on both. For 2000 channels the backlog is as large.
pub async fn pair(options: &str) -> (Session, Session, Listener) {
    let made = certificate();
    let mut config = server_config(&made);
    if options.contains("max_channels=2000") {
        config.channel_backlog = 2000;
    }
    let listener = listen(&format!("quic://127.0.0.1:0?{options}"), &config).await;
    let backlog = config.channel_backlog;
    let mut config = Config::default();
    config.channel_backlog = backlog;
    config.tls.pins = vec![made.pin];
    let url = format!("{}?{options}", listener.url());
    let (client, server) = tokio::join!(dial(&url, &config), listener.accept());
    (client.expect("dials"), server.expect("accepts"), listener)
}

pub async fn dial_error(url: &str, config: &Config) -> Error {
    dial(url, config).await.expect_err("must not connect")
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("finishes in time")
}

/// Waits until neither end has a channel or a reserved byte.
pub async fn idle(sessions: &[&Session]) {
    within(async {
        let busy = |session: &&Session| session.stats().channels_open + session.stats().budget_used > 0;
        while sessions.iter().any(busy) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
