//! Accepting HTTP/2 connections: a session waits to be accepted once its first request has named it.

use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use mux_api::backend::ByteStream;
use mux_api::{Config, Result, Session};
use mux_transport::{Entry, Handshake, Joined, More};
use tokio::sync::oneshot;
use tokio_rustls::rustls::ServerConfig;

use crate::backend::{Place, server_settings};
use crate::driver::{self, Door, House, MoreEntries, carry};
use crate::error;
use crate::io::{Io, Line};
use crate::limits::Limits;
use crate::record::Outgoing;
use crate::tls;

/// The accepting side of the wire: what every connection of a listener shares.
pub(crate) struct Server {
    url: String,
    place: Place,
    settings: RwLock<Arc<Settings>>,
    house: Arc<House>,
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
        let house = House::new(place.prefix.clone(), place.health.clone(), place.authority.clone());
        Ok(Self { url: String::new(), place, settings, house: Arc::new(house) })
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
        let (first, more) = entries(entry);
        let more = move || more.entry().map(|entry| entries(entry).0);
        serve(stream, self, &self.settings(), first, Box::new(more)).await
    }

    fn reload(&self, config: &Config) -> Result<()> {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Settings::new(&self.place, config)?;
        Ok(())
    }
}

fn entries(entry: Entry) -> (driver::Entry, More) {
    let Entry { live, give, more } = entry;
    (driver::Entry { give: Box::new(move |session| give.session(session)), live }, more)
}

/// Runs the accepting end of one connection; `first` and `more` take the sessions that its requests name.
async fn serve(
    stream: ByteStream,
    server: &Server,
    settings: &Settings,
    first: driver::Entry,
    more: MoreEntries,
) -> Result<()> {
    let mut info = Door::info(server.url(), &stream);
    let line = Arc::new(Line::default());
    let joined = Joined::new(stream);
    let io = match &settings.tls {
        Some(config) => {
            let (stream, tls) = tls::accept(joined, Arc::clone(config)).await?;
            info.tls = Some(tls);
            Io::server(stream, &line)
        }
        None => Io::server(joined, &line),
    };
    let conn = server_settings(&Limits::from_config(&settings.config))
        .handshake::<_, Outgoing>(io)
        .await
        .map_err(|error| error::connection(error, &line))?;
    let door = Door::new(&server.house, &settings.config, info, line, first, more);
    tokio::spawn(carry(conn, door));
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
    let first = driver::Entry { give: Box::new(give), live: Box::new(()) };
    serve(stream, &server, &settings, first, Box::new(|| None)).await?;
    given.await.map_err(|_| error::lost("the connection ended before its first request".to_owned()))
}
