//! One run: two fresh processes, so that neither memory nor threads of an earlier run are in the way.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, Command};

use super::backend::Backend;
use super::remote;
use super::scenario::{Kind, Scenario, Times, Unit};
use super::through_c::{self, Certificate};
use super::worker::{Latency, Report, Said};

/// What came of a run.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// Figures.
    Measured(Box<Run>),
    /// This machine cannot do it; not the backend's fault.
    Skipped(String),
    /// It went wrong.
    Failed(String),
}

/// The figures of a run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// In the scenario's unit.
    pub(crate) value: f64,
    /// Where single operations are timed.
    pub(crate) latency: Option<Latency>,
    /// The same before there was a load beside it, where there is one.
    pub(crate) alone: Option<Alone>,
    /// Processor time while it was measured.
    pub(crate) cpu_client_s: f64,
    pub(crate) cpu_server_s: f64,
    /// Peak resident bytes of a process; where the unit is bytes a channel, what a channel adds.
    pub(crate) rss_client: f64,
    pub(crate) rss_server: f64,
    /// Bytes charged to the library's budget at the end; 0 without libmux.
    pub(crate) budget_client: f64,
    pub(crate) budget_server: f64,
}

/// What was measured without the load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Alone {
    /// In the scenario's unit.
    pub(crate) value: f64,
    pub(crate) latency: Option<Latency>,
}

/// How long a worker may be silent beyond what it measures.
const PATIENCE: Duration = Duration::from_secs(90);

/// What holds for every run.
pub(crate) struct How {
    /// Where the server's process is started, if not here.
    pub(crate) remote: Option<String>,
    /// Options of URLs, for both ends.
    pub(crate) options: Vec<String>,
}

/// Starts both processes, lets them measure, ends them.
pub(crate) async fn measure(backend: &Backend, scenario: &Scenario, times: Times, how: &How) -> Outcome {
    match exchange(backend, scenario, times, how).await {
        Ok(intervals) => match intervals.as_slice() {
            [once] => Outcome::Measured(Box::new(figures(scenario, once))),
            [alone, beside] => {
                let Run { value, latency, .. } = figures(scenario, alone);
                let alone = Some(Alone { value, latency });
                Outcome::Measured(Box::new(Run { alone, ..figures(scenario, beside) }))
            }
            _ => Outcome::Failed("nothing was measured".to_owned()),
        },
        Err(outcome) => outcome,
    }
}

/// What both ends report of the same interval.
struct Interval {
    client: Report,
    server: Report,
}

async fn exchange(backend: &Backend, scenario: &Scenario, times: Times, how: &How) -> Result<Vec<Interval>, Outcome> {
    let patience = PATIENCE + times.measured + times.warm_up;
    let place = Place::new(backend);
    let certificate = Certificate::new(backend).map_err(Outcome::Failed)?;
    let at = backend.address(&place.name);
    let at = certificate.as_ref().map_or_else(|| at.clone(), |certificate| certificate.presented(&at));
    let mut server = match &how.remote {
        None => Worker::start("server", backend, scenario, times, &at, how)?,
        Some(at) => Worker::order(at, backend, scenario, how).await?,
    };
    let address = match server.hear(patience).await? {
        Said::Listening(address) => {
            certificate.as_ref().map_or_else(|| address.clone(), |certificate| certificate.trusted(&address))
        }
        other => return Err(server.confused(&other)),
    };
    let mut client = Worker::start("client", backend, scenario, times, &address, how)?;
    let mut intervals = Vec::new();
    for _ in 0..=usize::from(scenario.is_beside()) {
        match client.hear(patience).await? {
            Said::Begin => server.tell("begin").await?,
            other => return Err(client.confused(&other)),
        }
        match client.hear(patience).await? {
            Said::End => server.tell("end").await?,
            other => return Err(client.confused(&other)),
        }
        let served = match server.hear(patience).await? {
            Said::Report(report) => report,
            other => return Err(server.confused(&other)),
        };
        client.tell("end").await?;
        match client.hear(patience).await? {
            Said::Report(driven) => intervals.push(Interval { client: driven, server: served }),
            other => return Err(client.confused(&other)),
        }
    }
    client.dismiss().await;
    server.dismiss().await;
    Ok(intervals)
}

fn figures(scenario: &Scenario, Interval { client, server }: &Interval) -> Run {
    let per_second = |report: &Report| report.count as f64 / report.elapsed_s;
    let per_channel = |report: &Report| report.rss_grown as f64 / scenario.channels as f64;
    let size = match scenario.kind {
        Kind::Stream { size } => size as f64,
        _ => 1.0,
    };
    let value = match scenario.unit {
        Unit::MebibytesPerSecond => per_second(server) / f64::from(1 << 20),
        Unit::MessagesPerSecond => per_second(server) / size,
        Unit::PerSecond(_) => per_second(client),
        Unit::Microseconds => client.latency.map_or(f64::NAN, |latency| latency.p50_us),
        Unit::Microseconds99 => client.latency.map_or(f64::NAN, |latency| latency.p99_us),
        Unit::BytesPerChannel => per_channel(client).max(per_channel(server)),
        Unit::Nanoseconds => 1e9 / per_second(client),
    };
    let rss = |report: &Report| match scenario.unit {
        Unit::BytesPerChannel => per_channel(report),
        _ => report.rss_peak as f64,
    };
    Run {
        value,
        latency: client.latency,
        alone: None,
        cpu_client_s: client.cpu_s,
        cpu_server_s: server.cpu_s,
        rss_client: rss(client),
        rss_server: rss(server),
        budget_client: client.budget as f64,
        budget_server: server.budget as f64,
    }
}

