//! The contract of libmux as a suite that any backend can run.
//!
//! Sessions and channels promise sixteen things, whatever wire carries them (`docs/conformance.md`). Each is proved here
//! by *scenarios* with two connected ends. What a session cannot do it says in its capabilities; a scenario that would
//! need such an ability asserts what is documented for its absence instead, and the report tells. After every scenario
//! nothing may be left: no task, session, channel entry, reserved byte or file descriptor.
//!
//! # For the author of a backend
//! One call, in a test program of its own (the suite counts the process's files):
//!
//! ```
//! use std::sync::Arc;
//! use mux_api::backend::Backend;
//! use mux_conformance::{Subject, Suite, check};
//!
//! /// `backend` is yours; here stands one of ours.
//! fn examine(backend: Arc<dyn Backend>) {
//!     check(Subject::backend(backend, "qmux://127.0.0.1:0"));
//! }
//!
//! let backend = libmux::registry().backend("qmux")?;
//! // A few scenarios while you work on them, each verdict as it is reached:
//! let subject = Subject::backend(Arc::clone(&backend), "qmux://127.0.0.1:0").named("ours");
//! let report = Suite::new(subject).filter("half-close,labels").progress().run();
//! assert!(report.passed(), "{report}");
//! # if false {
//! examine(backend);
//! # }
//! # Ok::<(), mux_api::Error>(())
//! ```
//!
//! `check` panics with the report when a scenario fails; [`Suite`] has more to choose from and returns the [`Report`].
//! A wire over byte streams that has no sockets yet is examined in memory with [`Subject::streams`], anything else that
//! can make two connected sessions with [`Subject::pairs`]. Certificates come by [`Subject::client`] and
//! [`Subject::server`]; say also what a listener is [reloaded](Subject::reloaded) with, and how the wire's numbers
//! [run out](Subject::few_numbers), if they can.
//!
//! The environment changes a run: `MUX_CONFORMANCE_FILTER=words` (separated by commas) chooses scenarios by name,
//! `MUX_CONFORMANCE_SEED=n` replays the seed that a failure printed, `MUX_CONFORMANCE_SEEDS=n` (or `full`) says how many
//! there are, `MUX_CONFORMANCE_DEADLINE=seconds` when a scenario counts as hanging. No scenario asserts a speed.
//!
//! # To add a scenario
//! Write an `async fn(cx: &Cx)` in the file of its clause in `src/scenarios/` and name it in that file's `SCENARIOS`. It
//! panics to fail, as a test does. `Cx` (`src/context.rs`) makes sessions (`pair`, `both_ways`, `pair_via` a `link`), random
//! numbers and named steps; put whatever may wait for ever into `cx.step("what it waits for", ...)`, because that is what
//! the watchdog tells. Where a capability is needed, assert what is documented without it and say so by `cx.without`.
//! `tools` has what reading and writing have in common. Then `make conformance` writes the new line into
//! `docs/conformance.md`.

mod context;
mod link;
mod random;
mod report;
mod run;
mod scenario;
mod scenarios;
mod subject;
mod suite;
mod tools;

pub use report::{Outcome, Report, Verdict};
pub use scenario::Scenario;
pub use subject::Subject;
pub use suite::{DEADLINE_VARIABLE, FILTER_VARIABLE, SEED_VARIABLE, SEEDS_VARIABLE, Suite};

/// Runs every scenario with `subject`, a few seeds each.
///
/// # Panics
/// With the report, if a scenario fails.
pub fn check(subject: Subject) {
    let report = Suite::new(subject).run();
    assert!(report.passed(), "{report}");
}

/// Every scenario of the suite, in the order of the clauses.
pub fn scenarios() -> impl Iterator<Item = &'static Scenario> {
    scenarios::all()
}
