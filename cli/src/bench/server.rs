//! The serving process: it counts, echoes or holds.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::link::{Channels, Rx, Tx};
use super::process::Snapshot;
use super::scenario::{Kind, Scenario};
use super::worker::{Command, Report, Said, Trouble, say};

/// Bytes per read where the receiver counts, for every backend.
const BULK_READ: usize = 64 * 1024;
/// Bytes per read where it echoes; the messages are 64 bytes.
const ECHO_READ: usize = 1024;
/// How long idle channels may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(60);

/// What is done with a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Serve {
    /// Its bytes are counted.
    Count = b'c',
    /// Its bytes are sent back.
    Echo = b'e',
    /// It is not read.
    Nobody = b'n',
}

impl Serve {
    /// What `scenario` asks for; `None` where each channel's first byte says it.
    fn asked(scenario: &Scenario) -> Option<Self> {
        match scenario.kind {
            Kind::Stream { .. } => Some(Self::Count),
            Kind::PingPong | Kind::Churn => Some(Self::Echo),
            Kind::Idle => Some(Self::Nobody),
            Kind::Unread | Kind::LoadedPing | Kind::Call => None,
        }
    }

    async fn first_byte(rx: &mut impl Rx) -> io::Result<Self> {
        let mut byte = [0];
        rx.read(&mut byte).await?;
        [Self::Count, Self::Echo, Self::Nobody]
            .into_iter()
            .find(|serve| *serve as u8 == byte[0])
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the channel does not say what to do with it"))
    }
}

#[derive(Default)]
struct Seen {
    /// Bytes received.
    bytes: AtomicU64,
    /// Channels held.
    held: AtomicU64,
    /// The first thing that went wrong.
    failure: Mutex<Option<String>>,
}

/// Serves channels until the parent has asked for the report and hung up.
pub(crate) async fn run<C: Channels>(
    sources: Vec<C>,
    scenario: &Scenario,
    mut commands: mpsc::UnboundedReceiver<Command>,
) -> Result<(), Trouble> {
    let seen = Arc::new(Seen::default());
    let mut accepting = JoinSet::new();
    for channels in sources {
        accepting.spawn(accept(channels, scenario.clone(), Arc::clone(&seen)));
    }
    let mut begin = (Snapshot::take(), 0);
    while let Some(command) = commands.recv().await {
        match command {
            Command::Begin => begin = (Snapshot::take(), seen.bytes.load(Ordering::Relaxed)),
            Command::End => {
                if scenario.kind == Kind::Idle {
                    all_held(&seen, scenario.channels as u64).await?;
                }
                let end = (Snapshot::take(), seen.bytes.load(Ordering::Relaxed));
                if let Some(failure) = seen.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
                    return Err(Trouble::Fail(failure));
                }
                say(&Said::Report(Report { count: end.1 - begin.1, ..Report::between(begin.0, end.0) }))?;
            }
        }
    }
    Ok(())
}

async fn all_held(seen: &Seen, expected: u64) -> Result<(), Trouble> {
    let arriving = async {
        while seen.held.load(Ordering::Relaxed) < expected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(ARRIVAL, arriving).await.map_err(|_| {
        Trouble::Fail(format!(
            "{} of {expected} channels arrived within {} s",
            seen.held.load(Ordering::Relaxed),
            ARRIVAL.as_secs()
        ))
    })
}

async fn accept<C: Channels>(channels: C, scenario: Scenario, seen: Arc<Seen>) {
    let mut held = Vec::new();
    loop {
        match channels.next().await {
            Ok(channel) if scenario.kind == Kind::Idle => {
                held.push(channel);
                seen.held.fetch_add(1, Ordering::Relaxed);
            }
            Ok((tx, rx)) => {
                let (asked, seen) = (Serve::asked(&scenario), Arc::clone(&seen));
                tokio::spawn(async move {
                    if let Err(error) = serve(tx, rx, asked, &seen).await {
                        note(&seen, format!("a channel failed: {error}"));
                    }
                });
            }
            Err(error) => return note(&seen, format!("no more channels: {error}")),
        }
    }
}

async fn serve(tx: impl Tx, mut rx: impl Rx, asked: Option<Serve>, seen: &Seen) -> io::Result<()> {
    let asked = match asked {
        Some(asked) => asked,
        None => Serve::first_byte(&mut rx).await?,
    };
    match asked {
        Serve::Count => count(tx, rx, &seen.bytes).await,
        Serve::Echo => echo(tx, rx).await,
        Serve::Nobody => {
            let _held = (tx, rx);
            std::future::pending().await
        }
    }
}

fn note(seen: &Seen, failure: String) {
    seen.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
}

/// Reads to the end; `_tx` stays open, so that nothing but data travels.
async fn count(_tx: impl Tx, mut rx: impl Rx, bytes: &AtomicU64) -> io::Result<()> {
    let mut buf = vec![0; BULK_READ];
    loop {
        match rx.read(&mut buf).await? {
            0 => return Ok(()),
            n => bytes.fetch_add(n as u64, Ordering::Relaxed),
        };
    }
}

async fn echo(mut tx: impl Tx, mut rx: impl Rx) -> io::Result<()> {
    let mut buf = [0; ECHO_READ];
    loop {
        match rx.read(&mut buf).await? {
            0 => return tx.write_last(&[]).await,
            n => tx.write_all(&buf[..n]).await?,
        }
    }
}
