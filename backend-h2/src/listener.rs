//! Accepting HTTP/2 connections: a session waits to be accepted once its first request has named it.

use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use mux_api::backend::ByteStream;
use mux_api::{Config, Result, Role, Session};
use mux_transport::{Entry, Handshake, Joined};
use tokio::sync::oneshot;
use tokio_rustls::rustls::ServerConfig;

use crate::backend::{CAPABILITIES, Place, RAW, new_shared, server_settings, session_info};
use crate::driver::{Driver, Sessions};
use crate::error;
use crate::io::Io;
use crate::record::Outgoing;
use crate::session::H2Session;
use crate::tls;

/// The accepting side of the wire: what every connection of a listener shares.
pub(crate) struct Server {
    url: String,
    place: Place,
    settings: RwLock<Arc<Settings>>,
    sessions: Arc<Sessions>,
}

struct Settings {
    tls: Option<Arc<ServerConfig>>,
    config: Config,
}

impl Settings {
    fn new(place: &Place, config: &Config) -> Result<Arc<Self>> {
        let tls = if place.tls { Some(tls::server_config(config)?) } else { None };
        Ok(Arc::new(Self { tls, config: config.clone() }))
    }
}

impl Server {
    /// # Errors
    /// What is wrong with the TLS settings.
    pub(crate) fn new(place: Place, config: &Config) -> Result<Self> {
        let settings = RwLock::new(Settings::new(&place, config)?);
        Ok(Self { url: String::new(), place, settings, sessions: Arc::default() })
    }

    /// With the URL to dial, known once the address is bound.
    pub(crate) fn at(mut self, address: &str) -> Self {
        self.url = self.place.url(address);
        self
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Handshake for Server {
    async fn shake_hands(&self, stream: ByteStream, entry: Entry) -> Result<()> {
        let give = move |session| entry.give.session(session);
        serve(stream, self, &self.settings(), Box::new(give), entry.live).await
    }

    fn reload(&self, config: &Config) -> Result<()> {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Settings::new(&self.place, config)?;
        Ok(())
    }
}

/// Runs the accepting end of one connection; `give` gets its session once the first request has named it.
async fn serve(
    stream: ByteStream,
    server: &Server,
    settings: &Settings,
    give: Box<dyn FnOnce(Session) + Send>,
    live: Box<dyn Send>,
) -> Result<()> {
    let mut info = session_info(Role::Server, server.url.clone(), &stream);
    let shared = new_shared(&settings.config);
    let joined = Joined::new(stream);
    let io = match &settings.tls {
        Some(config) => {
            let (stream, tls) = tls::accept(joined, Arc::clone(config)).await?;
            info.tls = Some(tls);
            Io::server(stream, &shared.line)
        }
        None => Io::server(joined, &shared.line),
    };
    let conn = server_settings(&shared.limits)
        .handshake::<_, Outgoing>(io)
        .await
        .map_err(|error| error::connection(error, &shared.line))?;
    let make = {
        let shared = Arc::clone(&shared);
        move |records| {
            let capabilities = if records { CAPABILITIES } else { RAW };
            Session::new(H2Session::new(Arc::clone(&shared), info.clone(), capabilities))
        }
    };
    let (prefix, sessions) = (server.place.prefix.clone(), Arc::clone(&server.sessions));
    tokio::spawn(Driver::server(shared, conn, prefix, sessions, Box::new(make), give, live));
    Ok(())
}

/// The accepting end on a byte stream of the application's own: ready once the peer's first request has come.
pub(crate) async fn adopt(stream: ByteStream, place: Place, config: &Config) -> Result<Session> {
    let server = Server::new(place, config)?.at("");
    let settings = server.settings();
    let (give, given) = oneshot::channel();
    let give = move |session| {
        // Whoever waited may have gone; the session is dropped then, which ends it.
        let _ = give.send(session);
    };
    serve(stream, &server, &settings, Box::new(give), Box::new(())).await?;
    given.await.map_err(|_| error::lost("the connection ended before its first request".to_owned()))
}
