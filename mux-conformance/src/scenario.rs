//! What a scenario is.

use std::pin::Pin;

use crate::context::Cx;
use crate::subject::Subject;

/// A scenario of the suite.
pub struct Scenario {
    /// The clause of the contract that it proves, 1 to 16.
    pub clause: u8,
    /// Its name, unique.
    pub name: &'static str,
    /// What it proves, in a sentence.
    pub proves: &'static str,
    pub(crate) seeds: Seeds,
    pub(crate) needs: Needs,
    pub(crate) run: Run,
}

/// How often a scenario runs.
#[derive(Clone, Copy)]
pub(crate) enum Seeds {
    /// Once: nothing in it is random.
    None,
    /// Once per seed: so many in a quick run, so many in a full one.
    Random { few: u64, full: u64 },
}

/// What a scenario needs beside two connected ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    Nothing,
    /// Something between the ends that can be narrow, slow, still, deaf or cut.
    Link,
    /// A listener: more than one session, or the listener itself.
    Listener,
}

type Run = for<'a> fn(&'a Cx) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

impl Scenario {
    /// A scenario without random numbers: `scenario!` writes the last argument.
    pub(crate) const fn new(clause: u8, name: &'static str, proves: &'static str, run: Run) -> Self {
        Self { clause, name, proves, seeds: Seeds::None, needs: Needs::Nothing, run }
    }

    /// It runs with `few` seeds, and in a full run with `full`.
    pub(crate) const fn seeds(mut self, few: u64, full: u64) -> Self {
        self.seeds = Seeds::Random { few, full };
        self
    }

    pub(crate) const fn needs(mut self, needs: Needs) -> Self {
        self.needs = needs;
        self
    }

    /// Why it cannot run with `subject`.
    pub(crate) fn missing(&self, subject: &Subject) -> Option<String> {
        match self.needs {
            Needs::Link if !subject.takes_link() => {
                Some("the suite can put nothing between the ends that Subject::pairs makes".to_owned())
            }
            Needs::Listener if !subject.listens() => Some("the subject has no listener".to_owned()),
            _ => None,
        }
    }
}

/// `scenario!(clause, "name", "what it proves", function)`, where `function` is an `async fn(&Cx)`.
macro_rules! scenario {
    ($clause:expr, $name:expr, $proves:expr, $run:expr) => {
        $crate::scenario::Scenario::new($clause, $name, $proves, |cx| Box::pin($run(cx)))
    };
}
pub(crate) use scenario;
