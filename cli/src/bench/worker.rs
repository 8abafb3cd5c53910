//! The two processes of a run, and how they talk with the one that started them: lines on stdin and stdout.
//!
//! ```text
//! server  Listening(address)            client  Begin            traffic runs, the clock too
//! server  <- begin                      client  End              traffic still runs
//! server  <- end, Report                client  <- end, Report   traffic may stop
//! ```
//! Scenarios that are measured twice say Begin, End and Report twice.
//! A worker whose stdin ends has lost its parent and exits.

use std::io::{self, BufRead as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use libmux::{Budget, Config};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;

use super::backend::{Backend, Bare};
use super::link::{Accepting, Opening, TcpDial, UnixDial, listen_tcp};
use super::process::{Snapshot, raise_descriptor_limit};
use super::raw_tls::{TlsDial, TlsListen};
use super::scenario::{Kind, Scenario, Times};
use super::{client, raw_h2, raw_quinn, raw_tls, secure, server};
use crate::cert::with_option;
use crate::exit::Exit;

/// One of the two processes of a run; 'mux bench' starts it
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which end
    role: Role,
    /// As 'mux bench --backend'
    #[arg(long)]
    backend: String,
    /// As 'mux bench --scenario', with the number of channels where it varies
    #[arg(long)]
    scenario: String,
    /// Where to listen or connect
    #[arg(long)]
    at: String,
    /// How long to measure
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// How long traffic runs before
    #[arg(long, default_value_t = 0.2)]
    warm_up: f64,
    /// As 'mux bench --option'
    #[arg(long)]
    option: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Role {
    Server,
    Client,
}

/// What a worker says to the process that started it, a JSON object a line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Said {
    /// The server can be dialed.
    Listening(String),
    /// The client has warmed up; measure from now on.
    Begin,
    /// The client has measured long enough.
    End,
    /// What was measured.
    Report(Report),
    /// This machine cannot do it.
    Skipped(String),
    /// It went wrong.
    Failed(String),
}

/// What one process measured between begin and end.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Bytes received by the server; operations completed by the client.
    pub(crate) count: u64,
    /// The time they took.
    pub(crate) elapsed_s: f64,
    /// Processor time of the process meanwhile.
    pub(crate) cpu_s: f64,
    /// Its largest resident memory so far.
    pub(crate) rss_peak: u64,
    /// What its resident memory grew by meanwhile.
    pub(crate) rss_grown: u64,
    /// Bytes charged to the library's budget for the process.
    pub(crate) budget: u64,
    /// Latencies of single operations, in microseconds.
    pub(crate) latency: Option<Latency>,
}

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

impl Report {
    /// What happened between two moments.
    pub(crate) fn between(begin: Snapshot, end: Snapshot) -> Self {
        Self {
            elapsed_s: (end.at - begin.at).as_secs_f64(),
            cpu_s: end.cpu_s - begin.cpu_s,
            rss_peak: end.rss_peak,
            rss_grown: end.rss.saturating_sub(begin.rss),
            budget: Budget::process().used(),
            ..Self::default()
        }
    }
}

/// Why a worker cannot report.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The machine cannot do it; no fault of the backend.
    Skip(String),
    /// It went wrong.
    Fail(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Fail(error.to_string())
    }
}

impl From<libmux::Error> for Trouble {
    fn from(error: libmux::Error) -> Self {
        Self::Fail(crate::exit::explain(&error))
    }
}

/// Plays its role until the parent has what it wants.
pub(crate) async fn run(args: Args) -> Result<(), Exit> {
    let backend = Backend::parse(&args.backend)?;
    let scenario = match Scenario::parse(&args.scenario)?.as_slice() {
        [scenario] => scenario.clone(),
        _ => return Err(Exit::usage("a worker runs one scenario; give idle:N")),
    };
    let seconds = |text| Duration::try_from_secs_f64(text).map_err(|error| Exit::usage(error.to_string()));
    let times = Times { warm_up: seconds(args.warm_up)?, measured: seconds(args.seconds)? };
    let descriptors = raise_descriptor_limit();
    let commands = commands();
    let played = match enough_descriptors(&backend, &scenario, descriptors) {
        Err(trouble) => Err(trouble),
        Ok(()) if scenario.kind == Kind::Call => Err(Trouble::Skip("a call of the C API".to_owned())),
        Ok(()) => match args.role {
            Role::Server => serve(&backend, &scenario, &args.at, &args.option, commands).await,
            Role::Client => drive(&backend, &scenario, &args.at, &args.option, times, commands).await,
        },
    };
    match played {
        Ok(()) => Ok(()),
        Err(Trouble::Skip(why)) => say(&Said::Skipped(why)),
        Err(Trouble::Fail(why)) => say(&Said::Failed(why)),
    }
    .map_err(|error| crate::exit::stdout_failed(&error))
}

