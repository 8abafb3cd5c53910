//! The scenarios, one file for each group of clauses.

mod c01_symmetry;
mod c03_backlog;
mod c04_directions;
mod c05_codes;
mod c10_ends;
mod c11_liveness;
mod c16_labels;

use crate::scenario::Scenario;

/// Every scenario, in the order of the clauses.
pub(crate) fn all() -> impl Iterator<Item = &'static Scenario> {
    [
        c01_symmetry::SCENARIOS,
        c03_backlog::SCENARIOS,
        c04_directions::SCENARIOS,
        c05_codes::SCENARIOS,
        c10_ends::SCENARIOS,
        c11_liveness::SCENARIOS,
        c16_labels::SCENARIOS,
    ]
    .into_iter()
    .flatten()
}
