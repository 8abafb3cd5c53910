//! Tickets of listeners, kept by the process for later dials (docs/quic.md, section 10).
//!
//! rustls keeps tickets in a client's configuration, and resumes only with the same verifier and certificate: so what is
//! kept here is the configuration, for dials that ask for the same of the same listener.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use mux_api::{Config, Result, TlsConfig};
use quinn::crypto::rustls::QuicClientConfig;

use crate::crypto;
use crate::options::Options;
use crate::shared::lock;

/// So many listeners are remembered.
const LISTENERS: usize = 256;

/// The most recent is the last.
static KEPT: Mutex<Vec<(Key, Arc<QuicClientConfig>)>> = Mutex::new(Vec::new());

/// What two dials must have in common.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key {
    authority: String,
    tls: TlsConfig,
    options: Options,
    /// When the files that `tls` names were written.
    files: [Option<SystemTime>; 3],
}

impl Key {
    fn new(authority: &str, config: &Config, options: &Options) -> Self {
        let written = |path: &Path| path.metadata().and_then(|meta| meta.modified()).ok();
        let tls = config.tls.clone();
        let (cert, key) = tls.identity_files.as_ref().map(|(cert, key)| (&**cert, &**key)).unzip();
        let files = [tls.ca_file.as_deref(), cert, key].map(|path| path.and_then(written));
        Self { authority: authority.to_owned(), tls, options: options.clone(), files }
    }
}

/// The configuration for a dial, with the tickets of earlier ones; the key forgets them.
pub(crate) fn client(authority: &str, config: &Config, options: &Options) -> Result<(Arc<QuicClientConfig>, Key)> {
    let key = Key::new(authority, config, options);
    let mut kept = lock(&KEPT);
    if let Some(at) = kept.iter().position(|(other, _)| *other == key) {
        let entry = kept.remove(at);
        let client = Arc::clone(&entry.1);
        kept.push(entry);
        return Ok((client, key));
    }
    drop(kept);
    let client = crypto::client(config, options)?;
    let mut kept = lock(&KEPT);
    // A listener whose settings have changed is not dialed with the old ones again.
    kept.retain(|(other, _)| other.authority != key.authority || other.files == key.files);
    if kept.len() >= LISTENERS {
        kept.remove(0);
    }
    kept.push((key.clone(), Arc::clone(&client)));
    Ok((client, key))
}

/// The listener does not take its tickets any more.
pub(crate) fn forget(key: &Key) {
    lock(&KEPT).retain(|(other, _)| other != key);
}
