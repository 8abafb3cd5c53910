//! How a command ends: exit code and what it says on stderr.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use libmux::{Error, ErrorKind, Origin};

/// The work failed: refused, reset, truncated, a session that died.
pub(crate) const FAILED: u8 = 1;
/// The command line or a URL cannot be used.
pub(crate) const USAGE: u8 = 2;
/// Ctrl-C.
pub(crate) const INTERRUPTED: u8 = 130;
/// Whoever read our stdout hung up, as a shell reports SIGPIPE.
pub(crate) const BROKEN_PIPE: u8 = 141;
/// SIGTERM.
pub(crate) const TERMINATED: u8 = 143;

/// Any end but success.
#[derive(Debug)]
pub(crate) struct Exit {
    code: u8,
    /// Empty where the code says it all.
    message: String,
}

impl Exit {
    /// The work failed.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { code: FAILED, message: message.into() }
    }

    /// What was asked for cannot be done.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: USAGE, message: message.into() }
    }

    /// Ends with `code` and no words.
    pub(crate) fn quiet(code: u8) -> Self {
        Self { code, message: String::new() }
    }

    /// The end that `error` calls for; `doing` says what was attempted.
    pub(crate) fn from_mux(doing: &str, error: &Error) -> Self {
        let message = format!("{doing}: {}", explain(error));
        match error.kind() {
            ErrorKind::Url | ErrorKind::InvalidInput => Self::usage(message),
            _ => Self::failed(message),
        }
    }

    /// Says it on stderr; the process's exit code.
    pub(crate) fn report(&self) -> ExitCode {
        if !self.message.is_empty() {
            // Nobody is left to tell when stderr is gone.
            let _ = writeln!(std::io::stderr(), "mux: {}", self.message);
        }
        ExitCode::from(self.code)
    }
}

/// An error in one line for people: what, who, the code, whether trying again is safe.
pub(crate) fn explain(error: &Error) -> String {
    let mut text = error.message().to_owned();
    if matches!(error.kind(), ErrorKind::Url | ErrorKind::InvalidInput) {
        return text;
    }
    let who = match error.origin() {
        Origin::Local => "this side",
        Origin::Peer => "the peer",
        Origin::Transport => "the connection",
        Origin::Os => "the system",
    };
    // Writing to a string cannot fail.
    let _ = write!(text, " ({:?} by {who}", error.kind());
    if let Some(code) = error.code() {
        // Most messages name the code; one that does not is completed.
        if !error.message().contains(&code.to_string()) {
            let _ = write!(text, ", code {code}");
        }
        if let Some(meaning) = libmux::codes::describe(code) {
            let _ = write!(text, ", {meaning}");
        }
    }
    if error.is_retry_safe() {
        text.push_str(", safe to retry");
    }
    text.push(')');
    text
}

/// Writes a line to stdout and flushes it, so that whoever waits for it has it at once.
///
/// # Errors
/// A reader that hung up ends the command without a word; anything else is said.
pub(crate) fn print_line(line: &str) -> Result<(), Exit> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(|error| stdout_failed(&error))
}

/// The end that a failed write to stdout calls for.
pub(crate) fn stdout_failed(error: &std::io::Error) -> Exit {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe => Exit::quiet(BROKEN_PIPE),
        _ => Exit::failed(format!("cannot write to stdout: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_who_and_code_and_whether_to_retry() {
        let error = Error::new(ErrorKind::Reset, Origin::Peer, "the channel was reset").with_code(7);
        assert_eq!(explain(&error), "the channel was reset (Reset by the peer, code 7)");
        let named = Error::new(ErrorKind::Reset, Origin::Peer, "reset with code 7").with_code(7);
        assert_eq!(explain(&named), "reset with code 7 (Reset by the peer)");
        let refused = error.clone().with_code(libmux::codes::REFUSED).retry_safe(true);
        assert!(explain(&refused).contains("no room for another channel, safe to retry"), "{}", explain(&refused));
    }

    #[test]
    fn what_the_caller_can_mend_exits_with_2() {
        assert_eq!(Exit::from_mux("x", &Error::url("y")).code, USAGE);
        assert_eq!(Exit::from_mux("x", &Error::closed_locally()).code, FAILED);
    }
}
