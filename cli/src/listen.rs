//! `mux listen`: serve channels.

use std::sync::Arc;

use libmux::{Channel, Config, ErrorKind, Listener, Origin, Session};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::exit::{Exit, explain, print_line};
use crate::{cert, relay, stdio};

/// Serve the channels of every session that dials URL
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to listen, such as qmux://127.0.0.1:0; port 0 lets the system choose
    url: String,

    /// Echo each channel, half-close included; resets come back with their code
    #[arg(long, conflicts_with = "to")]
    echo: bool,

    /// Connect each channel to this TCP address
    #[arg(long, value_name = "HOST:PORT")]
    to: Option<String>,

    /// Make a certificate for as long as this command runs (quic, h2) and print the URL with its pin
    #[arg(long)]
    self_signed: bool,

    /// Keep the URL off stdout, so that it carries the channel's bytes alone
    #[arg(long, conflicts_with_all = ["echo", "to", "self_signed"])]
    no_url: bool,
}

/// What `max_channels` can be raised to.
const MOST_CHANNELS: u32 = 1_000_000;

/// What is done with a channel.
enum Service {
    Echo,
    To(String),
}

/// Listens, prints the URL, serves.
pub(crate) async fn run(args: Args) -> Result<(), Exit> {
    if let Some(to) = &args.to {
        crate::forward::check_address("--to", to)?;
    }
    let mut config = Config::default();
    // Accepting is all that the loop below does, so a burst of opens may wait in line: max_channels is the limit.
    config.channel_backlog = MOST_CHANNELS;
    let pin = cert::for_listener(&args.url, args.self_signed, &mut config)?;
    let listener = libmux::listen(&args.url, &config)
        .await
        .map_err(|error| Exit::from_mux(&format!("cannot listen on {}", args.url), &error))?;
    if !args.no_url {
        match pin {
            Some(pin) => print_line(&cert::with_option(listener.url(), &pin))?,
            None => print_line(listener.url())?,
        }
    }
    let service = match (args.echo, args.to) {
        (true, _) => Service::Echo,
        (false, Some(address)) => Service::To(address),
        (false, None) => return serve_one(listener).await,
    };
    let service = Arc::new(service);
    // Dropped with this future, which is how a signal ends the sessions.
    let mut serving = JoinSet::new();
    loop {
        tokio::select! {
            session = listener.accept() => {
                let session = session.map_err(|error| Exit::from_mux("cannot accept sessions", &error))?;
                serving.spawn(serve(session, Arc::clone(&service)));
            }
            Some(_) = serving.join_next() => {}
        }
    }
}

/// The first channel on stdin and stdout, as nc does; nothing else is served.
async fn serve_one(listener: Listener) -> Result<(), Exit> {
    let (session, channel) = first_channel(&listener).await?;
    log_channel(&session, &channel);
    listener.close();
    session.drain();
    let carried = stdio::carry(channel).await;
    stdio::close(&session, carried).await
}

/// A session may take its time, or come and go without a channel like a port scan: it does not hold up the others.
async fn first_channel(listener: &Listener) -> Result<(Session, Channel), Exit> {
    let mut waiting = JoinSet::new();
    loop {
        tokio::select! {
            session = listener.accept() => {
                let session = session.map_err(|error| Exit::from_mux("cannot accept sessions", &error))?;
                tracing::info!("session from {}: {}", peer(&session), session.capabilities());
                waiting.spawn(async move { (session.accept().await, session) });
            }
            Some(Ok((opened, session))) = waiting.join_next() => match opened {
                Ok(channel) => return Ok((session, channel)),
                Err(error) => tracing::warn!("session from {}: no channel: {}", peer(&session), explain(&error)),
            },
        }
    }
}

async fn serve(session: Session, service: Arc<Service>) {
    let peer = peer(&session);
    tracing::info!("session from {peer}: {}", session.capabilities());
    let cause = loop {
        match session.accept().await {
            Ok(channel) => {
                log_channel(&session, &channel);
                tokio::spawn(serve_channel(channel, Arc::clone(&service), peer.clone()));
            }
            Err(cause) => break cause,
        }
    };
    // A peer that says goodbye is no news, in so many words or on a wire without codes; one that vanishes is.
    let goodbye = cause.kind() == ErrorKind::Closed && cause.origin() == Origin::Peer;
    if goodbye && cause.code().unwrap_or(0) == 0 {
        tracing::info!("session from {peer} over: {}", explain(&cause));
    } else {
        tracing::warn!("session from {peer} over: {}", explain(&cause));
    }
}

async fn serve_channel(channel: Channel, service: Arc<Service>, peer: String) {
    let id = channel.id();
    let served = match &*service {
        Service::Echo => echo(channel).await,
        Service::To(address) => connect(channel, address).await,
    };
    match served {
        Ok(()) => tracing::info!("session from {peer}: channel {id} done"),
        Err(what) => tracing::warn!("session from {peer}: channel {id}: {what}"),
    }
}

/// Sends back what comes, then the end; a reset comes back as a reset with the same code, a stop as a stop.
async fn echo(channel: Channel) -> Result<(), String> {
    let (mut send, mut recv) = channel.split();
    loop {
        let chunk = match recv.read_bytes(64 * 1024).await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break,
            Err(error) => {
                if let (ErrorKind::Reset, Some(code)) = (error.kind(), error.code()) {
                    // A code of the library, or a wire without codes: dropping the half says what can be said.
                    let _ = send.reset(code);
                }
                return Err(explain(&error));
            }
        };
        if let Err(error) = send.write_bytes(chunk).await {
            if let (ErrorKind::Stopped, Some(code)) = (error.kind(), error.code()) {
                let _ = recv.stop(code);
            }
            return Err(explain(&error));
        }
    }
    let finished = send.finish();
    let ended = match finished {
        Ok(()) => send.ended().await,
        failed => failed,
    };
    match ended {
        // It has read enough, and we had nothing more to say.
        Err(error) if error.kind() == ErrorKind::Stopped && error.code() == Some(0) => Ok(()),
        ended => ended.map_err(|error| explain(&error)),
    }
}

async fn connect(channel: Channel, address: &str) -> Result<(), String> {
    match TcpStream::connect(address).await {
        Ok(tcp) => relay::carry(channel, tcp).await,
        Err(error) => {
            // The code is in the portable range; on a wire without codes the channel is dropped, also a reset.
            let _ = channel.abort(relay::TCP_REFUSED);
            Err(format!("cannot connect to {address}: {error}"))
        }
    }
}

fn log_channel(session: &Session, channel: &Channel) {
    tracing::info!(
        "session from {}: channel {} opened, label \"{}\"",
        peer(session),
        channel.id(),
        channel.label().escape_ascii()
    );
}

fn peer(session: &Session) -> String {
    let peer = &session.info().peer_addr;
    // Unix sockets have nameless clients.
    if peer.is_empty() { "a local client".to_owned() } else { peer.clone() }
}
