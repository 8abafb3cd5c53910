//! Configuration: every option, its default and its bounds, in one table.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::{Error, Result, Url};

/// What a session or listener is made with. Start from `Config::default()` and set fields, or use [`Config::set`] with
/// the names that URLs use. It is copied when a session is dialed or a listener bound.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// How long a dial may take, name lookup and handshakes included.
    pub connect_timeout: Duration,
    /// How often a silent peer is probed; it is dead after two misses, that is after three times this at the latest.
    /// Zero: never.
    pub keepalive: Duration,
    /// A session on which no channel was opened and no data moved for this long is ended, after twice this at the
    /// latest. Zero: never.
    pub idle: Duration,
    /// How long a closed channel or session may go on flushing in the background.
    pub linger: Duration,
    /// Channels that the peer may have open at once.
    pub max_channels: u32,
    /// Channels that wait for `accept()`; an open beyond it is refused, safe to retry.
    pub channel_backlog: u32,
    /// Sessions that wait for a listener's `accept()`.
    pub session_backlog: u32,
    /// Sessions a listener serves at once.
    pub max_sessions: u32,
    /// Bytes a channel may receive unread; it starts smaller as channels grow in number.
    pub window: u32,
    /// Bytes the peer may make a session hold.
    pub budget: u64,
    /// Bytes a channel accepts for sending before the transport takes them.
    pub send_buffer: u32,
    /// The largest frame body to send.
    pub frame_size: u32,
    /// Whether sessions have datagrams, where the wire can; the peer is told.
    pub datagrams: bool,
    /// The longest label accepted, in bytes.
    pub max_label: u32,
    /// Certificates and their verification.
    pub tls: TlsConfig,
    /// Options that only one backend knows, by name (`ext` of qmux, `path` of HTTP/2).
    pub extra: BTreeMap<String, String>,
}

/// TLS: what we present and what we demand. Verification is on unless switched off in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsConfig {
    /// PEM of the authorities to trust instead of the platform's.
    pub ca_pem: Option<Vec<u8>>,
    /// File with such PEM.
    pub ca_file: Option<PathBuf>,
    /// PEM of our certificate chain and of its key.
    pub identity_pem: Option<(Vec<u8>, Vec<u8>)>,
    /// Files with such PEM: chain, key.
    pub identity_files: Option<(PathBuf, PathBuf)>,
    /// SHA-256 of a leaf certificate's DER that is accepted instead of chain and name (the expiry still counts).
    pub pins: Vec<[u8; 32]>,
    /// The name to verify instead of the URL's host.
    pub server_name: Option<String>,
    /// Application protocols to offer instead of the backend's own.
    pub alpn: Vec<String>,
    /// What a listener asks of its clients.
    pub client_auth: ClientAuth,
    /// Skip verification; logs a warning.
    pub insecure: bool,
}

/// Whether a listener asks its clients for a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// It does not.
    #[default]
    None,
    /// It asks, and verifies what it gets.
    Request,
    /// It ends sessions that present none.
    Require,
}

/// An option that URLs and [`Config::set`] understand.
#[derive(Clone, Copy, Debug)]
pub struct ConfigOption {
    /// Its name in a URL.
    pub name: &'static str,
    /// What it takes and does, in a line.
    pub help: &'static str,
}

/// The options every backend understands.
pub const OPTIONS: &[ConfigOption] = &[
    ConfigOption { name: "ca", help: "PATH of PEM authorities to trust instead of the platform's" },
    ConfigOption { name: "cert", help: "PATH of our PEM certificate chain (with key)" },
    ConfigOption { name: "key", help: "PATH of our PEM private key (with cert)" },
    ConfigOption { name: "pin", help: "sha256:HEX of the certificate to accept instead of chain and name" },
    ConfigOption { name: "server_name", help: "NAME to verify instead of the URL's host" },
    ConfigOption { name: "insecure", help: "1 skips certificate verification" },
    ConfigOption { name: "max_channels", help: "channels the peer may have open at once (1 to 1000000)" },
    ConfigOption { name: "window", help: "bytes a channel may receive unread (1024 to 1GiB; k, m, g suffixes)" },
    ConfigOption { name: "budget", help: "bytes the peer may make a session hold (65536 up; k, m, g suffixes)" },
    ConfigOption { name: "keepalive", help: "how often a silent peer is probed (15s, 500ms; 0 never)" },
    ConfigOption { name: "idle", help: "end a session without traffic after this long (0 never)" },
    ConfigOption { name: "connect_timeout", help: "how long a dial may take (10s, 500ms)" },
];

