//! What is examined: where its sessions come from.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mux_api::backend::{Backend, BoxFuture};
use mux_api::{Config, Error, Listener, Result, Role, Session, Url};
use tokio::io::DuplexStream;

use crate::link::{Kind, Link};

/// Where the sessions that are examined come from.
pub struct Subject {
    name: String,
    source: Source,
    /// What dialers and listeners are configured with before a scenario changes it.
    client: Config,
    server: Config,
    /// The same after the listener was reloaded.
    reloaded: Option<(Config, Config)>,
    few_numbers: Option<Box<FewNumbers>>,
}

type FewNumbers = dyn Fn(&mut Config, u32) + Send + Sync;

enum Source {
    Backend { backend: Arc<dyn Backend>, url: String, kind: Kind },
    Streams(Box<MakeEnd>),
    Pairs(Box<MakePair>),
}

type MakeEnd = dyn Fn(DuplexStream, Role, Config) -> BoxFuture<'static, Result<Session>> + Send + Sync;
type MakePair = dyn Fn(Config, Config) -> BoxFuture<'static, Result<(Session, Session)>> + Send + Sync;

/// A session's two ends, connected.
pub(crate) struct Ends {
    pub(crate) client: Session,
    pub(crate) server: Session,
    pub(crate) listener: Option<Listener>,
}

impl Subject {
    /// A backend, listening on `url` and dialed there: through `127.0.0.1:0`, or a Unix socket whose path contains
    /// `{n}`, which becomes another number each time. Options in the URL hold for both ends.
    ///
    /// Scenarios about pipes that are full, slow or cut put a relay between the ends: of TCP, or of Unix sockets where
    /// the URL has no authority; say [`over_udp`](Self::over_udp) for UDP.
    pub fn backend(backend: Arc<dyn Backend>, url: impl Into<String>) -> Self {
        let url = url.into();
        let unix = url.split_once("://").is_some_and(|(_, rest)| rest.starts_with('/'));
        let kind = if unix { Kind::Unix } else { Kind::Tcp };
        let name = url.split([':', '?']).next().unwrap_or_default().to_owned();
        Self::new(name, Source::Backend { backend, url, kind })
    }

    /// A wire for byte streams, without sockets: `end` makes a session of one end of a pipe in memory.
    pub fn streams<F, Fut>(name: impl Into<String>, end: F) -> Self
    where
        F: Fn(DuplexStream, Role, Config) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Session>> + Send + 'static,
    {
        let end = move |stream, role, config| -> BoxFuture<'static, _> { Box::pin(end(stream, role, config)) };
        Self::new(name.into(), Source::Streams(Box::new(end)))
    }

    /// Connected sessions by whatever means: `pair` gets the dialer's and the acceptor's configuration. The suite has
    /// nothing to put between them, so scenarios that need a full, slow or cut link are reported as not run.
    pub fn pairs<F, Fut>(name: impl Into<String>, pair: F) -> Self
    where
        F: Fn(Config, Config) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(Session, Session)>> + Send + 'static,
    {
        let pair = move |client, server| -> BoxFuture<'static, _> { Box::pin(pair(client, server)) };
        Self::new(name.into(), Source::Pairs(Box::new(pair)))
    }

    fn new(name: String, source: Source) -> Self {
        let (client, server) = (Config::default(), Config::default());
        Self { name, source, client, server, reloaded: None, few_numbers: None }
    }

    /// What reports call it, instead of the URL's scheme.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The backend's packets are UDP.
    #[must_use]
    pub fn over_udp(mut self) -> Self {
        if let Source::Backend { kind, .. } = &mut self.source {
            *kind = Kind::Udp;
        }
        self
    }

    /// What dialers start from: certificates to trust, options of the backend.
    #[must_use]
    pub fn client(mut self, config: Config) -> Self {
        self.client = config;
        self
    }

    /// What listeners start from: their certificate.
    #[must_use]
    pub fn server(mut self, config: Config) -> Self {
        self.server = config;
        self
    }

    /// What a listener is reloaded with, and what then dials it: another certificate, where there are certificates.
    /// Unless said, what it was made with.
    #[must_use]
    pub fn reloaded(mut self, client: Config, server: Config) -> Self {
        self.reloaded = Some((client, server));
        self
    }

