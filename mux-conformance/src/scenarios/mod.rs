//! The scenarios, one file for each group of clauses.

mod c01_symmetry;
mod c02_numbers;
mod c03_backlog;
mod c04_directions;
mod c05_codes;
mod c07_windows;
mod c09_fairness;
mod c10_ends;
mod c10_listener;
mod c10_loss;
mod c11_liveness;
mod c13_cancel;
mod c14_halves;
mod c15_datagrams;
mod c16_labels;

use crate::scenario::Scenario;

/// Every scenario, in the order of the clauses.
pub(crate) fn all() -> impl Iterator<Item = &'static Scenario> {
    let files = [
        c01_symmetry::SCENARIOS,
        c02_numbers::SCENARIOS,
        c03_backlog::SCENARIOS,
        c04_directions::SCENARIOS,
        c05_codes::SCENARIOS,
        c07_windows::SCENARIOS,
        c09_fairness::SCENARIOS,
        c10_ends::SCENARIOS,
        c10_listener::SCENARIOS,
        c10_loss::SCENARIOS,
        c11_liveness::SCENARIOS,
        c13_cancel::SCENARIOS,
        c14_halves::SCENARIOS,
        c15_datagrams::SCENARIOS,
        c16_labels::SCENARIOS,
    ];
    let mut all: Vec<_> = files.into_iter().flatten().collect();
    all.sort_by_key(|scenario| scenario.clause);
    all.into_iter()
}
