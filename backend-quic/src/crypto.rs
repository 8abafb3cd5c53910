//! TLS as QUIC uses it: what rustls is told beside what a [`Config`] says for every backend.

use std::sync::Arc;

use mux_api::{Config, Error, ErrorKind, Origin, Result, TlsConfig};
use mux_transport::tls::{self, Wants};
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use rustls::KeyLogFile;
use rustls::client::Resumption;

use crate::options::{Options, Resume};
use crate::wire::LIBMUX;

const WANTS: Wants<'static> = Wants { alpn: &[LIBMUX], tls13_only: true };

pub(crate) fn client(config: &Config, options: &Options) -> Result<Arc<QuicClientConfig>> {
    let mut crypto = Arc::unwrap_or_clone(tls::client_config(&with_alpn(config, options), WANTS)?);
    if options.keylog {
        crypto.key_log = Arc::new(KeyLogFile::new());
    }
    crypto.resumption = match options.resume {
        Resume::No => Resumption::disabled(),
        // Of one listener; a few more where its name has several addresses.
        Resume::Tickets | Resume::Early => Resumption::in_memory_sessions(4),
    };
    crypto.enable_early_data = options.resume == Resume::Early;
    Ok(Arc::new(QuicClientConfig::try_from(crypto).map_err(no_cipher)?))
}

pub(crate) fn server(config: &Config, options: &Options) -> Result<Arc<QuicServerConfig>> {
    let mut crypto = Arc::unwrap_or_clone(tls::server_config(&with_alpn(config, options), WANTS)?);
    if options.keylog {
        crypto.key_log = Arc::new(KeyLogFile::new());
    }
    // rustls keeps what a ticket stands for, and gives it out once: a replay within this listener is not taken.
    if options.resume == Resume::Early {
        crypto.max_early_data_size = u32::MAX;
    }
    Ok(Arc::new(QuicServerConfig::try_from(crypto).map_err(no_cipher)?))
}

fn with_alpn(config: &Config, options: &Options) -> TlsConfig {
    let mut tls = config.tls.clone();
    tls.alpn.clone_from(&options.alpn);
    tls
}

fn no_cipher(error: NoInitialCipherSuite) -> Error {
    Error::new(ErrorKind::Internal, Origin::Local, format!("TLS cannot be used for QUIC: {error}"))
}
