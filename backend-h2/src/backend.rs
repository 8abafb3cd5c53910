//! Sessions over HTTP/2 by URL.

use async_trait::async_trait;
use h2::{client, server};
use mux_api::backend::{Backend, ByteStream, Scheme};
use mux_api::{
    Budget, Capabilities, Config, ConfigOption, Error, ErrorKind, Listener, Origin, Result, Role, Session, SessionInfo,
    Url,
};
use mux_transport::{Joined, StreamListener, within};
use std::future::poll_fn;
use std::sync::Arc;

use crate::driver::Driver;
use crate::error;
use crate::headers::{DEFAULT_PREFIX, Endpoint, Requests, SessionId};
use crate::io::{Io, Line};
use crate::limits::Limits;
use crate::listener::{self, Server};
use crate::record::Outgoing;
use crate::session::{H2Session, Shared};
use crate::tls;

/// Serves `h2`, `h2c` and `h2c+unix`.
#[derive(Clone, Copy, Debug, Default)]
pub struct H2Backend;

const SCHEMES: &[Scheme] = &[
    Scheme {
        name: "h2",
        summary: "HTTP/2 streams over TLS",
        example: "h2://host:port/mux/1",
        capabilities: CAPABILITIES,
        secure: true,
    },
    Scheme {
        name: "h2c",
        summary: "HTTP/2 streams in cleartext, by prior knowledge",
        example: "h2c://host:port/mux/1",
        capabilities: CAPABILITIES,
        secure: false,
    },
    Scheme {
        name: "h2c+unix",
        summary: "HTTP/2 streams over a Unix socket",
        example: "h2c+unix:///run/mux.sock?path=/mux/1",
        capabilities: CAPABILITIES,
        secure: false,
    },
];

const OPTIONS: &[ConfigOption] = &[
    ConfigOption { name: "path", help: "the HTTP path of the endpoints where the URL's own path is a socket" },
    ConfigOption { name: "health", help: "PATH that a listener answers with 200, for load balancers" },
    ConfigOption { name: "authority", help: "NAME that requests call the server; a listener answers others with 421" },
];

/// With a libmux peer.
pub(crate) const CAPABILITIES: Capabilities = Capabilities::HALF_CLOSE
    .union(Capabilities::RESET_CODE)
    .union(Capabilities::STOP)
    .union(Capabilities::RESET_VISIBLE)
    .union(Capabilities::PRIORITY)
    .union(Capabilities::LABEL)
    .union(Capabilities::OPENED)
    .union(Capabilities::GOAWAY)
    .union(Capabilities::SERVER_OPEN);

/// With a plain HTTP/2 client.
pub(crate) const RAW: Capabilities =
    Capabilities::HALF_CLOSE.union(Capabilities::RESET_CODE).union(Capabilities::RESET_VISIBLE);

#[async_trait]
impl Backend for H2Backend {
    fn schemes(&self) -> &[Scheme] {
        SCHEMES
    }

    fn options(&self) -> &[ConfigOption] {
        OPTIONS
    }

    async fn dial(&self, url: &Url, config: &Config) -> Result<Session> {
        let place = Place::new(url, config)?;
        let connected = async {
            let stream = mux_transport::connect(&place.transport).await?;
            start(stream, &url.to_string(), &place, config).await
        };
        within(config.connect_timeout, &format!("connecting to {url}"), connected).await
    }

    async fn listen(&self, url: &Url, config: &Config) -> Result<Listener> {
        let place = Place::new(url, config)?;
        let transport = place.transport.clone();
        let server = Server::new(place, config)?;
        let acceptor = mux_transport::bind(&transport).await?;
        let server = server.at(acceptor.address());
        let url = server.url().to_owned();
        Ok(Listener::new(StreamListener::start(acceptor, url, Arc::new(server), config)))
    }