/// Tells the parent.
pub(crate) fn say(said: &Said) -> io::Result<()> {
    let line = serde_json::to_string(said)?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// What the parent tells us.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Begin,
    End,
}

fn commands() -> mpsc::UnboundedReceiver<Command> {
    let (commands, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let command = match line.as_deref() {
                Ok("begin") => Command::Begin,
                Ok("end") => Command::End,
                _ => break,
            };
            // Fails only when the worker is ending anyway.
            let _ = commands.send(command);
        }
        // The parent is gone or wants no more; traffic has no purpose now.
        std::process::exit(0);
    });
    receiver
}

fn enough_descriptors(backend: &Backend, scenario: &Scenario, limit: Option<u64>) -> Result<(), Trouble> {
    /// What a process holds beside its connections.
    const SPARE: u64 = 64;
    match (backend, limit) {
        (Backend::Bare(bare), Some(limit)) if bare.connects_each() && scenario.at_once() as u64 + SPARE > limit => {
            Err(Trouble::Skip(format!(
                "{} connections over bare {} need as many file descriptors in a process; {limit} are allowed here",
                scenario.at_once(),
                bare.name()
            )))
        }
        _ => Ok(()),
    }
}

async fn serve(
    backend: &Backend,
    scenario: &Scenario,
    at: &str,
    options: &[String],
    commands: mpsc::UnboundedReceiver<Command>,
) -> Result<(), Trouble> {
    match backend {
        Backend::Bare(Bare::Tcp) => {
            let listeners = listen_tcp(at).await?;
            say(&Said::Listening(addresses(&listeners)?))?;
            server::run(listeners, scenario, commands).await
        }
        Backend::Bare(Bare::Tls) => {
            let (tls, pin) = secure::presented()?;
            let acceptor = Arc::new(raw_tls::acceptor(&tls, secure::NOTHING)?);
            let listeners = listen_tcp(at).await?;
            say(&Said::Listening(with_option(&addresses(&listeners)?, &pin)))?;
            let listeners = listeners.into_iter().map(|listener| TlsListen::new(listener, &acceptor));
            server::run(listeners.collect(), scenario, commands).await
        }
        Backend::Bare(bare @ (Bare::Quinn | Bare::QuinnDefaults)) => {
            let (tls, pin) = secure::presented()?;
            let settings = raw_quinn::Settings::of(*bare, scenario, window(options)?);
            let (endpoint, address) = raw_quinn::listen(address(at)?, &tls, settings)?;
            say(&Said::Listening(with_option(&address.to_string(), &pin)))?;
            let accepting = raw_quinn::accept(&endpoint).await?;
            server::run(vec![accepting], scenario, commands).await
        }
        Backend::Bare(Bare::H2) => {
            let listener = TcpListener::bind(at).await?;
            say(&Said::Listening(listener.local_addr()?.to_string()))?;
            let (tcp, _) = listener.accept().await?;
            tcp.set_nodelay(true)?;
            server::run(vec![raw_h2::accept(tcp, scenario, window(options)?).await?], scenario, commands).await
        }
        Backend::Bare(Bare::H2Tls) => {
            let (tls, pin) = secure::presented()?;
            let acceptor = raw_tls::acceptor(&tls, secure::HTTP2)?;
            let listener = TcpListener::bind(at).await?;
            say(&Said::Listening(with_option(&listener.local_addr()?.to_string(), &pin)))?;
            let (tcp, _) = listener.accept().await?;
            tcp.set_nodelay(true)?;
            let stream = acceptor.accept(tcp).await?;
            server::run(vec![raw_h2::accept(stream, scenario, window(options)?).await?], scenario, commands).await
        }
        Backend::Bare(Bare::Unix) => {
            let listener = UnixListener::bind(at)?;
            say(&Said::Listening(at.to_owned()))?;
            server::run(vec![listener], scenario, commands).await
        }
        Backend::Mux(_) | Backend::ThroughC(_) => {
            let mut config = config(scenario);
            let pin = if backend.is_tls() { Some(secure::present(&mut config)?) } else { None };
            let listener = libmux::listen(&with_options(at, options), &config).await?;
            let url = listener.url();
            say(&Said::Listening(pin.map_or_else(|| url.to_owned(), |pin| with_option(url, &pin))))?;
            let session = listener.accept().await?;
            server::run(vec![Accepting(session)], scenario, commands).await
        }
    }
}

