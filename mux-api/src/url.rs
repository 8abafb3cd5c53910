//! `<backend>[+<transport>]://authority[/path][?option=value&...]`

use std::fmt;

use percent_encoding::percent_decode_str;

use crate::{Error, Result};

/// A URL that names a backend, a transport, where to go, and options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    text: String,
    backend: String,
    transport: Option<String>,
    authority: String,
    path: String,
    options: Vec<(String, String)>,
}

impl Url {
    /// Parses a URL. It does not know which backends exist; the registry does.
    ///
    /// # Errors
    /// [`ErrorKind::Url`](crate::ErrorKind::Url), with what is wrong and the form that is allowed.
    pub fn parse(text: &str) -> Result<Self> {
        let malformed = |why: &str| {
            Error::url(format!(
                "URL '{text}' {why}; the form is <backend>[+<transport>]://authority[/path][?option=value], \
                 such as qmux://127.0.0.1:4000"
            ))
        };
        let (scheme, rest) = text.split_once(':').ok_or_else(|| malformed("has no scheme"))?;
        let (backend, transport) = match scheme.split_once('+') {
            Some((backend, transport)) => (backend, Some(transport)),
            None => (scheme, None),
        };
        for part in [Some(backend), transport].into_iter().flatten() {
            let word = part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            if part.is_empty() || !word {
                return Err(malformed("has a malformed scheme (lower-case letters and digits, one '+')"));
            }
        }
        let mut url = Self {
            text: text.to_owned(),
            backend: backend.to_owned(),
            transport: transport.map(str::to_owned),
            authority: String::new(),
            path: String::new(),
            options: Vec::new(),
        };
        // What follows exec: is a command, verbatim: it has no options and no authority.
        if transport == Some("exec") {
            url.path = rest.to_owned();
            return Ok(url);
        }
        let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
        match place.strip_prefix("//") {
            Some(place) => {
                let slash = place.find('/').unwrap_or(place.len());
                url.authority = place[..slash].to_owned();
                url.path = decode(&place[slash..]).ok_or_else(|| malformed("has a path that is not UTF-8"))?;
            }
            None if place.is_empty() => {}
            None => return Err(malformed("lacks '//' after the scheme")),
        }
        if url.authority.contains('@') {
            return Err(malformed("carries user information; secrets never go into a URL"));
        }
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) =
                pair.split_once('=').ok_or_else(|| malformed(&format!("has an option without a value ('{pair}')")))?;
            let value = decode(value).ok_or_else(|| malformed("has an option that is not UTF-8"))?;
            url.options.push((name.to_owned(), value));
        }
        Ok(url)
    }

    /// The wire: `qmux`, `quic`, `h2`.
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// The byte stream under the wire, when the URL names one: `tcp`, `unix`.
    pub fn transport(&self) -> Option<&str> {
        self.transport.as_deref()
    }

    /// Backend and transport as written: `qmux+unix`.
    pub fn scheme(&self) -> String {
        match &self.transport {
            Some(transport) => format!("{}+{transport}", self.backend),
            None => self.backend.clone(),
        }
    }

    /// `host:port`, as written; empty where there is none.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The path with its leading slash, percent-decoded; a command where the transport is `exec`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The options in the order written, values percent-decoded.
    pub fn options(&self) -> &[(String, String)] {
        &self.options
    }

    /// Host and port of the authority.
    ///
    /// # Errors
    /// [`ErrorKind::Url`](crate::ErrorKind::Url) when either is missing or malformed.
    pub fn host_port(&self) -> Result<(&str, u16)> {
        let bad = |why: &str| Error::url(format!("URL '{self}' {why}; write host:port or [ipv6]:port"));
        let (host, port) = self.authority.rsplit_once(':').ok_or_else(|| bad("names no port"))?;
        let port = port.parse().map_err(|_| bad("has a port that is not a number from 0 to 65535"))?;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']').ok_or_else(|| bad("has an unclosed '['"))?,
            None if host.contains(':') => return Err(bad("has an IPv6 address without brackets")),
            None => host,
        };
        if host.is_empty() { Err(bad("names no host")) } else { Ok((host, port)) }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn decode(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(|text| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_apart() {
        let url = Url::parse("qmux+tcp://[::1]:4000/a%20b?window=64k&ca=%2Ftmp%2Fx").expect("parses");
        assert_eq!((url.backend(), url.transport(), url.scheme().as_str()), ("qmux", Some("tcp"), "qmux+tcp"));
        assert_eq!(url.host_port().expect("host and port"), ("::1", 4000));
        assert_eq!(url.path(), "/a b");
        assert_eq!(url.options()[1], ("ca".into(), "/tmp/x".into()));
    }

    #[test]
    fn a_unix_path_has_no_authority() {
        let url = Url::parse("qmux+unix:///run/m.sock?max_channels=5").expect("parses");
        assert_eq!((url.authority(), url.path()), ("", "/run/m.sock"));
    }

    #[test]
    fn a_command_is_taken_verbatim() {
        let url = Url::parse("qmux+exec:ssh host 'mux?x=1'").expect("parses");
        assert_eq!((url.path(), url.options().len()), ("ssh host 'mux?x=1'", 0));
        assert!(Url::parse("qmux+stdio:").is_ok());
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, said) in [
            ("127.0.0.1", "no scheme"),
            ("://x", "scheme"),
            ("Qmux://x:1", "scheme"),
            ("qmux:x:1", "//"),
            ("qmux://u:p@x:1", "secrets"),
            ("qmux://x:1?a", "without a value"),
        ] {
            let error = Url::parse(text).expect_err(text);
            assert!(error.message().contains(said), "{text}: {error}");
        }
        for text in ["qmux://x", "qmux://:1", "qmux://x:70000", "qmux://::1:5", "qmux://[::1:5"] {
            let url = Url::parse(text).expect("parses");
            assert!(url.host_port().is_err(), "{text}");
        }
    }
}