    /// `server_name` is whom requests and TLS name; `localhost` without it. The accepting end is ready once the peer's
    /// first request has come.
    async fn adopt(&self, scheme: &str, stream: ByteStream, role: Role, config: &Config) -> Result<Session> {
        let host = config.tls.server_name.as_deref().unwrap_or("localhost");
        let url = Url::parse(&format!("{}://{host}", scheme.split('+').next().unwrap_or(scheme)))?;
        let place = Place::new(&url, config)?;
        let name = format!("{scheme}:");
        let started = async {
            match role {
                Role::Client => start(stream, &name, &place, config).await,
                Role::Server => listener::adopt(stream, place, config).await,
            }
        };
        within(config.connect_timeout, &format!("starting {scheme} on a stream"), started).await
    }
}

/// What a URL says, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// What the transport needs of it: the URL without the HTTP path.
    transport: Url,
    pub(crate) scheme: String,
    /// The HTTP path of the endpoints.
    pub(crate) prefix: String,
    /// The path that answers whether a listener lives.
    pub(crate) health: Option<String>,
    /// What requests call the server, where that is not the URL's host.
    pub(crate) authority: Option<String>,
    pub(crate) tls: bool,
    unix: bool,
}

impl Place {
    fn new(url: &Url, config: &Config) -> Result<Self> {
        let option = config.extra.get("path").map(String::as_str);
        let unix = url.transport() == Some("unix");
        let own = if unix { "" } else { url.path().trim_end_matches('/') };
        let path = match (own, option) {
            ("", None) => DEFAULT_PREFIX,
            ("", Some(option)) => option.trim_end_matches('/'),
            (own, None) => own,
            (own, Some(option)) => {
                let message = format!("URL '{url}' names the HTTP path twice: {own} and path={option}");
                return Err(Error::url(message));
            }
        };
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~".contains(&b);
        let health = config.extra.get("health").map(String::as_str);
        for path in [path].into_iter().filter(|path| !path.is_empty()).chain(health) {
            if !path.starts_with('/') || !path.bytes().all(plain) {
                let message = format!("the HTTP path '{path}' starts with '/' and has letters, digits and -._~/ only");
                return Err(Error::url(message));
            }
        }
        if let Some(health) = health.filter(|health| Endpoint::of(health, path).is_some()) {
            return Err(Error::url(format!("health={health} is one of the endpoints themselves")));
        }
        let authority = config.extra.get("authority");
        if let Some(name) = authority.filter(|name| name.parse::<http::uri::Authority>().is_err()) {
            return Err(Error::url(format!("authority={name} is no host with or without a port")));
        }
        let transport =
            if unix { url.clone() } else { Url::parse(&format!("{}://{}", url.scheme(), url.authority()))? };
        Ok(Self {
            transport,
            scheme: url.scheme(),
            prefix: path.to_owned(),
            health: health.map(str::to_owned),
            authority: authority.cloned(),
            tls: url.backend() == "h2",
            unix,
        })
    }

    /// The URL to dial, for an address that was bound.
    pub(crate) fn url(&self, address: &str) -> String {
        let (scheme, prefix) = (&self.scheme, &self.prefix);
        match (prefix == DEFAULT_PREFIX, self.unix) {
            (true, _) => format!("{scheme}:{address}"),
            (false, true) => format!("{scheme}:{address}?path={}", if prefix.is_empty() { "/" } else { prefix }),
            (false, false) => format!("{scheme}:{address}{prefix}"),
        }
    }

    /// What requests call the server.
    fn authority(&self) -> &str {
        match &self.authority {
            Some(name) => name,
            None if self.unix => "localhost",
            None => self.transport.authority(),
        }
    }
}

