//! Tests that look at the whole process (its tasks, files and memory) each run in one of their own, side by side.

use std::process::{Command, Stdio};

const ALONE: &str = "MUX_CONFORMANCE_ALONE";

/// Runs `examine` in a process of its own, which is this test program with this test alone.
pub(crate) fn alone(test: &str, examine: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        return examine();
    }
    let program = std::env::current_exe().expect("is a program");
    let mut command = Command::new(program);
    command.args([test, "--exact", "--nocapture"]).env(ALONE, "1").stdin(Stdio::null()).stderr(Stdio::piped());
    let done = command.output().expect("starts");
    let said = [done.stdout, done.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(done.status.success(), "{said}");
    println!("{said}");
}
