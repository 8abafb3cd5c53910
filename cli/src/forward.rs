//! `mux forward`: each TCP connection becomes a channel of one session.

use std::time::{Duration, Instant};

use libmux::{Channel, Config, OpenOptions, Session};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::dial::dial;
use crate::exit::{Exit, explain, print_line};
use crate::relay;

/// Turn each TCP connection into a channel of one session
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The session to carry them, such as qmux://host:4000
    #[arg(long, value_name = "URL")]
    via: String,

    /// The TCP address to listen on; port 0 lets the system choose
    #[arg(long, value_name = "HOST:PORT")]
    listen: String,

    /// A label for every channel
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
}

/// The first pause before a dead session is dialed again; it doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// How long a connection waits for a session, and pauses after a passing failure to accept.
const PATIENCE: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Dials, listens, prints the address, forwards.
pub(crate) async fn run(args: Args) -> Result<(), Exit> {
    check_address("--listen", &args.listen)?;
    let config = Config::default();
    // The first dial must work: a mistake in the URL shows at once instead of in every connection.
    let session = dial(&args.via, &config).await?;
    let cannot_listen = |error| Exit::failed(format!("cannot listen on {}: {error}", args.listen));
    let listener = TcpListener::bind(&args.listen).await.map_err(cannot_listen)?;
    print_line(&listener.local_addr().map_err(cannot_listen)?.to_string())?;

    let (current, sessions) = watch::channel(Some(session));
    let options = OpenOptions::new().label(args.label.unwrap_or_default());
    let accepting = async {
        // Dropped with this future, which is how a signal ends the session that they share.
        let mut carrying = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = carrying.join_next() => continue,
            };
            match accepted {
                Ok((tcp, from)) => {
                    let (sessions, options) = (sessions.clone(), options.clone());
                    carrying.spawn(async move {
                        match forward(tcp, sessions, &options).await {
                            Ok(()) => tracing::info!("connection from {from} done"),
                            Err(what) => tracing::warn!("connection from {from}: {what}"),
                        }
                    });
                }
                // A connection that died in the queue, or no descriptor left: neither lasts for ever.
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = keep_alive(&args.via, &config, &current) => Ok(()),
        () = accepting => Ok(()),
    }
}

/// Replaces the session whenever it dies.
async fn keep_alive(via: &str, config: &Config, current: &watch::Sender<Option<Session>>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let born = Instant::now();
        let session = current.borrow().clone();
        if let Some(session) = session {
            tracing::info!("connected to {via}: {}", session.capabilities());
            let cause = session.closed().await;
            tracing::warn!("session with {via} over: {}", explain(&cause));
            current.send_replace(None);
        }
        // One that lived a while deserves a quick successor; one that dies at once must not be dialed in a tight loop.
        if born.elapsed() > LAST_PAUSE {
            pause = FIRST_PAUSE;
        }
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
            match libmux::dial(via, config).await {
                Ok(session) => {
                    tracing::warn!("connected to {via} again");
                    current.send_replace(Some(session));
                    break;
                }
                Err(error) => tracing::warn!("cannot connect to {via}: {}", explain(&error)),
            }
        }
    }
}

async fn forward(
    tcp: TcpStream,
    mut sessions: watch::Receiver<Option<Session>>,
    options: &OpenOptions,
) -> Result<(), String> {
    let opened = tokio::time::timeout(PATIENCE, open(&mut sessions, options)).await;
    match opened {
        Ok(Ok(channel)) => relay::carry(channel, tcp).await,
        Ok(Err(what)) => {
            relay::reset_tcp(tcp);
            Err(what)
        }
        Err(_) => {
            relay::reset_tcp(tcp);
            Err(format!("no session within {} s", PATIENCE.as_secs()))
        }
    }
}

/// Opens a channel on the living session, or on the next one.
async fn open(sessions: &mut watch::Receiver<Option<Session>>, options: &OpenOptions) -> Result<Channel, String> {
    loop {
        let session = sessions
            .wait_for(|session| session.as_ref().is_some_and(|session| session.cause().is_none()))
            .await
            .map_err(|_| "the command is ending".to_owned())?
            .clone();
        let Some(session) = session else { continue };
        match session.open_with(options).await {
            Ok(channel) => return Ok(channel),
            // It died between the two lines: nothing was sent, so the next session may have the connection.
            Err(error) if session.cause().is_some() => tracing::debug!("open failed: {}", explain(&error)),
            Err(error) => return Err(format!("cannot open a channel: {}", explain(&error))),
        }
    }
}

/// Checks the form of a TCP address before anything is started with it.
pub(crate) fn check_address(flag: &str, address: &str) -> Result<(), Exit> {
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(_)) => Ok(()),
        _ => Err(Exit::usage(format!("{flag} {address}: write HOST:PORT or [IPV6]:PORT, such as 127.0.0.1:8080"))),
    }
}

#[cfg(test)]
mod tests {
    use super::check_address;

    #[test]
    fn an_address_needs_host_and_port() {
        for good in ["127.0.0.1:0", "[::1]:80", "localhost:65535"] {
            assert!(check_address("--to", good).is_ok(), "{good}");
        }
        for bad in ["", "80", ":80", "localhost", "localhost:x", "localhost:65536"] {
            assert!(check_address("--to", bad).is_err(), "{bad}");
        }
    }
}
