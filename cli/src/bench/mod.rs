//! `mux bench`: what a backend costs over what it rides on, bare.

mod backend;
mod beside;
mod client;
mod link;
mod picture;
mod process;
mod raw_h2;
mod raw_quinn;
mod raw_tls;
mod remote;
mod report;
mod run;
mod scenario;
mod secure;
mod server;
mod through_c;
pub(crate) mod worker;

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use self::backend::{Backend, with_baselines};
use self::report::{Row, table};
use self::run::{How, Outcome, measure};
use self::scenario::{Scenario, Times};
use crate::exit::{Exit, print_line, stdout_failed};

/// Measure backends beside what they ride on, bare
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Schemes and what they ride on bare; what a scheme rides on is added
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "qmux,quic,h2c,h2")]
    backend: Vec<String>,

    /// What to measure, see --list; all but idle, unread and loaded-ping unless told
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    scenario: Vec<String>,

    /// How long each run measures [default: 2]
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,

    /// How long traffic runs before it is measured [default: a fifth of --seconds up to 0.5; 2 with --connect]
    #[arg(long, value_name = "S")]
    warm_up: Option<f64>,

    /// Runs of each; values are their medians [default: 3]
    #[arg(long, value_name = "N")]
    runs: Option<usize>,

    /// Write a JSON object a line to FILE, or to stdout with '-' (the table goes to stderr then)
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,

    /// Draw the ratios: a page of HTML
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Through which API; c is measured against rust, in the same rounds, by the program in C that the library is built with
    #[arg(long, value_name = "API", default_value = "rust", value_parser = ["rust", "c"], conflicts_with_all = ["serve", "connect"])]
    api: String,

    /// Serve those who measure over a link with --connect, until interrupted; prints the address. For trusted networks
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["connect", "json", "html", "quick", "list"])]
    serve: Option<String>,

    /// Measure over a link: the server's process runs where 'mux bench --serve' printed this address
    #[arg(long, value_name = "HOST:PORT")]
    connect: Option<String>,

    /// An option of the backends' URLs at both ends, such as window=16m, which raw-quinn and raw-h2 take too
    #[arg(long, value_name = "NAME=VALUE")]
    option: Vec<String>,

    /// A few scenarios, 0.3 s each
    #[arg(long)]
    quick: bool,

    /// List the scenarios and exit
    #[arg(long)]
    list: bool,
}

/// Runs what was asked for, prints the table.
pub(crate) async fn run(args: Args) -> Result<(), Exit> {
    if args.list {
        let lines = scenario::ALL.iter().map(|s| format!("{:11} {} ({})", s.name, s.summary, s.unit.name()));
        return print_line(&lines.collect::<Vec<_>>().join("\n"));
    }
    if let Some(at) = &args.serve {
        return remote::serve(at).await;
    }
    let plan = Plan::new(&args)?;
    let mut json = args.json.as_deref().map(Json::open).transpose()?;
    let picture = args.html.as_deref().map(create).transpose()?;
    let progress = Progress::new(plan.scenarios.len() * plan.runs * plan.backends.len());
    let mut rows = Vec::new();
    for scenario in &plan.scenarios {
        let outcomes = plan.measure(scenario, &progress).await;
        let scenario_rows = Row::of(scenario, &plan.backends, &outcomes);
        if let Some(json) = &mut json {
            json.write(&scenario_rows)?;
        }
        rows.extend(scenario_rows);
    }
    progress.finish();
    if let (Some(mut file), Some(path)) = (picture, &args.html) {
        file.write_all(picture::page(&rows).as_bytes()).map_err(|error| cannot_write(path, &error))?;
    }
    let text = table(&rows);
    match json {
        Some(Json::Stdout) => eprint_table(&text),
        _ => print_line(&text)?,
    }
    match rows.iter().filter(|row| row.error.is_some()).count() {
        0 => Ok(()),
        failed => Err(Exit::failed(format!("{failed} of {} measurements failed", rows.len()))),
    }
}

/// What is measured, how long and how often.
struct Plan {
    backends: Vec<Backend>,
    scenarios: Vec<Scenario>,
    times: Times,
    runs: usize,
    how: How,
}

