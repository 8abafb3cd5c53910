//! The qmux wire.

use async_trait::async_trait;
use mux_api::backend::{Backend, Scheme};
use mux_api::{Config, Error, Listener, Result, Session, Url};

/// The qmux backend.
#[derive(Debug)]
pub struct QmuxBackend;

#[async_trait]
impl Backend for QmuxBackend {
    fn schemes(&self) -> &[Scheme] {
        &[]
    }

    async fn dial(&self, _url: &Url, _config: &Config) -> Result<Session> {
        Err(Error::unsupported("under construction"))
    }

    async fn listen(&self, _url: &Url, _config: &Config) -> Result<Listener> {
        Err(Error::unsupported("under construction"))
    }
}
