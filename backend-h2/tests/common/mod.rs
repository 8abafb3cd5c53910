//! Pairs of sessions for the tests.
#![allow(dead_code)] // Each test binary uses its part.

use std::time::Duration;

use backend_h2::H2Backend;
use mux_api::backend::Backend;
use mux_api::{Config, Listener, Result, Session, Url};
use mux_transport::tls::self_signed;

pub(crate) async fn listen(url: &str, config: &Config) -> Result<Listener> {
    let url = Url::parse(url)?;
    H2Backend.listen(&url, &config.with_url(&url, H2Backend.options(), true)?).await
}

pub(crate) async fn dial(url: &str, config: &Config) -> Result<Session> {
    let url = Url::parse(url)?;
    H2Backend.dial(&url, &config.with_url(&url, H2Backend.options(), true)?).await
}

/// Where the tests that concern the connection run.
pub(crate) const SCHEMES: [&str; 2] = ["h2c", "h2"];

/// What the listening and the dialing end of this scheme need beside `config`.
pub(crate) fn ends(scheme: &str, config: &Config) -> (Config, Config) {
    let (mut listening, mut dialing) = (config.clone(), config.clone());
    if scheme == "h2" {
        let made = self_signed(&["localhost"]).expect("makes");
        listening.tls.identity_pem = Some((made.cert_pem.into_bytes(), made.key_pem.into_bytes()));
        dialing.tls.pins = vec![made.pin];
    }
    (listening, dialing)
}

pub(crate) async fn pair_over(scheme: &str, config: &Config) -> (Session, Session, Listener) {
    let (listening, dialing) = ends(scheme, config);
    let listener = listen(&format!("{scheme}://127.0.0.1:0"), &listening).await.expect("listens");
    let dialed = dial(listener.url(), &dialing);
    let (client, server) = tokio::join!(dialed, listener.accept());
    (client.expect("dials"), server.expect("accepts"), listener)
}

pub(crate) async fn pair(config: &Config) -> (Session, Session, Listener) {
    pair_over("h2c", config).await
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("finishes in time")
}

/// Waits until both sides have let go of every channel and of all memory: what h2 sends of a channel may outlive it.
pub(crate) async fn idle(sessions: [&Session; 2]) {
    for session in sessions {
        let waiting = async {
            loop {
                let stats = session.stats();
                if (stats.channels_open, stats.budget_used, stats.recv_buffered, stats.send_buffered) == (0, 0, 0, 0) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let idle = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        assert!(idle.is_ok(), "something is left: {:?}", session.stats());
    }
}