impl Plan {
    fn new(args: &Args) -> Result<Self, Exit> {
        let named: Vec<Backend> = args.backend.iter().map(|name| Backend::parse(name)).collect::<Result<_, _>>()?;
        if let (Some(backend), Some(_)) = (named.iter().find(|backend| backend.wants_path()), &args.connect) {
            return Err(Exit::usage(format!("--connect: {} is a Unix socket, which no link carries", backend.name())));
        }
        let through_c = args.api == "c";
        let names: Vec<&str> = match (args.scenario.as_slice(), args.quick) {
            ([], _) if through_c => scenario::THROUGH_C.to_vec(),
            ([], true) => scenario::QUICK.to_vec(),
            ([], false) => scenario::DEFAULT.to_vec(),
            (named, _) => named.iter().map(String::as_str).collect(),
        };
        let scenarios: Vec<Vec<Scenario>> = names.into_iter().map(Scenario::parse).collect::<Result<_, _>>()?;
        let seconds = args.seconds.unwrap_or(if args.quick { 0.3 } else { 2.0 });
        if !(0.01..=3600.0).contains(&seconds) {
            return Err(Exit::usage(format!("--seconds {seconds}: 0.01 to 3600 is allowed")));
        }
        let mut times = Times::of_loopback(Duration::from_secs_f64(seconds));
        if let Some(seconds) = args.warm_up.or(args.connect.is_some().then_some(2.0)) {
            if !(0.0..=3600.0).contains(&seconds) {
                return Err(Exit::usage(format!("--warm-up {seconds}: 0 to 3600 is allowed")));
            }
            times.warm_up = Duration::from_secs_f64(seconds);
        }
        let runs = args.runs.unwrap_or(3);
        if !(1..=1000).contains(&runs) {
            return Err(Exit::usage(format!("--runs {runs}: 1 to 1000 is allowed")));
        }
        Ok(Self {
            backends: with_baselines(if through_c { in_c(named)? } else { named }),
            scenarios: scenarios.concat(),
            times,
            runs,
            how: How { remote: args.connect.clone(), options: args.option.clone() },
        })
    }

    /// The runs of a scenario, a round of all backends after the other: on a noisy machine only neighbours compare.
    async fn measure(&self, scenario: &Scenario, progress: &Progress) -> Vec<Vec<Outcome>> {
        let mut outcomes = vec![Vec::with_capacity(self.runs); self.backends.len()];
        for round in 1..=self.runs {
            for (backend, outcomes) in self.backends.iter().zip(&mut outcomes) {
                let api = if backend.api() == "c" { " through C" } else { "" };
                let what = format!("{} {}{api}, run {round} of {}", scenario.label(), backend.name(), self.runs);
                progress.begin(&what);
                let outcome = measure(backend, scenario, self.times, &self.how).await;
                progress.end(&what, &outcome, scenario);
                outcomes.push(outcome);
            }
        }
        outcomes
    }
}

/// Schemes, measured through the C API.
fn in_c(named: Vec<Backend>) -> Result<Vec<Backend>, Exit> {
    through_c::program().map_err(|error| Exit::usage(format!("--api c: {error}")))?;
    let through_c = named.into_iter().map(|backend| match backend {
        Backend::Mux(scheme) => Ok(Backend::ThroughC(scheme)),
        other => Err(Exit::usage(format!("--api c: {} has no C API; schemes have", other.name()))),
    });
    through_c.collect()
}

/// A bar on a terminal, a line a run elsewhere; both on stderr.
struct Progress {
    bar: ProgressBar,
    plain: bool,
}

impl Progress {
    fn new(runs: usize) -> Self {
        let plain = !io::stderr().is_terminal();
        // Never drawn when plain; it still counts.
        let bar = if plain { ProgressBar::hidden() } else { ProgressBar::new(runs as u64) };
        bar.set_length(runs as u64);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}") {
            bar.set_style(style);
        }
        Self { bar, plain }
    }

    fn begin(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    fn end(&self, what: &str, outcome: &Outcome, scenario: &Scenario) {
        self.bar.inc(1);
        let said = match outcome {
            Outcome::Measured(run) => format!("{:.1} {}", run.value, scenario.unit.name()),
            Outcome::Skipped(why) => format!("skipped: {why}"),
            Outcome::Failed(why) => format!("FAILED: {why}"),
        };
        if self.plain {
            // Progress that nobody can read any more is no reason to stop.
            let _ = writeln!(
                io::stderr(),
                "[{}/{}] {what}: {said}",
                self.bar.position(),
                self.bar.length().unwrap_or_default()
            );
        } else if !matches!(outcome, Outcome::Measured(_)) {
            self.bar.println(format!("{what}: {said}"));
        }
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn eprint_table(text: &str) {
    // As progress.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Before the first run: nobody wants to learn after an hour that the directory does not exist.
fn create(path: &Path) -> Result<File, Exit> {
    File::create(path).map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &Path, error: &io::Error) -> Exit {
    Exit::failed(format!("cannot write {}: {error}", path.display()))
}

/// Where the JSON goes.
enum Json {
    Stdout,
    File(PathBuf, File),
}

impl Json {
    fn open(path: &Path) -> Result<Self, Exit> {
        if path.as_os_str() == "-" {
            return Ok(Self::Stdout);
        }
        Ok(Self::File(path.to_path_buf(), create(path)?))
    }

    fn write(&mut self, rows: &[Row]) -> Result<(), Exit> {
        let lines = |out: &mut dyn Write| -> io::Result<()> {
            for row in rows {
                writeln!(out, "{}", serde_json::to_string(row)?)?;
            }
            out.flush()
        };
        match self {
            Self::Stdout => lines(&mut io::stdout().lock()).map_err(|error| stdout_failed(&error)),
            Self::File(path, file) => lines(file).map_err(|error| cannot_write(path, &error)),
        }
    }
}
