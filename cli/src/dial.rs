//! Connecting for a command: who waits is told so.

use std::io::Write as _;
use std::time::Duration;

use libmux::{Config, Session};

use crate::exit::Exit;

/// How long a command may be silent.
const SILENCE: Duration = Duration::from_secs(2);

/// Connects; says on stderr that it still does when that takes long.
pub(crate) async fn dial(url: &str, config: &Config) -> Result<Session, Exit> {
    let dialing = libmux::dial(url, config);
    tokio::pin!(dialing);
    let dialed = match tokio::time::timeout(SILENCE, &mut dialing).await {
        Ok(dialed) => dialed,
        Err(_) => {
            // Nobody is left to tell when stderr is gone.
            let _ = writeln!(
                std::io::stderr(),
                "mux: no answer yet from {url}; still trying (connect_timeout=10s in the URL says how long)"
            );
            dialing.await
        }
    };
    dialed.map_err(|error| Exit::from_mux(&format!("cannot connect to {url}"), &error))
}
