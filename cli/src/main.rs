//! The mux command.
fn main() {}
