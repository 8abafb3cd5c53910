//! The dialing process: it makes the traffic and measures latencies.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::beside;
use super::link::{Channels, Rx, Tx};
use super::process::Snapshot;
use super::scenario::{Kind, PING, Scenario, Times};
use super::worker::{Command, Latency, Report, Said, Trouble, say};

/// What the tasks share with the one that watches the clock.
#[derive(Default)]
struct Shared {
    phase: AtomicU8,
    /// Operations completed.
    done: AtomicU64,
}

const MEASURING: u8 = 1;
const STOPPING: u8 = 2;

/// How long tasks may take to stop; the server is still there, so an operation is all they wait for.
const STOP: Duration = Duration::from_secs(10);

/// Latencies of one task, in nanoseconds.
pub(super) type Samples = Vec<u32>;

/// Plays `scenario` over `channels` and reports.
pub(crate) async fn run<C: Channels>(
    channels: C,
    scenario: &Scenario,
    times: Times,
    commands: mpsc::UnboundedReceiver<Command>,
) -> Result<(), Trouble> {
    match scenario.kind {
        Kind::Idle => hold(channels, scenario, commands).await,
        Kind::Unread | Kind::LoadedPing => beside::run(channels, scenario, times, commands).await,
        _ => work(Arc::new(channels), scenario, times, commands).await,
    }
}

async fn hold<C: Channels>(
    channels: C,
    scenario: &Scenario,
    mut commands: mpsc::UnboundedReceiver<Command>,
) -> Result<(), Trouble> {
    let mut held = Vec::with_capacity(scenario.channels);
    // Whatever is set up once, with the first channel, is no cost of the others.
    let begin = Snapshot::take();
    say(&Said::Begin)?;
    for opened in 0..scenario.channels {
        match channels.next().await {
            Ok(channel) => held.push(channel),
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                return Err(Trouble::Skip(format!("no local port was left after {opened} connections")));
            }
            Err(error) => return Err(Trouble::Fail(format!("after {opened} channels: {error}"))),
        }
    }
    say(&Said::End)?;
    // Sent once the server holds them all.
    if commands.recv().await != Some(Command::End) {
        return Err(Trouble::Fail("the parent process is gone".to_owned()));
    }
    let report = Report { count: held.len() as u64, ..Report::between(begin, Snapshot::take()) };
    Ok(say(&Said::Report(report))?)
}

async fn work<C: Channels>(
    channels: Arc<C>,
    scenario: &Scenario,
    times: Times,
    mut commands: mpsc::UnboundedReceiver<Command>,
) -> Result<(), Trouble> {
    let shared = Arc::new(Shared::default());
    let mut tasks: JoinSet<io::Result<Samples>> = JoinSet::new();
    for _ in 0..scenario.channels {
        let shared = Arc::clone(&shared);
        match scenario.kind {
            Kind::Stream { size } => {
                let (tx, rx) = channels.next().await?;
                tasks.spawn(stream(tx, rx, size, shared));
            }
            Kind::PingPong => {
                let (tx, rx) = channels.next().await?;
                tasks.spawn(pingpong(tx, rx, shared));
            }
            _ => {
                tasks.spawn(churn(Arc::clone(&channels), shared));
            }
        }
    }
    undisturbed(&mut tasks, tokio::time::sleep(times.warm_up)).await?;
    let begin = (Snapshot::take(), shared.done.load(Ordering::Relaxed));
    shared.phase.store(MEASURING, Ordering::Relaxed);
    say(&Said::Begin)?;
    undisturbed(&mut tasks, tokio::time::sleep(times.measured)).await?;
    let end = (Snapshot::take(), shared.done.load(Ordering::Relaxed));
    say(&Said::End)?;
    // Traffic goes on until the server has taken its figures.
    undisturbed(&mut tasks, commands.recv()).await?;
    shared.phase.store(STOPPING, Ordering::Relaxed);
    let mut samples = Samples::new();
    // A writer may sit in a full window; it has nothing to tell, so it is not waited for.
    if !matches!(scenario.kind, Kind::Stream { .. }) {
        let stopping = async {
            while let Some(ended) = tasks.join_next().await {
                samples.extend(outcome(ended)?);
            }
            Ok::<(), Trouble>(())
        };
        tokio::time::timeout(STOP, stopping)
            .await
            .map_err(|_| Trouble::Fail(format!("an operation hangs for {} s", STOP.as_secs())))??;
    }
    let report =
        Report { count: end.1 - begin.1, latency: percentiles(&mut samples), ..Report::between(begin.0, end.0) };
    say(&Said::Report(report))?;
    // The report counts once the parent has it; it hangs up then, which ends this process, traffic and all.
    while commands.recv().await.is_some() {}
    Ok(())
}

