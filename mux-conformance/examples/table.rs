//! Runs the suite on every subject and writes `docs/conformance.md`: `make conformance`.

#[path = "../tests/common/mod.rs"]
mod subjects;

use mux_conformance::Suite;
use subjects::{NAMES, subject, table};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/conformance.md");
    let mut reports = Vec::new();
    for name in NAMES {
        let report = Suite::new(subject(name)).run();
        println!("{report}\n");
        reports.push(report);
    }
    std::fs::write(path, table::render(&reports))?;
    println!("docs/conformance.md is written");
    Ok(())
}
