//! Sessions over QUIC by URL.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mux_api::backend::{Backend, Scheme};
use mux_api::{Capabilities, Config, ConfigOption, Error, ErrorKind, Listener, Origin, Result, Role, Session, Url};
use mux_transport::tls;
use quinn::{ClientConfig, ConnectError, Connection, ConnectionError, ZeroRttAccepted};
use tokio::time::{sleep, timeout};

use crate::congestion::Ending;
use crate::crypto;
use crate::endpoint::{Dialer, endpoint, resolve};
use crate::error::connection_error;
use crate::listener::{Accepting, QuicListener};
use crate::options::{OPTIONS, Resume};
use crate::probe::unreachable;
use crate::session::{Connected, Early, start};
use crate::settings::Settings;
use crate::tickets;
use crate::wire::{CAPABILITIES, LIBMUX, Wire};

/// Serves `quic`.
#[derive(Clone, Copy, Debug, Default)]
pub struct QuicBackend;

const SCHEMES: &[Scheme] = &[Scheme {
    name: "quic",
    summary: "QUIC streams over UDP",
    example: "quic://host:port",
    capabilities: CAPABILITIES,
    secure: true,
}];

/// A host's next address is tried when the one before has not answered for so long (RFC 8305 section 5).
const STAGGER: Duration = Duration::from_millis(250);

#[async_trait]
impl Backend for QuicBackend {
    fn schemes(&self) -> &[Scheme] {
        SCHEMES
    }

    fn options(&self) -> &[ConfigOption] {
        OPTIONS
    }

    async fn dial(&self, url: &Url, config: &Config) -> Result<Session> {
        let connected = connect(url, config);
        if config.connect_timeout.is_zero() {
            return connected.await;
        }
        timeout(config.connect_timeout, connected).await.unwrap_or_else(|_| {
            let message = format!(
                "connecting to {url}: no answer within {:?} (nobody is there, or UDP is dropped on the way)",
                config.connect_timeout
            );
            Err(Error::new(ErrorKind::TimedOut, Origin::Transport, message))
        })
    }

    async fn listen(&self, url: &Url, config: &Config) -> Result<Listener> {
        let accepting = Accepting::new(config, url)?;
        let mut last = None;
        for address in resolve(url).await? {
            let bound = endpoint(address, Some(accepting.server.clone()), &accepting.settings.options)
                .and_then(|endpoint| Ok((endpoint.local_addr()?, endpoint)))
                .map_err(|error| Error::from_io(format!("listening on {address}"), error));
            match bound {
                Ok((local, endpoint)) => {
                    return Ok(Listener::new(QuicListener::start(endpoint, local, url, accepting)));
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(Error::closed_locally))
    }
}

async fn connect(url: &Url, config: &Config) -> Result<Session> {
    let settings = Settings::new(config, url)?;
    let (host, _) = url.host_port()?;
    // Checked here for the sake of its message; quinn takes the text.
    tls::server_name(&config.tls, host)?;
    let name = config.tls.server_name.as_deref().unwrap_or(host);
    let (crypto, tickets) = match settings.options.resume {
        Resume::No => (crypto::client(config, &settings.options)?, None),
        Resume::Tickets | Resume::Early => {
            let (crypto, key) = tickets::client(url.authority(), config, &settings.options)?;
            (crypto, Some(key))
        }
    };
    let client = ClientConfig::new(crypto);
    let ending = Ending::default();
    let dialing = Dialing { client, name, settings: &settings, ending: &ending };

    let Attempted { conn, endpoint, accepted } = race(resolve(url).await?, &dialing).await?;
    let local = endpoint.local_addr().ok();
    let is_early = accepted.is_some();
    let protocol = settings.options.alpn.first().map_or(LIBMUX, |name| name).to_owned();
    let early = accepted.zip(tickets).map(|(accepted, tickets)| Early { protocol, accepted, tickets });
    let connected = Connected {
        conn,
        first: None,
        early,
        ending,
        url: url.to_string(),
        role: Role::Client,
        local,
        endpoint: Some(endpoint),
        guard: None,
    };
    let session = start(connected, settings).await?;
    if is_early {
        return Ok(session);
    }
    // An acceptor judges our certificate after our handshake is complete: only its answer says that we are in.
    if session.capabilities().contains(Capabilities::GOAWAY) {
        session.ping().await.map_err(|error| error.context(format!("connecting to {url}")))?;
    }
    Ok(session)
}

/// What every attempt of a dial has in common.
struct Dialing<'a> {
    client: ClientConfig,
    name: &'a str,
    settings: &'a Settings,
    ending: &'a Ending,
}

/// A connection, or one that can be used before the peer answers.
struct Attempted {
    conn: Connection,
    endpoint: Dialer,
    accepted: Option<ZeroRttAccepted>,
}

/// The first of `addresses` to answer.
async fn race(addresses: Vec<SocketAddr>, dialing: &Dialing<'_>) -> Result<Attempted> {
    let attempts: FuturesUnordered<_> = addresses
        .into_iter()
        .enumerate()
        .map(|(at, address)| async move {
            sleep(STAGGER * u32::try_from(at).unwrap_or(u32::MAX)).await;
            attempt(address, dialing).await
        })
        .collect();
    let mut attempts = attempts;
    let mut worst: Option<Error> = None;
    while let Some(attempt) = attempts.next().await {
        match attempt {
            Ok(connected) => return Ok(connected),
            // A peer that answers and says no is worth more to the user than one that does not answer.
            Err(error) => {
                let silent = |error: &Error| matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Unreachable);
                if worst.as_ref().is_none_or(|worst| silent(worst) && !silent(&error)) {
                    worst = Some(error);
                }
            }
        }
    }
    Err(worst.unwrap_or_else(Error::closed_locally))
}

async fn attempt(address: SocketAddr, dialing: &Dialing<'_>) -> Result<Attempted> {
    let doing = format!("connecting to {address}");
    let mut client = dialing.client.clone();
    client.transport_config(dialing.settings.transport(Role::Client, address.ip(), dialing.ending)?);
    let endpoint = Dialer::new(address, &dialing.settings.options).map_err(|error| Error::from_io(&doing, error))?;
    let connecting = endpoint.connect_with(client, address, dialing.name).map_err(|error| match error {
        ConnectError::InvalidServerName(name) => {
            Error::invalid_input(format!("'{name}' is neither a DNS name nor an address, as TLS demands"))
        }
        ConnectError::InvalidRemoteAddress(address) => {
            Error::new(ErrorKind::Unreachable, Origin::Local, format!("{doing}: {address} cannot be dialed"))
        }
        other => Error::new(ErrorKind::Internal, Origin::Local, format!("{doing}: {other}")),
    })?;
    let connecting = match dialing.settings.options.resume {
        // With a ticket that allows it.
        Resume::Early => match connecting.into_0rtt() {
            Ok((conn, accepted)) => return Ok(Attempted { conn, endpoint, accepted: Some(accepted) }),
            Err(connecting) => connecting,
        },
        Resume::No | Resume::Tickets => connecting,
    };
    let connected = tokio::select! {
        biased;
        connected = connecting => connected,
        error = unreachable(address) => return Err(Error::from_io(doing, error)),
    };
    match connected {
        Ok(conn) => Ok(Attempted { conn, endpoint, accepted: None }),
        Err(error) => {
            // The packet that says why we give up shall leave before its socket is closed.
            if !matches!(error, ConnectionError::TimedOut) {
                endpoint.wait_idle(None, Duration::from_millis(20)).await;
            }
            Err(connection_error(&error, false, Wire::Libmux).context(doing))
        }
    }
}
