//! Sessions of qmux by URL.

use std::sync::Arc;

use async_trait::async_trait;
use mux_api::backend::{Backend, ByteStream, Scheme};
use mux_api::{Capabilities, Config, ConfigOption, Error, Listener, Result, Role, Session, SessionInfo, TlsInfo, Url};
use mux_driver::{Profile, Stream, establish};
use mux_transport::tls::{self, Wants};
use mux_transport::{StreamListener, within};

use crate::Qmux;
use crate::listener::Server;

/// Serves `qmux`, `qmux+tcp`, `qmux+tls` and `qmux+unix`.
#[derive(Clone, Copy, Debug, Default)]
pub struct QmuxBackend;

const SCHEMES: &[Scheme] = &[
    Scheme {
        name: "qmux",
        summary: "qmux over TCP (short for qmux+tcp)",
        example: "qmux://host:port",
        capabilities: EXTENDED,
        secure: false,
    },
    Scheme {
        name: "qmux+tcp",
        summary: "qmux over TCP",
        example: "qmux+tcp://host:port",
        capabilities: EXTENDED,
        secure: false,
    },
    Scheme {
        name: "qmux+tls",
        summary: "qmux over TLS over TCP",
        example: "qmux+tls://host:port",
        capabilities: EXTENDED,
        secure: true,
    },
    Scheme {
        name: "qmux+unix",
        summary: "qmux over a Unix socket",
        example: "qmux+unix:///run/mux.sock",
        capabilities: EXTENDED,
        secure: false,
    },
];

const OPTIONS: &[ConfigOption] = &[ConfigOption {
    name: "ext",
    help: "the qmux extension: auto asks the peer, on takes it for granted, off does without",
}];

/// With any peer (docs/qmux.md, section 2).
const PLAIN: Capabilities = Capabilities::HALF_CLOSE.union(Capabilities::OPENED).union(Capabilities::SERVER_OPEN);

/// With a peer that announced the extension (docs/qmux.md, section 4).
const EXTENDED: Capabilities = PLAIN
    .union(Capabilities::RESET_CODE)
    .union(Capabilities::STOP)
    .union(Capabilities::RESET_VISIBLE)
    .union(Capabilities::PRIORITY)
    .union(Capabilities::LABEL)
    .union(Capabilities::GOAWAY);

#[async_trait]
impl Backend for QmuxBackend {
    fn schemes(&self) -> &[Scheme] {
        SCHEMES
    }

    fn options(&self) -> &[ConfigOption] {
        OPTIONS
    }

    async fn dial(&self, url: &Url, config: &Config) -> Result<Session> {
        let extension = Extension::of(config)?;
        let connected = async {
            let stream = mux_transport::connect(url).await?;
            let (stream, tls, judged_later) = match is_tls(url) {
                true => {
                    let connected = tls::connect(stream, url.host_port()?.0, &config.tls, extension.wants()).await?;
                    (connected.stream, Some(connected.info), connected.judged_later)
                }
                false => (stream, None, false),
            };
            let carrier = Carrier { stream, tls, guard: None };
            let session = start(carrier, Role::Client, &url.to_string(), extension, config).await?;
            if judged_later {
                session.ping().await?;
            }
            Ok(session)
        };
        within(config.connect_timeout, &format!("connecting to {url}"), connected).await
    }

    async fn listen(&self, url: &Url, config: &Config) -> Result<Listener> {
        let extension = Extension::of(config)?;
        let server = Server::new(is_tls(url), extension, config)?;
        let acceptor = mux_transport::bind(url).await?;
        let url = format!("{}:{}", url.scheme(), acceptor.address());
        let server = server.at(url.clone());
        Ok(Listener::new(StreamListener::start(acceptor, url, Arc::new(server), config)))
    }

    async fn adopt(&self, scheme: &str, stream: ByteStream, role: Role, config: &Config) -> Result<Session> {
        let url = format!("{scheme}:");
        let carrier = Carrier { stream, tls: None, guard: None };
        let started = start(carrier, role, &url, Extension::of(config)?, config);
        within(config.connect_timeout, &format!("starting {scheme} on a stream"), started).await
    }
}

/// What the option `ext` says, as [`Profile::extension`] takes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extension(Option<bool>);

impl Extension {
    pub(crate) fn of(config: &Config) -> Result<Self> {
        match config.extra.get("ext").map(String::as_str) {
            None | Some("auto") => Ok(Self(Some(false))),
            Some("on") => Ok(Self(Some(true))),
            Some("off") => Ok(Self(None)),
            Some(other) => Err(Error::invalid_input(format!("option ext={other}: auto, on or off is allowed"))),
        }
    }

    /// What it offers or takes by ALPN (docs/qmux.md, section 3.4).
    pub(crate) fn wants(self) -> Wants<'static> {
        let alpn: &[&str] = match self.0 {
            Some(false) => &[ALPN_EXTENDED, ALPN_PLAIN],
            Some(true) => &[ALPN_EXTENDED],
            None => &[ALPN_PLAIN],
        };
        Wants { alpn, tls13_only: false }
    }

    /// What it is once ALPN has settled on `alpn`: there is nothing left to ask.
    fn settled(self, alpn: &str) -> Self {
        match alpn {
            ALPN_EXTENDED => Self(Some(true)),
            ALPN_PLAIN => Self(None),
            _ => self,
        }
    }
}

const ALPN_EXTENDED: &str = "libmux-qmux/1";
const ALPN_PLAIN: &str = "qmux";

pub(crate) fn is_tls(url: &Url) -> bool {
    url.transport() == Some("tls")
}

/// What a session runs on.
pub(crate) struct Carrier {
    pub(crate) stream: ByteStream,
    /// What the handshake of TLS settled.
    pub(crate) tls: Option<TlsInfo>,
    /// Kept as long as the transport lives.
    pub(crate) guard: Option<Box<dyn Send>>,
}

/// Runs qmux on a byte stream until the peer's abilities are known.
pub(crate) async fn start(
    carrier: Carrier,
    role: Role,
    url: &str,
    extension: Extension,
    config: &Config,
) -> Result<Session> {
    let Carrier { stream, tls, guard } = carrier;
    let extension = extension.settled(tls.as_ref().map_or("", |tls| &tls.alpn));
    let mut info = SessionInfo::new(role, url);
    info.tls = tls;
    info.local_addr = stream.local_addr;
    info.peer_addr = stream.peer_addr;
    let stream = Stream { reader: stream.reader, writer: stream.writer, guard };
    let capabilities = |extended| if extended { EXTENDED } else { PLAIN };
    establish(stream, Profile { wire: Qmux, extension: extension.0, capabilities }, info, config).await
}
