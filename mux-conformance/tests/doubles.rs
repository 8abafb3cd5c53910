//! The suite against backends that are broken on purpose: each flaw is found by the scenario that should find it.

#[path = "common/alone.rs"]
mod alone;
mod flawed;

use std::sync::Arc;
use std::time::Duration;

use flawed::{Flaw, Flawed};
use mux_conformance::{Outcome, Report, Subject, Suite};

/// Flaw, the scenario that finds it, and what the scenario says.
const FOUND: &[(Flaw, &str, &str)] = &[
    (Flaw::SwallowsReset, "reset-codes", "hangs"),
    (Flaw::DropIsEnd, "drop-is-reset", "a clean end where the direction was abandoned"),
    (Flaw::DropIsEnd, "abort-mid-write", "a clean end where the direction was abandoned"),
    (Flaw::OneWindow, "unread-channel-beside-one", "the active channel beside 1 unread ones"),
    (Flaw::LeaksChannels, "both-ends-open", "still holds what belongs to channels that are over"),
    (Flaw::AcceptBlocksReader, "nobody-accepts", "a channel beside it"),
    (Flaw::CloseIsAbort, "close-loses-nothing", "of what was finished"),
    (Flaw::LosesAccepted, "accept-cancelled", "opens against accepts that are dropped"),
    (Flaw::LeavesTasks, "both-ends-open", "left behind"),
    (Flaw::BlocksThreads, "both-ends-open", "blocks its threads"),
];

fn examine(flaw: Flaw, scenarios: &str) -> Report {
    let subject = Subject::backend(Arc::new(Flawed::new(flaw)), "qmux://127.0.0.1:0").named(format!("{flaw:?}"));
    // What is broken would wait for ever: seconds are enough to see that.
    let (deadline, patience) = if flaw == Flaw::None { (60, 60) } else { (6, 2) };
    let suite = Suite::new(subject).filter(scenarios).deadline(Duration::from_secs(deadline));
    suite.patience(Duration::from_secs(patience)).run()
}

fn is_found(flaw: Flaw) {
    for (_, scenario, says) in FOUND.iter().filter(|(of, ..)| *of == flaw) {
        let report = examine(flaw, scenario);
        let verdict = report.verdicts.iter().find(|verdict| verdict.name == *scenario).expect("it ran");
        match &verdict.outcome {
            Outcome::Failed { message, .. } => assert!(message.contains(says), "{flaw:?}: {message}"),
            other => panic!("{scenario} did not find {flaw:?}: {other:?}"),
        }
    }
}

#[test]
fn without_a_flaw_the_same_scenarios_pass() {
    alone::alone("without_a_flaw_the_same_scenarios_pass", || {
        let names: Vec<&str> = FOUND.iter().map(|(_, scenario, _)| *scenario).collect();
        let report = examine(Flaw::None, &names.join(","));
        assert!(report.passed(), "{report}");
    });
}

macro_rules! found {
    ($($test:ident $flaw:ident,)*) => {
        $(#[test]
        fn $test() {
            alone::alone(stringify!($test), || is_found(Flaw::$flaw));
        })*

        #[test]
        fn every_flaw_is_looked_for() {
            let looked = [$(Flaw::$flaw),*];
            assert!(FOUND.iter().all(|(flaw, ..)| looked.contains(flaw)));
        }
    };
}

found! {
    a_swallowed_reset SwallowsReset,
    a_drop_that_looks_like_an_end DropIsEnd,
    a_window_shared_by_all OneWindow,
    a_channel_that_is_leaked LeaksChannels,
    a_reader_blocked_on_accept AcceptBlocksReader,
    a_close_that_loses CloseIsAbort,
    an_accept_that_loses LosesAccepted,
    a_task_left_behind LeavesTasks,
    a_blocked_thread BlocksThreads,
}