/// The ones among [`OPTIONS`] that only mean something over TLS.
const TLS_OPTIONS: &[&str] = &["ca", "cert", "key", "pin", "server_name", "insecure"];

impl Default for Config {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            keepalive: Duration::from_secs(15),
            idle: Duration::ZERO,
            linger: Duration::from_secs(30),
            max_channels: 1024,
            channel_backlog: 128,
            session_backlog: 128,
            max_sessions: 65_536,
            window: 256 * 1024,
            budget: 256 << 20,
            send_buffer: 256 * 1024,
            frame_size: 64 * 1024,
            datagrams: true,
            max_label: 1024,
            tls: TlsConfig::default(),
            extra: BTreeMap::new(),
        }
    }
}

impl Config {
    /// The longest reason of a refusal or a session's end, in bytes.
    pub const MAX_REASON: usize = 1024;

    /// Sets an option by the name that URLs use.
    ///
    /// # Errors
    /// [`ErrorKind::Url`](crate::ErrorKind::Url) for an unknown name, [`ErrorKind::InvalidInput`](crate::ErrorKind) for
    /// a value out of range; the message lists what is allowed.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        self.set_with(name, value, &[])
    }

    /// As [`set`](Self::set); the names in `extra` are options that only a backend knows and land in [`Config::extra`],
    /// where that backend checks them when it dials or listens, and others do not look.
    ///
    /// # Errors
    /// As [`set`](Self::set); an unknown option's message lists the names in `extra` too.
    pub fn set_with(&mut self, name: &str, value: &str, extra: &[ConfigOption]) -> Result<()> {
        match name {
            _ if extra.iter().any(|option| option.name == name) => {
                self.extra.insert(name.to_owned(), value.to_owned());
            }
            "ca" => self.tls.ca_file = Some(PathBuf::from(value)),
            "cert" => {
                let key = self.tls.identity_files.take().map(|(_, key)| key).unwrap_or_default();
                self.tls.identity_files = Some((PathBuf::from(value), key));
            }
            "key" => {
                let cert = self.tls.identity_files.take().map(|(cert, _)| cert).unwrap_or_default();
                self.tls.identity_files = Some((cert, PathBuf::from(value)));
            }
            "pin" => self.tls.pins.push(parse_pin(value)?),
            "server_name" => self.tls.server_name = Some(value.to_owned()),
            "insecure" => self.tls.insecure = parse_switch(name, value)?,
            "max_channels" => self.max_channels = parse_size(name, value, 1, 1_000_000)? as u32,
            "window" => self.window = parse_size(name, value, 1024, 1 << 30)? as u32,
            "budget" => self.budget = parse_size(name, value, 65_536, u64::MAX)?,
            "keepalive" => self.keepalive = parse_duration(name, value)?,
            "idle" => self.idle = parse_duration(name, value)?,
            "connect_timeout" => self.connect_timeout = parse_duration(name, value)?,
            _ => return Err(unknown_option(name, extra)),
        }
        Ok(())
    }

    /// A copy with the options of `url` applied; those named in `extra` are the backend's own and land in
    /// [`Config::extra`]. A scheme that does not run over TLS (not `secure`) refuses TLS options.
    ///
    /// # Errors
    /// As [`Config::set`]; an unknown option's message lists the backend's own names too.
    pub fn with_url(&self, url: &Url, extra: &[ConfigOption], secure: bool) -> Result<Self> {
        let of_tls = |(name, _): &&(String, String)| TLS_OPTIONS.contains(&name.as_str());
        if let (false, Some((name, _))) = (secure, url.options().iter().find(of_tls)) {
            let scheme = url.scheme();
            return Err(Error::url(format!(
                "option {name} is for TLS, which '{scheme}' does not use; choose a scheme that does"
            )));
        }
        let mut config = self.clone();
        for (name, value) in url.options() {
            config.set_with(name, value, extra)?;
        }
        match &config.tls.identity_files {
            Some((cert, key)) if cert.as_os_str().is_empty() || key.as_os_str().is_empty() => {
                Err(Error::url("options cert and key go together: give both, or neither"))
            }
            _ => Ok(config),
        }
    }
}

