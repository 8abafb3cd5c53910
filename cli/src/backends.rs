//! `mux backends`: what a URL may begin with.

use std::fmt::Write as _;

use crate::exit::{Exit, print_line};

/// List the URL schemes, with an example and what each can do
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Prints the table.
pub(crate) fn run() -> Result<(), Exit> {
    let schemes = libmux::registry().schemes();
    let rows: Vec<[String; 3]> = schemes
        .iter()
        .map(|scheme| [scheme.name.to_owned(), scheme.example.to_owned(), scheme.summary.to_owned()])
        .collect();
    let width = |at: usize, title: &str| rows.iter().map(|row| row[at].len()).fold(title.len(), usize::max);
    let (name, example) = (width(0, "SCHEME"), width(1, "EXAMPLE"));
    let mut text = format!("{:name$}  {:example$}  WHAT IT IS", "SCHEME", "EXAMPLE");
    for (row, scheme) in rows.iter().zip(&schemes) {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n{:name$}  {:example$}  {}", row[0], row[1], row[2]);
        let _ = write!(text, "\n{:name$}  can: {}", "", scheme.capabilities);
        text.push_str(if scheme.secure { "; encrypted (TLS)" } else { "; not encrypted" });
    }
    print_line(&text)
}
