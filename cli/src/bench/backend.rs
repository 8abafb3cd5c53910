//! What carries the channels: a scheme of the registry, or a bare transport beside which it is measured.

use crate::exit::Exit;

/// A bare transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bare {
    /// tokio's `TcpStream`.
    Tcp,
    /// tokio's `UnixStream`.
    Unix,
}

impl Bare {
    const ALL: [(Self, &'static str); 2] = [(Self::Tcp, "tcp"), (Self::Unix, "unix")];

    /// As it stands in `--backend` and the JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Unix => "unix",
        }
    }
}

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// A bare transport: a channel is a connection of its own.
    Bare(Bare),
    /// A scheme of the registry: all channels are of one session.
    Mux(String),
}

impl Backend {
    /// The backend of this name.
    ///
    /// # Errors
    /// A usage error that lists what exists.
    pub(crate) fn parse(name: &str) -> Result<Self, Exit> {
        if let Some((bare, _)) = Bare::ALL.iter().find(|(_, known)| *known == name) {
            return Ok(Self::Bare(*bare));
        }
        let schemes = libmux::registry().schemes();
        if schemes.iter().any(|scheme| scheme.name == name) {
            return Ok(Self::Mux(name.to_owned()));
        }
        let known: Vec<&str> = Bare::ALL.iter().map(|(_, name)| *name).chain(schemes.iter().map(|s| s.name)).collect();
        Err(Exit::usage(format!("no backend '{name}'; there are: {}", known.join(", "))))
    }

    /// As it stands in `--backend` and the JSON.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Bare(bare) => bare.name(),
            Self::Mux(scheme) => scheme,
        }
    }

    /// The bare transport that it rides on; itself, for a bare one.
    pub(crate) fn baseline(&self) -> Option<Bare> {
        match self {
            Self::Bare(bare) => Some(*bare),
            Self::Mux(scheme) => match scheme.split_once('+') {
                Some((_, "tcp")) => Some(Bare::Tcp),
                Some((_, "unix")) => Some(Bare::Unix),
                // The wire's own transport; TCP under qmux.
                None if scheme == "qmux" => Some(Bare::Tcp),
                _ => None,
            },
        }
    }

    /// Whether it listens on a path instead of a port.
    pub(crate) fn wants_path(&self) -> bool {
        match self {
            Self::Bare(bare) => *bare == Bare::Unix,
            Self::Mux(scheme) => scheme.ends_with("+unix"),
        }
    }

    /// What to listen on: a URL, or the address of a bare transport. `place` is `HOST:PORT` or a path.
    pub(crate) fn address(&self, place: &str) -> String {
        match self {
            Self::Bare(_) => place.to_owned(),
            Self::Mux(scheme) => format!("{scheme}://{place}"),
        }
    }
}

/// `named`, each behind the bare transport it rides on, none twice.
pub(crate) fn with_baselines(named: Vec<Backend>) -> Vec<Backend> {
    let mut all: Vec<Backend> = Vec::new();
    for backend in named {
        for backend in backend.baseline().map(Backend::Bare).into_iter().chain([backend]) {
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
        assert_eq!(names(vec![Backend::Bare(Bare::Tcp), mux("qmux+tcp"), mux("qmux")]), ["tcp", "qmux+tcp", "qmux"]);
    }

    #[test]
    fn an_unknown_backend_lists_what_exists() {
        assert!(Backend::parse("tpc").is_err());
        assert_eq!(Backend::parse("unix").expect("known"), Backend::Bare(Bare::Unix));
    }
}