    /// How sessions are configured that have so many numbers left for channels, where the wire's numbers can run out:
    /// `few(config, left)`, for both ends. Without it the scenario of that asserts that they do not run out soon.
    #[must_use]
    pub fn few_numbers(mut self, few: impl Fn(&mut Config, u32) + Send + Sync + 'static) -> Self {
        self.few_numbers = Some(Box::new(few));
        self
    }

    /// What reports call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a [`Link`] can be put between its ends.
    pub(crate) fn takes_link(&self) -> bool {
        !matches!(self.source, Source::Pairs(_))
    }

    /// Whether sessions come from a listener.
    pub(crate) fn listens(&self) -> bool {
        matches!(self.source, Source::Backend { .. })
    }

    /// The configurations of a dialer and a listener, changed by `tune`.
    pub(crate) fn configs(&self, tune: impl Fn(&mut Config)) -> (Config, Config) {
        let (mut client, mut server) = (self.client.clone(), self.server.clone());
        tune(&mut client);
        tune(&mut server);
        (client, server)
    }

    /// The configurations of a dialer and a listener after a reload, and whether the certificate is another.
    pub(crate) fn reloaded_configs(&self) -> (Config, Config, bool) {
        let (client, server) = self.reloaded.clone().unwrap_or_else(|| self.configs(|_| ()));
        (client, server, self.reloaded.is_some())
    }

    /// The configurations of ends that have `left` numbers for channels, if they can be had.
    pub(crate) fn with_few_numbers(&self, left: u32) -> Option<(Config, Config)> {
        let few = self.few_numbers.as_ref()?;
        Some(self.configs(|config| few(config, left)))
    }

    /// A listener of a backend where another one was.
    pub(crate) async fn listen_again(&self, url: &str, config: &Config) -> Result<Listener> {
        let Source::Backend { backend, .. } = &self.source else {
            return Err(Error::unsupported("this subject has no listener"));
        };
        let url = Url::parse(url)?;
        backend.listen(&url, &applied(&**backend, &url, config)?).await
    }

    /// A listener of a backend.
    pub(crate) async fn listen(&self, config: &Config) -> Result<Listener> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let Source::Backend { backend, url, .. } = &self.source else {
            return Err(Error::unsupported("this subject has no listener"));
        };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let url = Url::parse(&url.replace("{n}", &number.to_string()))?;
        backend.listen(&url, &applied(&**backend, &url, config)?).await
    }

    /// Dials a listener of the same backend, through `link` if there is one.
    pub(crate) async fn dial(&self, listener: &str, config: &Config, link: Option<&Link>) -> Result<Session> {
        let Source::Backend { backend, url, kind } = &self.source else {
            return Err(Error::unsupported("this subject dials nothing"));
        };
        // The options of the subject's URL first, then those that its listener adds.
        let config = applied(&**backend, &Url::parse(&url.replace("{n}", "0"))?, config)?;
        let target = match link {
            Some(link) => link.relay(*kind, listener).await?,
            None => listener.to_owned(),
        };
        let target = Url::parse(&target)?;
        backend.dial(&target, &applied(&**backend, &target, &config)?).await
    }

    /// Two ends, connected, with `link` between them if there is one.
    pub(crate) async fn connect(&self, client: &Config, server: &Config, link: Option<&Link>) -> Result<Ends> {
        match &self.source {
            Source::Backend { .. } => {
                let listener = self.listen(server).await?;
                let (client, server) = tokio::join!(self.dial(listener.url(), client, link), listener.accept());
                Ok(Ends { client: client?, server: server?, listener: Some(listener) })
            }
            Source::Streams(end) => {
                let (near, far) = match link {
                    Some(link) => link.pipe(),
                    None => tokio::io::duplex(64 * 1024),
                };
                let client = end(near, Role::Client, client.clone());
                let server = end(far, Role::Server, server.clone());
                let (client, server) = tokio::join!(client, server);
                Ok(Ends { client: client?, server: server?, listener: None })
            }
            Source::Pairs(pair) => {
                let (client, server) = pair(client.clone(), server.clone()).await?;
                Ok(Ends { client, server, listener: None })
            }
        }
    }
}

fn applied(backend: &dyn Backend, url: &Url, config: &Config) -> Result<Config> {
    let scheme = url.scheme();
    let secure = backend.schemes().iter().any(|known| known.name == scheme && known.secure);
    config.with_url(url, backend.options(), secure)
}