/// Where a server listens. A socket file is removed when the run is over, however it ended.
struct Place {
    name: String,
    file: Option<PathBuf>,
}

impl Place {
    fn new(backend: &Backend) -> Self {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        if !backend.wants_path() {
            return Self { name: "127.0.0.1:0".to_owned(), file: None };
        }
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let file = std::env::temp_dir().join(format!("mux-bench-{}-{run}.sock", std::process::id()));
        Self { name: file.display().to_string(), file: Some(file) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            // A listener that ended properly has removed it already.
            let _ = std::fs::remove_file(file);
        }
    }
}

/// A process and the two ways to talk with it: a child, killed when dropped, so that Ctrl-C leaves nothing behind; or one
/// at the other end of a link, which ends with the connection.
struct Worker {
    role: &'static str,
    child: Option<Child>,
    to: Box<dyn AsyncWrite + Send + Unpin>,
    from: Lines<BufReader<Box<dyn AsyncRead + Send + Unpin>>>,
}

impl Worker {
    fn start(
        role: &'static str,
        backend: &Backend,
        scenario: &Scenario,
        times: Times,
        at: &str,
        how: &How,
    ) -> Result<Self, Outcome> {
        let failed = |error: &dyn std::fmt::Display| Outcome::Failed(format!("cannot start the {role}: {error}"));
        let mut command = match backend {
            Backend::ThroughC(_) => Command::new(through_c::program().map_err(|error| failed(&error))?),
            _ => {
                let mut this = Command::new(std::env::current_exe().map_err(|error| failed(&error))?);
                this.arg("bench-worker");
                this
            }
        };
        let mut child = command
            .args([role, "--backend", backend.name(), "--scenario", &scenario.label(), "--at", at])
            .args(["--seconds", &times.measured.as_secs_f64().to_string()])
            .args(["--warm-up", &times.warm_up.as_secs_f64().to_string()])
            .args(how.options.iter().flat_map(|option| ["--option", option]))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(&error))?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(stdin), Some(stdout)) => Ok(Self::new(role, Some(child), Box::new(stdin), Box::new(stdout))),
            _ => Err(failed(&"no pipes")),
        }
    }

    async fn order(at: &str, backend: &Backend, scenario: &Scenario, how: &How) -> Result<Self, Outcome> {
        match remote::order(at, backend.name(), &scenario.label(), &how.options).await {
            Ok((to, from)) => Ok(Self::new("server", None, Box::new(to), Box::new(from))),
            Err(error) => Err(Outcome::Failed(format!("nothing is served at {at}: {error}"))),
        }
    }

    fn new(
        role: &'static str,
        child: Option<Child>,
        to: Box<dyn AsyncWrite + Send + Unpin>,
        from: Box<dyn AsyncRead + Send + Unpin>,
    ) -> Self {
        Self { role, child, to, from: BufReader::new(from).lines() }
    }

    /// The worker's next word; its troubles are the run's.
    async fn hear(&mut self, patience: Duration) -> Result<Said, Outcome> {
        let failed = |what: String| Err(Outcome::Failed(format!("the {} {what}", self.role)));
        let line = match tokio::time::timeout(patience, self.from.next_line()).await {
            Err(_) => return failed(format!("was silent for {} s", patience.as_secs())),
            Ok(Err(error)) => return failed(format!("cannot be heard: {error}")),
            Ok(Ok(None)) => {
                let status = match &mut self.child {
                    Some(child) => child.wait().await.map_or_else(|error| error.to_string(), |s| s.to_string()),
                    None => "at the other end of the link; see what is said there".to_owned(),
                };
                return failed(format!("ended without a report ({status})"));
            }
            Ok(Ok(Some(line))) => line,
        };
        match serde_json::from_str(&line) {
            Ok(Said::Skipped(why)) => Err(Outcome::Skipped(why)),
            Ok(Said::Failed(why)) => failed(format!("failed: {why}")),
            Ok(said) => Ok(said),
            Err(error) => failed(format!("said {line:?}: {error}")),
        }
    }

    async fn tell(&mut self, command: &str) -> Result<(), Outcome> {
        let told = self.to.write_all(format!("{command}\n").as_bytes()).await;
        told.map_err(|error| Outcome::Failed(format!("the {} does not listen: {error}", self.role)))
    }

    fn confused(&self, said: &Said) -> Outcome {
        Outcome::Failed(format!("the {} said {said:?} out of turn", self.role))
    }

    /// Hangs up, which is its sign to exit, and waits a moment.
    async fn dismiss(self) {
        let Self { child, to, .. } = self;
        drop(to);
        if let Some(mut child) = child {
            // Dropping a child that is still there kills it.
            let _ = tokio::time::timeout(Duration::from_secs(5), child.wait()).await;
        }
    }
}
