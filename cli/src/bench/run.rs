//! One run: two fresh processes, so that neither memory nor threads of an earlier run are in the way.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::backend::Backend;
use super::scenario::{Scenario, Unit, warm_up};
use super::worker::{Latency, Report, Said};

/// What came of a run.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// Figures.
    Measured(Run),
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
    /// Processor time while it was measured.
    pub(crate) cpu_client_s: f64,
    pub(crate) cpu_server_s: f64,
    /// Peak resident bytes of a process; where the unit is bytes a channel, what a channel adds.
    pub(crate) rss_client: f64,
    pub(crate) rss_server: f64,
}

/// How long a worker may be silent beyond what it measures.
const PATIENCE: Duration = Duration::from_secs(90);

/// Starts both processes, lets them measure, ends them.
pub(crate) async fn measure(backend: &Backend, scenario: &Scenario, measured: Duration) -> Outcome {
    let place = Place::new(backend);
    let patience = PATIENCE + measured + warm_up(measured);
    match exchange(backend, scenario, measured, &place.name, patience).await {
        Ok((client, server)) => Outcome::Measured(figures(scenario, &client, &server)),
        Err(outcome) => outcome,
    }
}

async fn exchange(
    backend: &Backend,
    scenario: &Scenario,
    measured: Duration,
    place: &str,
    patience: Duration,
) -> Result<(Report, Report), Outcome> {
    let mut server = Worker::start("server", backend, scenario, measured, &backend.address(place))?;
    let address = match server.hear(patience).await? {
        Said::Listening(address) => address,
        other => return Err(server.confused(&other)),
    };
    let mut client = Worker::start("client", backend, scenario, measured, &address)?;
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
    let driven = match client.hear(patience).await? {
        Said::Report(report) => report,
        other => return Err(client.confused(&other)),
    };
    client.dismiss().await;
    server.dismiss().await;
    Ok((driven, served))
}

fn figures(scenario: &Scenario, client: &Report, server: &Report) -> Run {
    let per_second = |report: &Report| report.count as f64 / report.elapsed_s;
    let per_channel = |report: &Report| report.rss_grown as f64 / scenario.channels as f64;
    let size = match scenario.kind {
        super::scenario::Kind::Stream { size } => size as f64,
        _ => 1.0,
    };
    let value = match scenario.unit {
        Unit::MebibytesPerSecond => per_second(server) / f64::from(1 << 20),
        Unit::MessagesPerSecond => per_second(server) / size,
        Unit::PerSecond(_) => per_second(client),
        Unit::Microseconds => client.latency.map_or(f64::NAN, |latency| latency.p50_us),
        Unit::BytesPerChannel => per_channel(client).max(per_channel(server)),
    };
    let rss = |report: &Report| match scenario.unit {
        Unit::BytesPerChannel => per_channel(report),
        _ => report.rss_peak as f64,
    };
    Run {
        value,
        latency: client.latency,
        cpu_client_s: client.cpu_s,
        cpu_server_s: server.cpu_s,
        rss_client: rss(client),
        rss_server: rss(server),
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

/// A child process with its two pipes; killed when dropped, so that Ctrl-C leaves nothing behind.
struct Worker {
    role: &'static str,
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    fn start(
        role: &'static str,
        backend: &Backend,
        scenario: &Scenario,
        measured: Duration,
        at: &str,
    ) -> Result<Self, Outcome> {
        let failed = |error: &dyn std::fmt::Display| Outcome::Failed(format!("cannot start the {role}: {error}"));
        let this = std::env::current_exe().map_err(|error| failed(&error))?;
        let mut child = Command::new(this)
            .args(["bench-worker", role, "--backend", backend.name(), "--scenario", &scenario.label(), "--at", at])
            .args(["--seconds", &measured.as_secs_f64().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(&error))?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(stdin), Some(stdout)) => Ok(Self { role, child, stdin, stdout: BufReader::new(stdout).lines() }),
            _ => Err(failed(&"no pipes")),
        }
    }

    /// The worker's next word; its troubles are the run's.
    async fn hear(&mut self, patience: Duration) -> Result<Said, Outcome> {
        let failed = |what: String| Err(Outcome::Failed(format!("the {} {what}", self.role)));
        let line = match tokio::time::timeout(patience, self.stdout.next_line()).await {
            Err(_) => return failed(format!("was silent for {} s", patience.as_secs())),
            Ok(Err(error)) => return failed(format!("cannot be heard: {error}")),
            Ok(Ok(None)) => {
                let status = self.child.wait().await.map_or_else(|error| error.to_string(), |s| s.to_string());
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
        let told = self.stdin.write_all(format!("{command}\n").as_bytes()).await;
        told.map_err(|error| Outcome::Failed(format!("the {} does not listen: {error}", self.role)))
    }

    fn confused(&self, said: &Said) -> Outcome {
        Outcome::Failed(format!("the {} said {said:?} out of turn", self.role))
    }

    /// Closes its stdin, which is its sign to exit, and waits a moment.
    async fn dismiss(self) {
        let Self { mut child, stdin, .. } = self;
        drop(stdin);
        // Dropping a child that is still there kills it.
        let _ = tokio::time::timeout(Duration::from_secs(5), child.wait()).await;
    }
}
