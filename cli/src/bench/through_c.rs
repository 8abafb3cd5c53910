//! The same through the C API: its workers are a program in C, which is built with the library (capi/bench).

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use mux_transport::tls::{pin_text, self_signed};

use super::backend::Backend;
use crate::cert::with_option;

/// As `scripts/build-library` calls it.
const PROGRAM: &str = "mux-bench-c";

/// Where the program is: beside this one, or where the checkout's build puts it.
pub(super) fn program() -> Result<PathBuf, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let here = this.parent().unwrap_or(Path::new("."));
    let places = [here.join(PROGRAM), here.join("../dist").join(PROGRAM)];
    let found = places.iter().find(|place| place.is_file()).cloned();
    found.ok_or_else(|| format!("there is no {PROGRAM} in {} or its ../dist; 'make' builds it", here.display()))
}

/// A certificate as files, which is what a C program takes, for the time of a run.
pub(super) struct Certificate {
    dir: PathBuf,
    pin: String,
}

impl Certificate {
    /// One for `backend`, if its listeners present any.
    pub(super) fn new(backend: &Backend) -> Result<Option<Self>, String> {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        if !matches!(backend, Backend::ThroughC(_)) || !backend.is_tls() {
            return Ok(None);
        }
        let made = self_signed(&["localhost"]).map_err(|error| error.to_string())?;
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("mux-bench-{}-cert-{run}", std::process::id()));
        let this = Self { pin: format!("pin={}", pin_text(&made.pin)), dir };
        let written = std::fs::create_dir(&this.dir)
            .and_then(|()| std::fs::write(this.dir.join("cert.pem"), made.cert_pem))
            .and_then(|()| std::fs::write(this.dir.join("key.pem"), made.key_pem));
        written.map_err(|error| format!("cannot write {}: {error}", this.dir.display()))?;
        Ok(Some(this))
    }

    /// The URL to listen on.
    pub(super) fn presented(&self, url: &str) -> String {
        let file = |name: &str| self.dir.join(name).display().to_string();
        with_option(&with_option(url, &format!("cert={}", file("cert.pem"))), &format!("key={}", file("key.pem")))
    }

    /// The URL to dial.
    pub(super) fn trusted(&self, url: &str) -> String {
        with_option(url, &self.pin)
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        // Left behind, it is two small files in a directory for temporary ones.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
