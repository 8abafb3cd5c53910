//! What carries the channels: a scheme of the registry, or the bare transport or library beside which it is measured.

use crate::exit::Exit;

/// A transport or library without libmux.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bare {
    /// tokio's `TcpStream`.
    Tcp,
    /// tokio's `UnixStream`.
    Unix,
    /// rustls over TCP.
    Tls,
    /// quinn, with the settings of the backend.
    Quinn,
    /// quinn as it comes.
    QuinnDefaults,
    /// h2 over TCP.
    H2,
    /// h2 over TLS.
    H2Tls,
}

impl Bare {
    const ALL: [Self; 7] = [Self::Tcp, Self::Unix, Self::Tls, Self::Quinn, Self::QuinnDefaults, Self::H2, Self::H2Tls];

    /// As it stands in `--backend` and the JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Unix => "unix",
            Self::Tls => "tls",
            Self::Quinn => "raw-quinn",
            Self::QuinnDefaults => "raw-quinn-defaults",
            Self::H2 => "raw-h2",
            Self::H2Tls => "raw-h2-tls",
        }
    }

    /// Whether a channel is a connection of its own.
    pub(crate) fn connects_each(self) -> bool {
        matches!(self, Self::Tcp | Self::Unix | Self::Tls)
    }
}

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// Without libmux: a channel is a connection of its own, or a stream of one.
    Bare(Bare),
    /// A scheme of the registry: all channels are of one session.
    Mux(String),
    /// The same through the C API.
    ThroughC(String),
}

impl Backend {
    /// The backend of this name.
    ///
    /// # Errors
    /// A usage error that lists what exists.
    pub(crate) fn parse(name: &str) -> Result<Self, Exit> {
        if let Some(bare) = Bare::ALL.iter().find(|bare| bare.name() == name) {
            return Ok(Self::Bare(*bare));
        }
        let schemes = libmux::registry().schemes();
        if schemes.iter().any(|scheme| scheme.name == name) {
            return Ok(Self::Mux(name.to_owned()));
        }
        let known: Vec<&str> = Bare::ALL.iter().map(|bare| bare.name()).chain(schemes.iter().map(|s| s.name)).collect();
        Err(Exit::usage(format!("no backend '{name}'; there are: {}", known.join(", "))))
    }

    /// As it stands in `--backend` and the JSON.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Bare(bare) => bare.name(),
            Self::Mux(scheme) | Self::ThroughC(scheme) => scheme,
        }
    }

    /// The API that it is called through.
    pub(crate) fn api(&self) -> &'static str {
        if matches!(self, Self::ThroughC(_)) { "c" } else { "rust" }
    }

    /// What it is measured against: what it rides on, the Rust API for C; itself, for a bare one.
    pub(crate) fn baseline(&self) -> Option<Self> {
        let bare = match self {
            Self::Bare(bare) => *bare,
            Self::ThroughC(scheme) => return Some(Self::Mux(scheme.clone())),
            Self::Mux(scheme) => match scheme.as_str() {
                "qmux" | "qmux+tcp" => Bare::Tcp,
                "qmux+tls" => Bare::Tls,
                "qmux+unix" | "h2c+unix" => Bare::Unix,
                "quic" => Bare::Quinn,
                "h2c" => Bare::H2,
                "h2" => Bare::H2Tls,
                _ => return None,
            },
        };
        Some(Self::Bare(bare))
    }

    /// Whether it listens on a path instead of a port.
    pub(crate) fn wants_path(&self) -> bool {
        match self {
            Self::Bare(bare) => *bare == Bare::Unix,
            Self::Mux(scheme) | Self::ThroughC(scheme) => scheme.ends_with("+unix"),
        }
    }

    /// Whether the listener presents a certificate.
    pub(crate) fn is_tls(&self) -> bool {
        match self {
            Self::Bare(bare) => matches!(bare, Bare::Tls | Bare::Quinn | Bare::QuinnDefaults | Bare::H2Tls),
            Self::Mux(scheme) | Self::ThroughC(scheme) => {
                libmux::registry().scheme(scheme).is_ok_and(|scheme| scheme.secure)
            }
        }
    }

    /// What to listen on: a URL, or the address of a bare transport. `place` is `HOST:PORT` or a path.
    pub(crate) fn address(&self, place: &str) -> String {
        match self {
            Self::Bare(_) => place.to_owned(),
            Self::Mux(scheme) | Self::ThroughC(scheme) => format!("{scheme}://{place}"),
        }
    }
}

/// `named`, each behind what it is measured against, none twice.
pub(crate) fn with_baselines(named: Vec<Backend>) -> Vec<Backend> {
    let mut all: Vec<Backend> = Vec::new();
    for backend in named {
        for backend in backend.baseline().into_iter().chain([backend]) {
            if !all.contains(&backend) {
                all.push(backend);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_backend_stands_behind_its_baseline_once() {
        let mux = |scheme: &str| Backend::Mux(scheme.to_owned());
        let names = |named| with_baselines(named).iter().map(|b| b.name().to_owned()).collect::<Vec<_>>();
        assert_eq!(names(vec![mux("qmux"), mux("qmux+unix")]), ["tcp", "qmux", "unix", "qmux+unix"]);
        assert_eq!(
            names(vec![mux("quic"), mux("h2c"), mux("h2")]),
            ["raw-quinn", "quic", "raw-h2", "h2c", "raw-h2-tls", "h2"]
        );
        assert_eq!(names(vec![Backend::Bare(Bare::Tcp), mux("qmux+tcp"), mux("qmux")]), ["tcp", "qmux+tcp", "qmux"]);
    }

    #[test]
    fn every_scheme_has_a_baseline() {
        for scheme in libmux::registry().schemes() {
            let backend = Backend::parse(scheme.name).expect("known");
            assert!(backend.baseline().is_some(), "{}", scheme.name);
        }
    }

    #[test]
    fn an_unknown_backend_lists_what_exists() {
        assert!(Backend::parse("tpc").is_err());
        assert_eq!(Backend::parse("unix").expect("known"), Backend::Bare(Bare::Unix));
    }
}