/// Waits for `event`; a task that ends before it has failed.
pub(super) async fn undisturbed<T>(
    tasks: &mut JoinSet<io::Result<Samples>>,
    event: impl Future<Output = T>,
) -> Result<T, Trouble> {
    tokio::select! {
        happened = event => Ok(happened),
        Some(ended) = tasks.join_next() => {
            outcome(ended)?;
            Err(Trouble::Fail("traffic ended too soon".to_owned()))
        }
    }
}

fn outcome(ended: Result<io::Result<Samples>, tokio::task::JoinError>) -> Result<Samples, Trouble> {
    match ended {
        Ok(samples) => Ok(samples?),
        Err(error) => Err(Trouble::Fail(format!("a task failed: {error}"))),
    }
}

pub(super) fn percentiles(samples: &mut [u32]) -> Option<Latency> {
    samples.sort_unstable();
    let at = |part: f64| f64::from(*samples.get((samples.len() as f64 * part) as usize)?).into();
    let micros = |nanos: Option<f64>| nanos.map(|nanos| nanos / 1000.0);
    Some(Latency { p50_us: micros(at(0.50))?, p99_us: micros(at(0.99))? })
}

async fn stream(mut tx: impl Tx, _rx: impl Rx, size: usize, shared: Arc<Shared>) -> io::Result<Samples> {
    let data = vec![0x5a; size];
    while shared.phase.load(Ordering::Relaxed) != STOPPING {
        tx.write_all(&data).await?;
    }
    Ok(Samples::new())
}

async fn pingpong(mut tx: impl Tx, mut rx: impl Rx, shared: Arc<Shared>) -> io::Result<Samples> {
    let mut clock = Clock::new(&shared);
    while clock.runs() {
        tx.write_all(&[0x5a; PING]).await?;
        read_ping(&mut rx).await?;
        clock.lap();
    }
    Ok(clock.samples)
}

async fn churn<C: Channels>(channels: Arc<C>, shared: Arc<Shared>) -> io::Result<Samples> {
    let mut clock = Clock::new(&shared);
    while clock.runs() {
        let (mut tx, mut rx) = channels.next().await?;
        tx.write_last(&[0x5a; PING]).await?;
        read_ping(&mut rx).await?;
        if rx.read(&mut [0; PING]).await? != 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the echo is longer than the message"));
        }
        clock.lap();
    }
    Ok(clock.samples)
}

pub(super) async fn read_ping(rx: &mut impl Rx) -> io::Result<()> {
    let mut buf = [0; PING];
    let mut got = 0;
    while got < PING {
        match rx.read(&mut buf[got..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => got += n,
        }
    }
    Ok(())
}

/// Times operations of one task that follow one another without a pause.
struct Clock<'a> {
    shared: &'a Shared,
    started: Instant,
    samples: Samples,
}

impl<'a> Clock<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self { shared, started: Instant::now(), samples: Samples::new() }
    }

    fn runs(&self) -> bool {
        self.shared.phase.load(Ordering::Relaxed) != STOPPING
    }

    fn lap(&mut self) {
        let now = Instant::now();
        self.shared.done.fetch_add(1, Ordering::Relaxed);
        if self.shared.phase.load(Ordering::Relaxed) == MEASURING {
            self.samples.push(u32::try_from((now - self.started).as_nanos()).unwrap_or(u32::MAX));
        }
        self.started = now;
    }
}
