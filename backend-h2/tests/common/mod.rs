//! Pairs of sessions for the tests.
#![allow(dead_code)] // Each test binary uses its part.

use std::time::Duration;

use backend_h2::H2Backend;
use mux_api::backend::Backend;
use mux_api::{Config, Listener, Result, Session, Url};

pub(crate) async fn listen(url: &str, config: &Config) -> Result<Listener> {
    let url = Url::parse(url)?;
    H2Backend.listen(&url, &config.with_url(&url, H2Backend.options(), true)?).await
}

pub(crate) async fn dial(url: &str, config: &Config) -> Result<Session> {
    let url = Url::parse(url)?;
    H2Backend.dial(&url, &config.with_url(&url, H2Backend.options(), true)?).await
}

pub(crate) async fn pair(config: &Config) -> (Session, Session, Listener) {
    let listener = listen("h2c://127.0.0.1:0", config).await.expect("listens");
    let dialed = dial(listener.url(), config);
    let (client, server) = tokio::join!(dialed, listener.accept());
    (client.expect("dials"), server.expect("accepts"), listener)
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("finishes in time")
}

/// Waits until both sides have let go of every channel and of all memory.
pub(crate) async fn idle(sessions: [&Session; 2]) {
    within(async {
        for session in sessions {
            while session.stats().channels_open > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    })
    .await;
    for session in sessions {
        let stats = session.stats();
        assert_eq!((stats.budget_used, stats.recv_buffered, stats.send_buffered), (0, 0, 0), "{stats:?}");
    }
}