/// Runs the dialing end on a connected byte stream.
async fn start(stream: ByteStream, url: &str, place: &Place, config: &Config) -> Result<Session> {
    let mut info = session_info(Role::Client, url.to_owned(), &stream);
    let shared = new_shared(config, Arc::default());
    let joined = Joined::new(stream);
    let io = if place.tls {
        let (stream, tls) = tls::connect(joined, &place.transport, config).await?;
        info.tls = Some(tls);
        Io::client(stream, &shared.line)
    } else {
        Io::client(joined, &shared.line)
    };
    let doing = |error: Error| error.context(format!("connecting to {url}"));
    let shaken = client_settings(&shared.limits).handshake::<_, Outgoing>(io).await;
    let (requests, conn) = shaken.map_err(|error| doing(error::connection(error, &shared.line)))?;
    let id = SessionId::random().map_err(|error| {
        Error::new(ErrorKind::Io, Origin::Os, format!("no random numbers for a session id: {error}"))
    })?;
    let scheme = if place.tls { "https" } else { "http" };
    let make = Requests::new(scheme, place.authority(), &place.prefix, id, shared.limits.credits())
        .map_err(|error| Error::url(format!("URL '{url}' cannot be put into a request: {error}")))?;
    let driver = Driver::client(Arc::clone(&shared), conn, requests, make)
        .map_err(|error| doing(error::connection(error, &shared.line)))?;
    tokio::spawn(driver);
    let ops = H2Session::new(shared, info, CAPABILITIES);
    // From here on a dropped future drops the session, which aborts it.
    let session = Session::new(Arc::clone(&ops) as _);
    poll_fn(|cx| ops.poll_established(cx)).await.map_err(doing)?;
    Ok(session)
}

pub(crate) fn new_shared(config: &Config, line: Arc<Line>) -> Arc<Shared> {
    Shared::new(Limits::from_config(config), Budget::new(config.budget, Some(Budget::process().clone())), line)
}

pub(crate) fn session_info(role: Role, url: String, stream: &ByteStream) -> SessionInfo {
    let mut info = SessionInfo::new(role, url);
    info.local_addr.clone_from(&stream.local_addr);
    info.peer_addr.clone_from(&stream.peer_addr);
    info
}

fn client_settings(limits: &Limits) -> client::Builder {
    let mut builder = client::Builder::new();
    builder
        .initial_window_size(limits.stream_window())
        .initial_connection_window_size(Limits::CONNECTION_WINDOW)
        .max_frame_size(Limits::FRAME)
        .max_header_list_size(Limits::HEADER_LIST)
        .enable_push(false)
        // Until the server's own number is known: beyond it, requests would be refused in masses.
        .initial_max_send_streams(100);
    builder
}

pub(crate) fn server_settings(limits: &Limits) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .initial_window_size(limits.accepting_stream_window())
        .initial_connection_window_size(Limits::CONNECTION_WINDOW)
        .max_frame_size(Limits::FRAME)
        .max_header_list_size(Limits::HEADER_LIST)
        .max_concurrent_streams(limits.streams());
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str) -> Result<Place> {
        let url = Url::parse(url)?;
        Place::new(&url, &Config::default().with_url(&url, OPTIONS, true)?)
    }

    #[test]
    fn the_path_comes_from_the_url_or_from_an_option() {
        for (url, prefix) in [
            ("h2c://h:1", "/mux/1"),
            ("h2c://h:1/", "/mux/1"),
            ("h2://h:1/a/b/", "/a/b"),
            ("h2c+unix:///run/m.sock", "/mux/1"),
            ("h2c+unix:///run/m.sock?path=/x", "/x"),
        ] {
            assert_eq!(place(url).expect(url).prefix, prefix, "{url}");
        }
        for bad in ["h2c://h:1/a%20b", "h2c://h:1/a?path=/b", "h2c+unix:///s?path=b"] {
            assert!(place(bad).is_err(), "{bad}");
        }
        assert_eq!(place("h2c://h:0/a").expect("parses").url("//h:7"), "h2c://h:7/a");
        assert_eq!(place("h2c+unix:///s?path=/x").expect("parses").url("///s"), "h2c+unix:///s?path=/x");
    }
}
