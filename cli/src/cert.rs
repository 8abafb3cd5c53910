//! Certificates for development: `mux cert` and `mux listen --self-signed`.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use libmux::{Config, Url};
use mux_transport::tls::{pin_text, self_signed};

use crate::exit::{Exit, print_line};

/// Make a self-signed certificate for development, to be trusted by its pin
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where cert.pem and key.pem are written: made if missing; nothing is overwritten
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,

    /// DNS names and addresses to be valid for [default: localhost 127.0.0.1 ::1]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// Writes both files, prints the pin.
pub(crate) fn run(args: &Args) -> Result<(), Exit> {
    let names: Vec<&str> = match args.names.as_slice() {
        [] => LOCAL.to_vec(),
        named => named.iter().map(String::as_str).collect(),
    };
    let made = self_signed(&names).map_err(|error| Exit::from_mux("cannot make a certificate", &error))?;
    let (cert, key) = (args.out.join("cert.pem"), args.out.join("key.pem"));
    fs::create_dir_all(&args.out)
        .map_err(|error| Exit::failed(format!("cannot make the directory {}: {error}", args.out.display())))?;
    create(&cert, 0o644, &made.cert_pem)?;
    if let Err(exit) = create(&key, 0o600, &made.key_pem) {
        // One without the other is of no use, and would be in the way of the next attempt.
        let _ = fs::remove_file(&cert);
        return Err(exit);
    }
    print_line(&pin_text(&made.pin))
}

/// What this machine is called by itself.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Puts a certificate made just now into `config`; the option that trusts it, for the URL to dial.
pub(crate) fn present(config: &mut Config, names: &[&str]) -> libmux::Result<String> {
    let made = self_signed(names)?;
    config.tls.identity_pem = Some((made.cert_pem.into_bytes(), made.key_pem.into_bytes()));
    Ok(format!("pin={}", pin_text(&made.pin)))
}

/// What `mux listen` presents at `text`: with `self_signed` a certificate of its own, whose pin is returned.
///
/// # Errors
/// A usage error for TLS without a certificate, for two of them, and for one that nobody would see.
pub(crate) fn for_listener(text: &str, self_signed: bool, config: &mut Config) -> Result<Option<String>, Exit> {
    // A URL that cannot be parsed and a scheme that is unknown are explained by whoever listens on it.
    let Ok(url) = Url::parse(text) else { return Ok(None) };
    let Ok(scheme) = libmux::registry().scheme(&url.scheme()) else { return Ok(None) };
    let given = url.options().iter().any(|(name, _)| matches!(name.as_str(), "cert" | "key"));
    match (self_signed, scheme.secure) {
        (true, _) if given => {
            Err(Exit::usage(format!("{text} names a certificate; --self-signed would make another: leave one out")))
        }
        (true, false) => Err(Exit::usage(format!(
            "--self-signed: {} does not use TLS, so there is no certificate to present; quic, h2 and qmux+tls do",
            scheme.name
        ))),
        (false, true) if !given => Err(Exit::usage(format!(
            "cannot listen on {text}: {} is encrypted and needs a certificate. Either --self-signed, which makes one for \
             development and prints the URL with its pin, or ?cert=PATH&key=PATH (PEM); 'mux cert' makes such files",
            scheme.name
        ))),
        (true, true) => {
            let host = url.host_port().map(|(host, _)| host).unwrap_or_default();
            let other = !host.is_empty() && !LOCAL.contains(&host);
            let names: Vec<&str> = LOCAL.into_iter().chain(other.then_some(host)).collect();
            let pin = present(config, &names).map_err(|error| Exit::from_mux("--self-signed", &error))?;
            Ok(Some(pin))
        }
        _ => Ok(None),
    }
}

/// `url` with one more option.
pub(crate) fn with_option(url: &str, option: &str) -> String {
    let joint = if url.contains('?') { '&' } else { '?' };
    format!("{url}{joint}{option}")
}

fn create(path: &Path, mode: u32, text: &str) -> Result<(), Exit> {
    // What is there may be in use, and a key cannot be made again.
    let created = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = created.and_then(|mut file| {
        file.write_all(text.as_bytes()).inspect_err(|_| {
            // Half a file helps nobody.
            let _ = fs::remove_file(path);
        })
    });
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Exit::failed(format!("{} exists and is not overwritten; remove it or choose another --out", path.display()))
        }
        _ => Exit::failed(format!("cannot write {}: {error}", path.display())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_with_tls_has_one_certificate_and_others_none() {
        let listen = |url, self_signed| for_listener(url, self_signed, &mut Config::default());
        assert!(listen("quic://127.0.0.1:0", true).expect("made").expect("pin").starts_with("pin=sha256:"));
        assert!(listen("h2://mux.example:0", true).expect("made").is_some());
        assert!(listen("h2c://127.0.0.1:0", false).expect("none").is_none());
        assert!(listen("h2://127.0.0.1:0?cert=c&key=k", false).expect("given").is_none());
        for (url, self_signed) in
            [("quic://127.0.0.1:0", false), ("qmux://127.0.0.1:0", true), ("h2://127.0.0.1:0?cert=c&key=k", true)]
        {
            assert!(listen(url, self_signed).is_err(), "{url}");
        }
    }

    #[test]
    fn an_option_is_added_behind_others() {
        assert_eq!(with_option("quic://h:1", "pin=x"), "quic://h:1?pin=x");
        assert_eq!(with_option("h2://h:1?path=/a", "pin=x"), "h2://h:1?path=/a&pin=x");
    }
}
