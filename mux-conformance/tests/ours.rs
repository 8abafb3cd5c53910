//! The suite on every backend and transport of the registry.

#[path = "common/mod.rs"]
mod subjects;

use mux_conformance::{SEEDS_VARIABLE, Suite, scenarios};
use subjects::table;

const DOCUMENT: &str = include_str!("../../docs/conformance.md");

fn examine(name: &str) {
    let mut suite = Suite::new(subjects::subject(name));
    if std::env::var_os(SEEDS_VARIABLE).is_some() {
        suite = suite.progress();
    }
    let report = suite.run();
    println!("{report}");
    let known = |scenario: &str| subjects::KNOWN.iter().any(|(of, what, _)| (*of, *what) == (name, scenario));
    let unknown: Vec<&str> = report.failed().map(|verdict| verdict.name).filter(|failed| !known(failed)).collect();
    assert!(unknown.is_empty(), "failed: {unknown:?}\n{report}");
    let column = table::column(DOCUMENT, name);
    for verdict in &report.verdicts {
        let found = table::cell(name, verdict);
        assert_eq!(column.get(verdict.name), Some(&found), "{}: run make conformance", verdict.name);
    }
}

#[test]
fn the_document_has_every_scenario_and_no_other() {
    for name in subjects::NAMES {
        let column = table::column(DOCUMENT, name);
        assert_eq!(column.len(), scenarios().count(), "run make conformance");
        assert!(scenarios().all(|scenario| column.contains_key(scenario.name)), "run make conformance");
    }
}

#[test]
fn scenarios_have_names_of_their_own_and_prove_every_clause() {
    let names: std::collections::BTreeSet<&str> = scenarios().map(|scenario| scenario.name).collect();
    assert_eq!(names.len(), scenarios().count());
    assert!((1..=16).all(|clause| scenarios().any(|scenario| scenario.clause == clause)));
}

macro_rules! examined {
    ($($test:ident $name:literal,)*) => {
        $(#[test]
        fn $test() {
            subjects::alone::alone(stringify!($test), || examine($name));
        })*

        #[test]
        fn every_scheme_of_the_registry_is_examined() {
            assert_eq!(subjects::NAMES, [$($name),*]);
            for scheme in libmux::registry().schemes() {
                // `qmux` is short for `qmux+tcp`.
                let name = if scheme.name == "qmux" { "qmux+tcp" } else { scheme.name };
                assert!(subjects::NAMES.contains(&name), "{name} is not examined");
            }
        }
    };
}

examined! {
    qmux_tcp "qmux+tcp",
    qmux_unix "qmux+unix",
    qmux_tls "qmux+tls",
    qmux_pipe "qmux-pipe",
    qmux_plain "qmux-plain",
    quic "quic",
    h2 "h2",
    h2c "h2c",
    h2c_unix "h2c+unix",
    h2c_pipe "h2c-pipe",
}
