//! The suite on every backend and transport of the registry.

#[path = "common/mod.rs"]
mod subjects;

use mux_conformance::Suite;

fn examine(name: &str) {
    let report = Suite::new(subjects::subject(name)).run();
    println!("{report}");
    let failed: Vec<&str> = report.failed().map(|verdict| verdict.name).collect();
    let ran = |scenario: &str| report.verdicts.iter().any(|verdict| verdict.name == scenario);
    let known = subjects::KNOWN.iter().filter(|(subject, scenario, _)| *subject == name && ran(scenario));
    let known: Vec<&str> = known.map(|(_, scenario, _)| *scenario).collect();
    assert_eq!(failed, known, "what failed is not what is known to fail:\n{report}");
}

macro_rules! examined {
    ($($test:ident $name:literal,)*) => {
        $(#[test]
        fn $test() {
            examine($name);
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
    qmux_pipe "qmux-pipe",
    qmux_plain "qmux-plain",
    quic "quic",
    h2 "h2",
    h2c "h2c",
    h2c_unix "h2c+unix",
    h2c_pipe "h2c-pipe",
}