async fn drive(
    backend: &Backend,
    scenario: &Scenario,
    at: &str,
    options: &[String],
    times: Times,
    commands: mpsc::UnboundedReceiver<Command>,
) -> Result<(), Trouble> {
    match backend {
        Backend::Bare(Bare::Tcp) => client::run(dial_tcp(at)?, scenario, times, commands).await,
        Backend::Bare(Bare::Tls) => {
            let (at, tls) = secure::trusted(at)?;
            client::run(TlsDial::new(dial_tcp(at)?, &tls)?, scenario, times, commands).await
        }
        Backend::Bare(bare @ (Bare::Quinn | Bare::QuinnDefaults)) => {
            let (at, tls) = secure::trusted(at)?;
            let settings = raw_quinn::Settings::of(*bare, scenario, window(options)?);
            let opening = raw_quinn::dial(address(at)?, &tls, settings).await?;
            client::run(opening, scenario, times, commands).await
        }
        Backend::Bare(Bare::H2) => {
            let tcp = dial_tcp(at)?.connect().await?;
            client::run(raw_h2::dial(tcp, window(options)?).await?, scenario, times, commands).await
        }
        Backend::Bare(Bare::H2Tls) => {
            let (at, tls) = secure::trusted(at)?;
            let connector = raw_tls::connector(&tls, secure::HTTP2)?;
            let stream = raw_tls::connect(dial_tcp(at)?.connect().await?, &connector).await?;
            client::run(raw_h2::dial(stream, window(options)?).await?, scenario, times, commands).await
        }
        Backend::Bare(Bare::Unix) => client::run(UnixDial(at.to_owned()), scenario, times, commands).await,
        Backend::Mux(_) | Backend::ThroughC(_) => {
            let session = libmux::dial(&with_options(at, options), &config(scenario)).await?;
            client::run(Opening(session), scenario, times, commands).await
        }
    }
}

/// The addresses of listeners, as [`dial_tcp`] takes them.
fn addresses(listeners: &[TcpListener]) -> io::Result<String> {
    let addresses = listeners.iter().map(|listener| Ok(listener.local_addr()?.to_string()));
    Ok(addresses.collect::<io::Result<Vec<_>>>()?.join(","))
}

fn dial_tcp(at: &str) -> Result<TcpDial, Trouble> {
    Ok(TcpDial::new(at.split(',').map(address).collect::<Result<_, _>>()?))
}

fn address(at: &str) -> Result<SocketAddr, Trouble> {
    at.parse().map_err(|error| Trouble::Fail(format!("{at}: {error}")))
}

fn with_options(url: &str, options: &[String]) -> String {
    options.iter().fold(url.to_owned(), |url, option| with_option(&url, option))
}

/// The window that the bare libraries are to have, where one is given.
fn window(options: &[String]) -> Result<Option<u32>, Trouble> {
    let Some(given) = options.iter().find_map(|option| option.strip_prefix("window=")) else { return Ok(None) };
    let mut config = Config::default();
    config.set("window", given)?;
    Ok(Some(config.window))
}

/// The defaults, which is what users get; only masses of channels need limits raised.
fn config(scenario: &Scenario) -> Config {
    let mut config = Config::default();
    if scenario.kind == Kind::Idle {
        let channels = u32::try_from(scenario.channels).unwrap_or(u32::MAX);
        config.max_channels = config.max_channels.max(channels);
        config.channel_backlog = config.channel_backlog.max(channels);
        config.budget = 1 << 40;
        // The registry sets the process's limit when it is first used, so use it first.
        let _ = libmux::registry();
        Budget::process().set_limit(1 << 40);
    }
    if scenario.kind == Kind::Unread {
        // They are opened in one burst, which is not what is measured.
        let channels = u32::try_from(scenario.at_once()).unwrap_or(u32::MAX);
        // The default means fewer on QUIC, which leaves the last to wait for ever.
        if channels > 256 {
            config.max_channels = channels.max(config.max_channels + 1);
        }
        config.channel_backlog = config.channel_backlog.max(channels);
    }
    config
}
