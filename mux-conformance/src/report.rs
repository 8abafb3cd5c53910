//! What a run found out.

use std::fmt;

/// What a run found out about a subject.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The subject's name.
    pub subject: String,
    /// Every scenario that was chosen, in the order of the clauses.
    pub verdicts: Vec<Verdict>,
}

/// What a run found out about a scenario.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Verdict {
    /// The clause of the contract that the scenario proves.
    pub clause: u8,
    /// The scenario.
    pub name: &'static str,
    /// With how many seeds it ran; 0 for a scenario without random numbers.
    pub seeds: u64,
    /// How it went.
    pub outcome: Outcome,
}

/// How a scenario went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As the contract says. `notes` tell what the session cannot do, and what was asserted instead.
    Passed {
        /// In no particular order.
        notes: Vec<String>,
    },
    /// Not as the contract says.
    Failed {
        /// With which seed.
        seed: u64,
        /// What was expected and what happened, or what it waited for in vain.
        message: String,
    },
    /// It could not be tried.
    NotRun {
        /// What is missing.
        reason: String,
    },
}

impl Report {
    /// Whether no scenario failed.
    pub fn passed(&self) -> bool {
        !self.verdicts.iter().any(|verdict| matches!(verdict.outcome, Outcome::Failed { .. }))
    }

    /// The scenarios that failed.
    pub fn failed(&self) -> impl Iterator<Item = &Verdict> {
        self.verdicts.iter().filter(|verdict| matches!(verdict.outcome, Outcome::Failed { .. }))
    }
}

/// A line per scenario, and below it what is to be said about it.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "conformance of {}", self.subject)?;
        for verdict in &self.verdicts {
            writeln!(f, "{verdict}")?;
        }
        let failed = self.failed().count();
        let not_run = self.verdicts.iter().filter(|v| matches!(v.outcome, Outcome::NotRun { .. })).count();
        let passed = self.verdicts.len() - failed - not_run;
        write!(f, "{passed} passed, {failed} failed, {not_run} not run")
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seeds = match self.seeds {
            0 => String::new(),
            1 => " (1 seed)".to_owned(),
            seeds => format!(" ({seeds} seeds)"),
        };
        let word = match &self.outcome {
            Outcome::Passed { .. } => "ok",
            Outcome::Failed { .. } => "FAILED",
            Outcome::NotRun { .. } => "not run",
        };
        write!(f, "  {:>2}  {:<44} {word}{seeds}", self.clause, self.name)?;
        match &self.outcome {
            Outcome::Passed { notes } => notes.iter().try_for_each(|note| write!(f, "\n        {note}")),
            Outcome::NotRun { reason } => write!(f, "\n        {reason}"),
            Outcome::Failed { seed, message } => {
                write!(f, "\n        {}", message.replace('\n', "\n        "))?;
                let name = self.name;
                write!(f, "\n        again: {}={name} {}={seed}", crate::FILTER_VARIABLE, crate::SEED_VARIABLE)
            }
        }
    }
}
