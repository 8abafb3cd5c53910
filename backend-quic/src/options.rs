//! The options that only QUIC knows (docs/quic.md, section 9).

use std::path::PathBuf;

use mux_api::{Config, ConfigOption, Error, Result};

pub(crate) const OPTIONS: &[ConfigOption] = &[
    ConfigOption {
        name: "alpn",
        help: "PROTOCOL[,PROTOCOL...] to offer; qtalk-quic and plain streams besides libmux/1",
    },
    ConfigOption { name: "congestion", help: "cubic, newreno or bbr (bbr: faster on lossy long links, experimental)" },
    ConfigOption { name: "mtu", help: "the largest UDP payload to look for (1200 to 6500; 1452, on loopback 6500)" },
    ConfigOption { name: "reuse_port", help: "1 lets several listeners share an address (SO_REUSEPORT)" },
    ConfigOption { name: "shared_socket", help: "1 dials from a socket that all such dials of the process share" },
    ConfigOption { name: "resume", help: "1 resumes TLS sessions, early also sends before the peer answers (0-RTT)" },
    ConfigOption { name: "retry", help: "1 has every dialer prove its address first, not only under load" },
    ConfigOption { name: "qlog", help: "DIRECTORY for a qlog file of every session" },
    ConfigOption { name: "keylog", help: "1 appends the TLS secrets to the file SSLKEYLOGFILE names, for Wireshark" },
];

/// Who decides how much may be in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Congestion {
    #[default]
    Cubic,
    NewReno,
    Bbr,
}

/// What is made of a listener's tickets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Resume {
    #[default]
    No,
    /// A shorter handshake.
    Tickets,
    /// 0-RTT as well.
    Early,
}

/// What the options say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) alpn: Vec<String>,
    pub(crate) congestion: Congestion,
    pub(crate) mtu: Option<u16>,
    pub(crate) reuse_port: bool,
    pub(crate) shared_socket: bool,
    pub(crate) resume: Resume,
    pub(crate) retry: bool,
    pub(crate) qlog: Option<PathBuf>,
    pub(crate) keylog: bool,
}

/// What every path carries (RFC 9000 section 14).
const MIN_MTU: u16 = 1200;

/// quinn hands over ten packets at once, which together stay below 64 KiB.
pub(crate) const MAX_MTU: u16 = 6500;

impl Options {
    pub(crate) fn new(config: &Config) -> Result<Self> {
        let mut options = Self { alpn: config.tls.alpn.clone(), ..Self::default() };
        for (name, value) in &config.extra {
            let bad = |allowed: &str| Err(Error::invalid_input(format!("option {name}={value}: {allowed} is allowed")));
            match (name.as_str(), value.as_str()) {
                ("alpn", "") => return bad("a comma-separated list of protocols"),
                ("alpn", list) => options.alpn = list.split(',').map(str::to_owned).collect(),
                ("congestion", "cubic") => options.congestion = Congestion::Cubic,
                ("congestion", "newreno") => options.congestion = Congestion::NewReno,
                ("congestion", "bbr") => options.congestion = Congestion::Bbr,
                ("congestion", _) => return bad("cubic, newreno or bbr"),
                ("mtu", mtu) => match mtu.parse() {
                    Ok(mtu @ MIN_MTU..=MAX_MTU) => options.mtu = Some(mtu),
                    _ => return bad("a number from 1200 to 6500"),
                },
                ("reuse_port", "0" | "1") => options.reuse_port = value == "1",
                ("keylog", "0" | "1") => options.keylog = value == "1",
                ("shared_socket", "0" | "1") => options.shared_socket = value == "1",
                ("retry", "0" | "1") => options.retry = value == "1",
                ("reuse_port" | "keylog" | "shared_socket" | "retry", _) => return bad("1 or 0"),
                ("resume", "0") => options.resume = Resume::No,
                ("resume", "1") => options.resume = Resume::Tickets,
                ("resume", "early") => options.resume = Resume::Early,
                ("resume", _) => return bad("0, 1 or early"),
                ("qlog", "") => return bad("a directory"),
                ("qlog", _) if !cfg!(feature = "qlog") => {
                    return Err(Error::unsupported("option qlog: this build has none (cargo feature qlog)"));
                }
                ("qlog", directory) => options.qlog = Some(directory.into()),
                // Another backend's.
                _ => {}
            }
        }
        // What is sent before the peer answers is of one protocol.
        if options.resume == Resume::Early && options.alpn.len() > 1 {
            return Err(Error::invalid_input("option resume=early: alpn must name one protocol"));
        }
        if options.alpn.iter().any(|name| name.is_empty() || name.len() > 255) {
            return Err(Error::invalid_input("option alpn: a protocol's name has 1 to 255 bytes"));
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Result<Options> {
        let mut config = Config::default();
        config.extra = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Options::new(&config)
    }

    #[test]
    fn every_option_is_understood_and_a_wrong_value_says_what_is_allowed() {
        let all = options(&[
            ("alpn", "qtalk-quic,echo"),
            ("congestion", "bbr"),
            ("mtu", "6500"),
            ("reuse_port", "1"),
            ("shared_socket", "1"),
            ("resume", "1"),
            ("retry", "1"),
            ("keylog", "1"),
        ]);
        let expected = Options {
            alpn: vec!["qtalk-quic".into(), "echo".into()],
            congestion: Congestion::Bbr,
            mtu: Some(6500),
            reuse_port: true,
            shared_socket: true,
            resume: Resume::Tickets,
            retry: true,
            qlog: None,
            keylog: true,
        };
        assert_eq!(all.expect("understood"), expected);
        for (name, value, allowed) in [
            ("alpn", "", "list"),
            ("alpn", "a,,b", "1 to 255"),
            ("congestion", "vegas", "newreno"),
            ("mtu", "9000", "6500"),
            ("mtu", "big", "1200"),
            ("reuse_port", "yes", "1 or 0"),
            ("keylog", "/tmp/x", "1 or 0"),
            ("shared_socket", "all", "1 or 0"),
            ("retry", "always", "1 or 0"),
            ("resume", "yes", "early"),
            ("qlog", "", "directory"),
        ] {
            let error = options(&[(name, value)]).expect_err(name);
            assert!(error.message().contains(allowed) && error.message().contains(name), "{error}");
        }
        options(&[("resume", "early"), ("alpn", "one")]).expect("understood");
        let error = options(&[("resume", "early"), ("alpn", "one,two")]).expect_err("two protocols");
        assert!(error.message().contains("one protocol"), "{error}");
    }
}