fn unknown_option(name: &str, extra: &[ConfigOption]) -> Error {
    let known: Vec<&str> = OPTIONS.iter().chain(extra).map(|option| option.name).collect();
    Error::url(format!("unknown option '{name}'; there are: {}", known.join(", ")))
}

fn parse_switch(name: &str, value: &str) -> Result<bool> {
    match value {
        "1" | "true" | "on" => Ok(true),
        "0" | "false" | "off" => Ok(false),
        _ => Err(Error::invalid_input(format!("option {name}={value}: 1 or 0 is allowed"))),
    }
}

fn parse_size(name: &str, value: &str, min: u64, max: u64) -> Result<u64> {
    let lower = value.to_ascii_lowercase();
    let lower = lower.strip_suffix("ib").or(lower.strip_suffix('b')).unwrap_or(&lower);
    let (digits, shift) = match lower.as_bytes().last() {
        Some(b'k') => (&lower[..lower.len() - 1], 10),
        Some(b'm') => (&lower[..lower.len() - 1], 20),
        Some(b'g') => (&lower[..lower.len() - 1], 30),
        _ => (lower, 0),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(1 << shift))
        .filter(|n| (min..=max).contains(n))
        .ok_or_else(|| Error::invalid_input(format!("option {name}={value}: a number from {min} to {max} is allowed")))
}

fn parse_duration(name: &str, value: &str) -> Result<Duration> {
    let (digits, millis) = if let Some(digits) = value.strip_suffix("ms") {
        (digits, 1)
    } else {
        (value.strip_suffix('s').unwrap_or(value), 1000)
    };
    digits
        .parse::<u32>()
        .map(|n| Duration::from_millis(u64::from(n) * millis))
        .map_err(|_| Error::invalid_input(format!("option {name}={value}: a duration such as 15s or 500ms is allowed")))
}

fn parse_pin(value: &str) -> Result<[u8; 32]> {
    let bad = || Error::invalid_input(format!("option pin={value}: sha256: and 64 hex digits are allowed"));
    let hex = value.strip_prefix("sha256:").ok_or_else(bad)?;
    if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(bad());
    }
    let mut pin = [0; 32];
    for (byte, at) in pin.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&hex[at..at + 2], 16).map_err(|_| bad())?;
    }
    Ok(pin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn every_listed_option_can_be_set() {
        let pin = format!("sha256:{}", "ab".repeat(32));
        for option in OPTIONS {
            let value = match option.name {
                "pin" => &pin,
                "ca" | "cert" | "key" | "server_name" => "x",
                "insecure" => "1",
                _ => "128k",
            };
            let value = if matches!(option.name, "keepalive" | "idle" | "connect_timeout") { "500ms" } else { value };
            Config::default().set(option.name, value).expect(option.name);
        }
    }

    #[test]
    fn an_unknown_option_lists_what_exists() {
        let url = Url::parse("qmux://h:1?windw=1").expect("parses");
        let own = [ConfigOption { name: "ext", help: "" }];
        let error = Config::default().with_url(&url, &own, false).expect_err("unknown");
        assert_eq!(error.kind(), ErrorKind::Url);
        assert!(error.message().contains("windw") && error.message().contains("window"), "{error}");
        assert!(error.message().contains("ext"), "{error}");
    }

    #[test]
    fn a_value_out_of_range_says_what_is_allowed() {
        let error = Config::default().set("window", "3").expect_err("too small");
        assert!(error.message().contains("1024"), "{error}");
        assert!(Config::default().set("budget", "99999999999999999999g").is_err());
    }

    #[test]
    fn a_tls_option_without_tls_is_an_error() {
        let url = Url::parse("qmux://h:1?insecure=1").expect("parses");
        let error = Config::default().with_url(&url, &[], false).expect_err("protects nothing");
        assert!(error.message().contains("insecure") && error.message().contains("qmux"), "{error}");
        assert!(Config::default().with_url(&url, &[], true).is_ok());
    }

    #[test]
    fn cert_without_key_is_an_error() {
        let url = Url::parse("qmux://h:1?cert=a.pem").expect("parses");
        assert!(Config::default().with_url(&url, &[], true).is_err());
    }
}
