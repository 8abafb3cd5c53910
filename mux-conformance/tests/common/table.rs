//! `docs/conformance.md`: a table of clauses, scenarios and subjects. Written by `make conformance`; each subject's test
//! compares its column with what it found.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use mux_conformance::{Outcome, Report, Verdict, scenarios};

use super::{KNOWN, NAMES};

/// The sixteen clauses, in a line each.
const CLAUSES: [&str; 16] = [
    "Both ends open and accept, at any time.",
    "An open is immediate, and announced to the peer though nothing is written.",
    "Accepting has a backlog; beyond it an open is refused, safe to retry.",
    "Bytes in order; each direction ends on its own, and the end stays the end.",
    "Reset and stop carry a code, and a reset never looks like an end.",
    "Dropping is aborting; closing is polite.",
    "Each channel has its own window: one that nobody reads stalls only itself.",
    "Memory is budgeted, and all of it comes back.",
    "Channels take turns; urgent ones go first.",
    "Ends are explained, and lose nothing that was finished.",
    "Dead peers are noticed, busy ones are not taken for dead.",
    "The reader never waits for the application.",
    "A dropped future loses nothing.",
    "The halves of a channel, and the methods of a session, are independent of each other.",
    "Capabilities are asked, never guessed.",
    "A channel may have a label, seen before any data.",
];

/// The scenarios of the C driver, which an application sees through `include/mux.h`.
const THROUGH_C: [&str; 7] = [
    include_str!("../../../tests/c/conformance/opening.c"),
    include_str!("../../../tests/c/conformance/streams.c"),
    include_str!("../../../tests/c/conformance/endings.c"),
    include_str!("../../../tests/c/conformance/limits.c"),
    include_str!("../../../tests/c/conformance/living.c"),
    include_str!("../../../tests/c/conformance/threads.c"),
    include_str!("../../../tests/c/conformance/deadlines.c"),
];

/// Clause and name of each, from the tables at the ends of its files: `{"4", "half-close", half_close},`.
fn through_c() -> impl Iterator<Item = (&'static str, &'static str)> {
    let row = |line: &'static str| {
        let mut quoted = line.strip_prefix("    {\"")?.split('"');
        Some((quoted.next()?, quoted.nth(1)?))
    };
    THROUGH_C.into_iter().flat_map(str::lines).filter_map(row)
}

/// What a scenario found out about a subject, as the table tells it: a word, and what is to be said about it.
pub fn cell(subject: &str, verdict: &Verdict) -> (String, BTreeSet<String>) {
    if let Some((.., why)) = KNOWN.iter().find(|(of, what, _)| (*of, *what) == (subject, verdict.name)) {
        return ("known".to_owned(), BTreeSet::from([(*why).to_owned()]));
    }
    match &verdict.outcome {
        Outcome::Passed { notes } => ("ok".to_owned(), notes.iter().cloned().collect()),
        Outcome::Failed { .. } => ("FAILED".to_owned(), BTreeSet::new()),
        Outcome::NotRun { reason } => ("not run".to_owned(), BTreeSet::from([reason.clone()])),
    }
}

/// The document, from a report of each subject.
pub fn render(reports: &[Report]) -> String {
    let mut out = String::from(
        "# Conformance\n\n\
         What sessions and channels promise, whatever wire carries them: sixteen clauses, each proved by scenarios of\n\
         `mux-conformance` on every backend and transport. Written by `make conformance`; the tests compare it with what\n\
         they find. *ok* with a letter: the session lacks an ability, and what is documented for its absence was asserted\n\
         instead (below). *known*: a shortcoming that is known (below). After every scenario no task, session, channel entry,\n\
         reserved byte or file descriptor is left.\n\n\
         `qmux-plain` is qmux with a peer that knows the base protocol only (`ext=off`); `qmux-pipe` and `h2c-pipe` run on\n\
         pipes in memory. (C): also a scenario of the C driver, which every wire passes through `include/mux.h`\n\
         (`tests/c/run LIBDIR conformance`; the others need the suite's own link, or what C has no call for). To run the\n\
         suite on a backend of your own see the documentation of the crate `mux-conformance`.\n\n",
    );
    let mut notes: BTreeMap<String, usize> = BTreeMap::new();
    for name in scenarios().map(|scenario| scenario.name) {
        for text in reports.iter().flat_map(|report| found(report, name).1) {
            let next = notes.len();
            notes.entry(text).or_insert(next);
        }
    }
    for (at, clause) in (1u8..).zip(CLAUSES) {
        let _ = write!(out, "## {at}. {clause}\n\n| scenario |");
        NAMES.iter().for_each(|name| out.push_str(&format!(" {name} |")));
        let _ = write!(out, "\n|---|{}\n", "---|".repeat(NAMES.len()));
        for scenario in scenarios().filter(|scenario| scenario.clause == at) {
            let c = if through_c().any(|(_, name)| name == scenario.name) { " (C)" } else { "" };
            let _ = write!(out, "| **{}**{c}: {} |", scenario.name, scenario.proves);
            for report in reports {
                let (word, said) = found(report, scenario.name);
                let keys: Vec<String> = said.iter().map(|text| letter(notes[text])).collect();
                let _ = write!(out, " {} |", [word, keys.join(" ")].join(" ").trim());
            }
            out.push('\n');
        }
        out.push('\n');
    }
    out.push_str("## Through C only\n\n| clause | scenario |\n|---|---|\n");
    let own = through_c().filter(|(_, name)| scenarios().all(|scenario| scenario.name != *name));
    for (clause, name) in own {
        let _ = writeln!(out, "| {} | **{name}** |", if clause == "net" { "any connection's" } else { clause });
    }
    out.push_str("\n## What is different where\n\n");
    let mut sorted: Vec<_> = notes.into_iter().collect();
    sorted.sort_by_key(|(_, at)| *at);
    for (text, at) in sorted {
        let _ = writeln!(out, "- **{}** {text}", letter(at));
    }
    out
}

fn found(report: &Report, name: &str) -> (String, BTreeSet<String>) {
    let verdict = report.verdicts.iter().find(|verdict| verdict.name == name);
    verdict.map_or_else(Default::default, |verdict| cell(&report.subject, verdict))
}

fn letter(at: usize) -> String {
    let last = char::from(b'a' + (at % 26) as u8);
    if at < 26 { last.to_string() } else { format!("{}{last}", char::from(b'a' + (at / 26 - 1) as u8)) }
}

/// A subject's column of the document: scenario to word and what is said about it.
pub fn column(document: &str, subject: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let notes: BTreeMap<&str, &str> =
        document.lines().filter_map(|line| line.strip_prefix("- **")?.split_once("** ")).collect();
    let place = NAMES.iter().position(|name| *name == subject).expect("a subject of the table");
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| **")?.split(" | ");
        let name = cells.next()?.split_once("**")?.0.to_owned();
        let cell = cells.nth(place)?.trim_end_matches(" |").trim();
        let (word, keys) = match cell.strip_prefix("not run") {
            Some(keys) => ("not run", keys),
            None => cell.split_once(' ').unwrap_or((cell, "")),
        };
        let said = keys.split_whitespace().filter_map(|key| notes.get(key).map(|text| (*text).to_owned())).collect();
        Some((name, (word.to_owned(), said)))
    };
    document.lines().filter_map(row).collect()
}
