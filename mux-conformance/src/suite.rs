//! Chooses scenarios and runs them, each on a runtime of its own.

use std::env;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::context::lock;
use crate::report::{Outcome, Report, Verdict};
use crate::run::{Limits, run, warm_up};
use crate::scenario::{Scenario, Seeds};
use crate::scenarios;
use crate::subject::Subject;

/// Names the scenarios to run: those whose name contains one of these words, separated by commas.
pub const FILTER_VARIABLE: &str = "MUX_CONFORMANCE_FILTER";
/// Replays one seed.
pub const SEED_VARIABLE: &str = "MUX_CONFORMANCE_SEED";
/// With how many seeds to run; `full`: with as many as each scenario deserves, and with its largest numbers.
pub const SEEDS_VARIABLE: &str = "MUX_CONFORMANCE_SEEDS";
/// Seconds that a scenario may take with one seed.
pub const DEADLINE_VARIABLE: &str = "MUX_CONFORMANCE_DEADLINE";

/// The scenarios, and how thoroughly they run.
pub struct Suite {
    subject: Arc<Subject>,
    filter: Vec<String>,
    seed: Option<u64>,
    seeds: Option<u64>,
    full: bool,
    deadline: Option<Duration>,
    patience: Duration,
    progress: bool,
}

impl Suite {
    /// All scenarios, each with the few seeds it asks for. The environment's variables have the last word.
    pub fn new(subject: Subject) -> Self {
        Self {
            subject: Arc::new(subject),
            filter: Vec::new(),
            seed: None,
            seeds: None,
            full: false,
            deadline: None,
            patience: Duration::from_secs(60),
            progress: false,
        }
    }

    /// Only scenarios whose name contains one of these words, separated by commas.
    #[must_use]
    pub fn filter(mut self, words: &str) -> Self {
        self.filter = words.split(',').map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect();
        self
    }

    /// With so many seeds instead of those each scenario asks for.
    #[must_use]
    pub fn seeds(mut self, seeds: u64) -> Self {
        self.seeds = Some(seeds.max(1));
        self
    }

    /// With as many seeds as each scenario deserves, and with its largest numbers: for the night.
    #[must_use]
    pub fn full(mut self) -> Self {
        self.full = true;
        self
    }

    /// How long a scenario may take with one seed before it counts as hanging: 2 minutes unless said (30 in a
    /// [`full`](Self::full) run).
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// How long what a scenario leaves behind may take to go away before it counts as leaked: 60 seconds unless said. A QUIC
    /// connection drains for three probe timeouts (RFC 9000 section 10.2), which a starved machine makes long.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Prints each verdict to the standard error as it is reached.
    #[must_use]
    pub fn progress(mut self) -> Self {
        self.progress = true;
        self
    }

    /// Runs the scenarios one after the other. Blocks; not to be called inside an async runtime.
    ///
    /// Between scenarios the process must have no more tasks, sessions, file descriptors and reserved memory than before,
    /// so nothing else should open any meanwhile: give the suite a test program of its own. Runs in one process take turns.
    pub fn run(self) -> Report {
        static TURN: Mutex<()> = Mutex::new(());
        let suite = self.with_environment();
        let chosen: Vec<&Scenario> = scenarios::all().filter(|scenario| suite.wants(scenario)).collect();
        {
            let _turn = lock(&TURN);
            warm_up(&suite.subject);
        }
        let mut verdicts = Vec::new();
        for scenario in chosen {
            let verdict = {
                let _turn = lock(&TURN);
                suite.judge(scenario)
            };
            if suite.progress {
                eprintln!("{}: {verdict}", suite.subject.name());
            }
            verdicts.push(verdict);
        }
        Report { subject: suite.subject.name().to_owned(), verdicts }
    }

    fn with_environment(mut self) -> Self {
        if let Ok(words) = env::var(FILTER_VARIABLE) {
            self = self.filter(&words);
        }
        match env::var(SEEDS_VARIABLE).as_deref() {
            Ok("full") => self.full = true,
            Ok(seeds) => self.seeds = Some(number(SEEDS_VARIABLE, seeds)),
            Err(_) => {}
        }
        if let Ok(seed) = env::var(SEED_VARIABLE) {
            self.seed = Some(number(SEED_VARIABLE, &seed));
        }
        if let Ok(seconds) = env::var(DEADLINE_VARIABLE) {
            self.deadline = Some(Duration::from_secs(number(DEADLINE_VARIABLE, &seconds)));
        }
        self
    }

    fn wants(&self, scenario: &Scenario) -> bool {
        self.filter.is_empty() || self.filter.iter().any(|word| scenario.name.contains(word.as_str()))
    }

    fn judge(&self, scenario: &'static Scenario) -> Verdict {
        let (clause, name) = (scenario.clause, scenario.name);
        if let Some(reason) = scenario.missing(&self.subject) {
            return Verdict { clause, name, seeds: 0, outcome: Outcome::NotRun { reason } };
        }
        let deadline = self.deadline.unwrap_or(Duration::from_secs(if self.full { 1800 } else { 120 }));
        let (count, random) = match scenario.seeds {
            Seeds::None => (1, false),
            Seeds::Random { few, full } => (self.seeds.unwrap_or(if self.full { full } else { few }), true),
        };
        let seeds = match self.seed {
            Some(seed) => seed..seed + 1,
            None => 0..count,
        };
        let ran = if random { seeds.end - seeds.start } else { 0 };
        let mut notes = Vec::new();
        for seed in seeds {
            let limits = Limits { deadline, patience: self.patience };
            match run(scenario, &self.subject, self.full, seed, limits) {
                Ok(said) => notes.extend(said),
                Err(message) => {
                    return Verdict { clause, name, seeds: ran, outcome: Outcome::Failed { seed, message } };
                }
            }
        }
        notes.sort();
        notes.dedup();
        Verdict { clause, name, seeds: ran, outcome: Outcome::Passed { notes } }
    }
}

fn number(variable: &str, text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("{variable}={text}: a number is expected"))
}
