//! Accepting qmux sessions.

use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use mux_api::backend::ByteStream;
use mux_api::{Config, Result, Role};
use mux_transport::{Entry, Handshake, tls};
use rustls::ServerConfig;

use crate::backend::{Carrier, Extension, start};

/// The accepting side of the wire.
pub(crate) struct Server {
    url: String,
    over_tls: bool,
    settings: RwLock<Arc<Settings>>,
}

struct Settings {
    extension: Extension,
    tls: Option<Arc<ServerConfig>>,
    config: Config,
}

impl Settings {
    fn new(over_tls: bool, extension: Extension, config: &Config) -> Result<Arc<Self>> {
        let tls = if over_tls { Some(tls::server_config(&config.tls, extension.wants())?) } else { None };
        Ok(Arc::new(Self { extension, tls, config: config.clone() }))
    }
}

impl Server {
    /// # Errors
    /// What is wrong with the TLS settings.
    pub(crate) fn new(over_tls: bool, extension: Extension, config: &Config) -> Result<Self> {
        let settings = RwLock::new(Settings::new(over_tls, extension, config)?);
        Ok(Self { url: String::new(), over_tls, settings })
    }

    /// With the URL to dial, known once the address is bound.
    pub(crate) fn at(self, url: String) -> Self {
        Self { url, ..self }
    }
}

#[async_trait]
impl Handshake for Server {
    async fn shake_hands(&self, stream: ByteStream, entry: Entry) -> Result<()> {
        let settings = Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner));
        let Settings { extension, tls, config } = &*settings;
        let (stream, tls) = match tls {
            Some(tls) => {
                let (stream, info) = tls::accept(stream, Arc::clone(tls)).await?;
                (stream, Some(info))
            }
            None => (stream, None),
        };
        let carrier = Carrier { stream, tls, guard: Some(entry.live) };
        let session = start(carrier, Role::Server, &self.url, *extension, config).await?;
        entry.give.session(session);
        Ok(())
    }

    fn reload(&self, config: &Config) -> Result<()> {
        let settings = Settings::new(self.over_tls, Extension::of(config)?, config)?;
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
        Ok(())
    }
}
