//! The scenarios, one file for each group of clauses.

mod c01_symmetry;
mod c04_directions;

use crate::scenario::Scenario;

/// Every scenario, in the order of the clauses.
pub(crate) fn all() -> impl Iterator<Item = &'static Scenario> {
    [c01_symmetry::SCENARIOS, c04_directions::SCENARIOS].into_iter().flatten()
}
