//! Accepting qmux sessions.

use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use mux_api::backend::ByteStream;
use mux_api::{Config, Result, Role};
use mux_transport::{Entry, Handshake};

use crate::backend::{Extension, start};

/// The accepting side of the wire.
pub(crate) struct Server {
    url: String,
    settings: RwLock<Arc<Settings>>,
}

struct Settings {
    extension: Extension,
    config: Config,
}

impl Server {
    pub(crate) fn new(url: String, extension: Extension, config: &Config) -> Self {
        Self { url, settings: RwLock::new(Arc::new(Settings { extension, config: config.clone() })) }
    }
}

#[async_trait]
impl Handshake for Server {
    async fn shake_hands(&self, stream: ByteStream, entry: Entry) -> Result<()> {
        let settings = Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner));
        let Settings { extension, config } = &*settings;
        let session = start(stream, Some(entry.live), Role::Server, &self.url, *extension, config).await?;
        entry.give.session(session);
        Ok(())
    }

    fn reload(&self, config: &Config) -> Result<()> {
        let settings = Settings { extension: Extension::of(config)?, config: config.clone() };
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        Ok(())
    }
}
