//! The dialing process of scenarios that are measured twice: alone, then beside a load.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::client::{Samples, percentiles, read_ping, undisturbed};
use super::link::{Channels, Rx, Tx};
use super::process::Snapshot;
use super::scenario::{BULK, Kind, PING, Scenario, Times};
use super::server::Serve;
use super::worker::{Command, Report, Said, Trouble, say};

/// Bytes that all unread channels may take together: over TCP, where nobody bounds them, they would take the machine's.
const FILL: usize = 1 << 30;
const FILL_EACH: usize = 4 << 20;
/// Channels are full when nothing was taken for so long; what takes longer to fill than the second is said to be full.
const FULL: Duration = Duration::from_millis(300);
const FILLING: Duration = Duration::from_secs(30);

/// What the tasks share with the one that watches the clock.
#[derive(Default)]
struct Shared {
    measuring: AtomicBool,
    done: AtomicU64,
    samples: Mutex<Samples>,
    /// Bytes that the unread channels have taken.
    filled: AtomicU64,
}

/// Plays `scenario` over `channels` and reports twice.
pub(super) async fn run<C: Channels>(
    channels: C,
    scenario: &Scenario,
    times: Times,
    mut commands: mpsc::UnboundedReceiver<Command>,
) -> Result<(), Trouble> {
    let shared = Arc::new(Shared::default());
    let mut tasks = JoinSet::new();
    let pings = scenario.kind == Kind::LoadedPing;
    let (tx, rx) = open(&channels, if pings { Serve::Echo } else { Serve::Count }).await?;
    if pings {
        tasks.spawn(ping(tx, rx, Arc::clone(&shared)));
    } else {
        tasks.spawn(bulk(tx, rx));
    }
    interval(&mut tasks, &shared, times, &mut commands).await?;
    if pings {
        let (tx, rx) = open(&channels, Serve::Count).await?;
        tasks.spawn(bulk(tx, rx));
    } else {
        for _ in 0..scenario.channels {
            let (tx, rx) = open(&channels, Serve::Nobody).await?;
            tasks.spawn(fill(tx, rx, (FILL / scenario.channels).min(FILL_EACH), Arc::clone(&shared)));
        }
        undisturbed(&mut tasks, full(&shared)).await?;
    }
    interval(&mut tasks, &shared, times, &mut commands).await?;
    // The report counts once the parent has it; it hangs up then, which ends this process, traffic and all.
    while commands.recv().await.is_some() {}
    Ok(())
}

/// Opens a channel and tells the server what to do with it.
async fn open<C: Channels>(channels: &C, serve: Serve) -> io::Result<(C::Tx, C::Rx)> {
    let (mut tx, rx) = channels.next().await?;
    tx.write_all(&[serve as u8]).await?;
    Ok((tx, rx))
}

/// Warms up, measures, reports.
async fn interval(
    tasks: &mut JoinSet<io::Result<Samples>>,
    shared: &Shared,
    times: Times,
    commands: &mut mpsc::UnboundedReceiver<Command>,
) -> Result<(), Trouble> {
    undisturbed(tasks, tokio::time::sleep(times.warm_up)).await?;
    shared.measuring.store(true, Ordering::Relaxed);
    let begin = (Snapshot::take(), shared.done.load(Ordering::Relaxed));
    say(&Said::Begin)?;
    undisturbed(tasks, tokio::time::sleep(times.measured)).await?;
    let end = (Snapshot::take(), shared.done.load(Ordering::Relaxed));
    shared.measuring.store(false, Ordering::Relaxed);
    say(&Said::End)?;
    undisturbed(tasks, commands.recv()).await?;
    let mut samples = std::mem::take(&mut *shared.samples.lock().unwrap_or_else(PoisonError::into_inner));
    let latency = percentiles(&mut samples);
    say(&Said::Report(Report { count: end.1 - begin.1, latency, ..Report::between(begin.0, end.0) }))?;
    Ok(())
}

async fn bulk(mut tx: impl Tx, _rx: impl Rx) -> io::Result<Samples> {
    let data = vec![0x5a; BULK];
    loop {
        tx.write_all(&data).await?;
    }
}

async fn ping(mut tx: impl Tx, mut rx: impl Rx, shared: Arc<Shared>) -> io::Result<Samples> {
    loop {
        let started = Instant::now();
        tx.write_all(&[0x5a; PING]).await?;
        read_ping(&mut rx).await?;
        shared.done.fetch_add(1, Ordering::Relaxed);
        if shared.measuring.load(Ordering::Relaxed) {
            let nanos = u32::try_from(started.elapsed().as_nanos()).unwrap_or(u32::MAX);
            shared.samples.lock().unwrap_or_else(PoisonError::into_inner).push(nanos);
        }
    }
}

/// Writes until nothing more is taken, or `most` bytes; the channel stays open.
async fn fill(mut tx: impl Tx, _rx: impl Rx, most: usize, shared: Arc<Shared>) -> io::Result<Samples> {
    /// Small, so that what is taken shows.
    const PART: usize = 4096;
    let data = [0x5a; PART];
    for _ in 0..most / PART {
        tx.write_all(&data).await?;
        shared.filled.fetch_add(PART as u64, Ordering::Relaxed);
    }
    std::future::pending().await
}

async fn full(shared: &Shared) {
    let begin = Instant::now();
    let mut last = None;
    while begin.elapsed() < FILLING {
        let filled = shared.filled.load(Ordering::Relaxed);
        if last == Some(filled) {
            return;
        }
        last = Some(filled);
        tokio::time::sleep(FULL).await;
    }
}
