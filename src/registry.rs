//! Which backend serves a URL.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use backend_h2::H2Backend;
use backend_qmux::QmuxBackend;
use backend_quic::QuicBackend;
use mux_api::backend::{Backend, ByteStream, Scheme};
use mux_api::{Budget, Config, ConfigOption, Error, ErrorKind, Listener, Origin, Result, Role, Session, Url};

/// The backends a program can choose from, by scheme.
#[derive(Default)]
pub struct Registry {
    backends: RwLock<Vec<Arc<dyn Backend>>>,
}

impl Registry {
    /// A registry without backends.
    pub fn empty() -> Self {
        Self::default()
    }

    /// A registry with the backends that libmux comes with.
    pub fn with_defaults() -> Self {
        Self { backends: RwLock::new(vec![Arc::new(QmuxBackend), Arc::new(H2Backend), Arc::new(QuicBackend)]) }
    }

    /// Adds a backend.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidState`] when one of its schemes is taken.
    pub fn register(&self, backend: Arc<dyn Backend>) -> Result<()> {
        let mut backends = self.backends.write().unwrap_or_else(PoisonError::into_inner);
        let taken = |name| backends.iter().any(|known| known.schemes().iter().any(|scheme| scheme.name == name));
        if let Some(scheme) = backend.schemes().iter().find(|scheme| taken(scheme.name)) {
            let message = format!("scheme '{}' is registered already", scheme.name);
            return Err(Error::new(ErrorKind::InvalidState, Origin::Local, message));
        }
        backends.push(backend);
        Ok(())
    }

    /// Every scheme that can be dialed and listened on.
    pub fn schemes(&self) -> Vec<Scheme> {
        let backends = self.backends.read().unwrap_or_else(PoisonError::into_inner);
        backends.iter().flat_map(|backend| backend.schemes().to_vec()).collect()
    }

    /// The URL options of this scheme's backend alone, beside [`OPTIONS`](crate::OPTIONS), which all understand.
    ///
    /// # Errors
    /// As [`scheme`](Self::scheme).
    pub fn own_options(&self, scheme: &str) -> Result<Vec<ConfigOption>> {
        Ok(self.backend(scheme)?.options().to_vec())
    }

    /// The options that only one backend understands, of all backends; [`Config::set_with`] takes them.
    pub fn options(&self) -> Vec<ConfigOption> {
        let backends = self.backends.read().unwrap_or_else(PoisonError::into_inner);
        backends.iter().flat_map(|backend| backend.options().to_vec()).collect()
    }

    /// The scheme of this name.
    ///
    /// # Errors
    /// [`ErrorKind::Url`], with a list of what exists.
    pub fn scheme(&self, name: &str) -> Result<Scheme> {
        self.schemes().into_iter().find(|scheme| scheme.name == name).ok_or_else(|| self.unknown(name))
    }

    /// The backend that serves the scheme of this name.
    ///
    /// # Errors
    /// [`ErrorKind::Url`], with a list of what exists.
    pub fn backend(&self, scheme: &str) -> Result<Arc<dyn Backend>> {
        let serves = |backend: &&Arc<dyn Backend>| backend.schemes().iter().any(|known| known.name == scheme);
        let backends = self.backends.read().unwrap_or_else(PoisonError::into_inner);
        let found = backends.iter().find(serves).cloned();
        drop(backends);
        found.ok_or_else(|| self.unknown(scheme))
    }

    /// Connects to `url`.
    ///
    /// # Errors
    /// [`ErrorKind::Url`] for a URL, scheme or option that cannot be used; the backend's reasons otherwise.
    ///
    /// # Cancel safety
    /// Cancel-safe: a dropped future abandons the attempt.
    pub async fn dial(&self, url: &str, config: &Config) -> Result<Session> {
        let (backend, url, config) = self.resolve(url, config)?;
        backend.dial(&url, &config).await
    }

    /// Listens on `url`; port 0 lets the system choose, see [`Listener::url`].
    ///
    /// # Errors
    /// As [`dial`](Self::dial).
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn listen(&self, url: &str, config: &Config) -> Result<Listener> {
        let (backend, url, config) = self.resolve(url, config)?;
        backend.listen(&url, &config).await
    }

    /// Runs a session of `scheme` on a byte stream of the caller's own: an inherited descriptor, a pipe, a tunnel.
    ///
    /// # Errors
    /// [`ErrorKind::Url`] for an unknown scheme, [`ErrorKind::Unsupported`] for one whose wire is not a byte stream;
    /// the backend's reasons otherwise.
    ///
    /// # Cancel safety
    /// A dropped future ends the stream.
    pub async fn adopt(&self, scheme: &str, stream: ByteStream, role: Role, config: &Config) -> Result<Session> {
        self.backend(scheme)?.adopt(scheme, stream, role, config).await
    }

    fn resolve(&self, text: &str, config: &Config) -> Result<(Arc<dyn Backend>, Url, Config)> {
        let url = Url::parse(text)?;
        let scheme = url.scheme();
        let backend = self.backend(&scheme)?;
        let secure = backend.schemes().iter().any(|known| known.name == scheme && known.secure);
        let config = config.with_url(&url, backend.options(), secure)?;
        Ok((backend, url, config))
    }

    fn unknown(&self, scheme: &str) -> Error {
        let known: Vec<&str> = self.schemes().iter().map(|scheme| scheme.name).collect();
        Error::url(format!("no backend serves '{scheme}'; there are: {}", known.join(", ")))
    }
}

/// The registry that [`dial`] and [`listen`] use; backends of one's own are added here.
pub fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(|| {
        Budget::process().set_limit(default_process_budget());
        Registry::with_defaults()
    })
}

/// Connects to `url` with the default registry. See [`Registry::dial`].
///
/// # Errors
/// As [`Registry::dial`].
///
/// # Cancel safety
/// Cancel-safe: a dropped future abandons the attempt.
pub async fn dial(url: &str, config: &Config) -> Result<Session> {
    registry().dial(url, config).await
}

/// Listens on `url` with the default registry. See [`Registry::listen`].
///
/// # Errors
/// As [`Registry::dial`].
///
/// # Cancel safety
/// Cancel-safe.
pub async fn listen(url: &str, config: &Config) -> Result<Listener> {
    registry().listen(url, config).await
}

/// Runs a session on a byte stream of the caller's own, with the default registry. See [`Registry::adopt`].
///
/// # Errors
/// As [`Registry::adopt`].
///
/// # Cancel safety
/// A dropped future ends the stream.
pub async fn adopt(scheme: &str, stream: ByteStream, role: Role, config: &Config) -> Result<Session> {
    registry().adopt(scheme, stream, role, config).await
}

/// The smaller of 1 GiB and a quarter of the machine's memory.
fn default_process_budget() -> u64 {
    let quarter = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        })
        .map(|kib| kib * 1024 / 4);
    quarter.map_or(Budget::DEFAULT_PROCESS, |quarter| quarter.min(Budget::DEFAULT_PROCESS))
}
