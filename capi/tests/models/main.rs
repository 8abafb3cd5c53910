//! The readiness queue and the handle table under loom: the very files of `src`, compiled with loom's atomics and locks, run
//! through every order of events that three preemptions can make. A wake-up that is missed is a deadlock, which loom reports.
//!
//! What lies around them is modelled: the futex, the event descriptor and who polls it (`platform`), the objects that are
//! watched (`world`). Sequentially consistent atomics are loom's with fences around them (`sync`), as loom does not know them.

#![allow(dead_code, unreachable_pub, non_camel_case_types, missing_docs, reason = "a part of the library's modules")]
#![allow(clippy::missing_safety_doc, reason = "as in the library")]

#[path = "../../src/abi.rs"]
mod abi;
mod callback;
#[path = "../../src/deadline.rs"]
mod deadline;
#[path = "../../src/handle.rs"]
mod handle;
#[path = "../../src/hub.rs"]
mod hub;
mod platform;
#[path = "../../src/queue.rs"]
mod queue;
mod queues;
#[path = "../../src/status.rs"]
mod status;
mod sync;
mod tables;
mod world;

/// Runs through what can happen; `around` is what is set up before and taken down after each run.
fn explore(preemptions: usize, run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    builder.check(move || {
        run();
        world::clear();
    });
}
