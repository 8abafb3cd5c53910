//! Failed handshakes, told apart by their alert.

use std::io;

use mux_api::{Error, ErrorKind, Origin};
use rustls::AlertDescription;

/// A handshake that ended with a TLS alert. `origin` is who sent it: us ([`Origin::Local`]) or the peer.
pub fn handshake_error(alert: u8, origin: Origin, why: &str) -> Error {
    let alert = AlertDescription::from(alert);
    // A signature that does not fit is a certificate's fault or the handshake's; the alert does not tell, rustls does.
    let (kind, why) = match why.strip_prefix(REJECTED) {
        Some(why) => (ErrorKind::Certificate, why),
        None => (kind_of(alert), why),
    };
    // rustls shows what a verifier of ours says by its `Debug`.
    let why = why.strip_prefix("Other(OtherError(").and_then(|why| why.strip_suffix("))")).unwrap_or(why);
    let text = match why {
        "" => describe(alert),
        "UnknownIssuer" => "unknown issuer: no trusted authority leads to it; ca=PATH trusts another, a dialer's \
                            pin=sha256:HEX this certificate alone, insecure=1 anybody"
            .to_owned(),
        "CaUsedAsEndEntity" => "it is an authority's (basicConstraints CA:TRUE), not a server's or client's; make one \
                                with CA:FALSE, or trust this one by its pin"
            .to_owned(),
        "BadSignature" => "its signature is not that of the authority it names".to_owned(),
        why => why.to_owned(),
    };
    let message = match (origin, kind) {
        (Origin::Peer, ErrorKind::Certificate) => {
            format!("the peer rejected our certificate: {} ({alert:?})", describe(alert))
        }
        (Origin::Peer, ErrorKind::Alpn) => "the peer speaks none of the application protocols we offered".to_owned(),
        (Origin::Peer, _) => format!("the peer ended the TLS handshake: {text} ({alert:?})"),
        (_, ErrorKind::Alpn) => "no application protocol in common with the peer (ALPN)".to_owned(),
        (_, ErrorKind::Certificate) => format!("the peer's certificate was rejected: {text}"),
        _ => format!("the TLS handshake failed: {text}"),
    };
    Error::new(kind, origin, message).with_detail(u64::from(u8::from(alert)))
}

/// What a handshake or a read on a TLS stream failed with; `doing` says what was attempted.
pub fn io_error(doing: &str, error: io::Error) -> Error {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return Error::from_io(doing, error);
    };
    let found = match tls {
        rustls::Error::AlertReceived(alert) => handshake_error(u8::from(*alert), Origin::Peer, ""),
        rustls::Error::InvalidCertificate(why) => {
            handshake_error(u8::from(AlertDescription::from(why.clone())), Origin::Local, &tls.to_string())
        }
        rustls::Error::NoApplicationProtocol => {
            handshake_error(u8::from(AlertDescription::NoApplicationProtocol), Origin::Local, "")
        }
        rustls::Error::NoCertificatesPresented => handshake_error(
            u8::from(AlertDescription::CertificateRequired),
            Origin::Local,
            "the peer presented no certificate",
        ),
        other => Error::new(ErrorKind::Tls, Origin::Transport, format!("the TLS handshake failed: {other}")),
    };
    found.context(doing).with_source(error)
}

/// How rustls begins to say that it does not accept a certificate.
const REJECTED: &str = "invalid peer certificate: ";

fn kind_of(alert: AlertDescription) -> ErrorKind {
    match alert {
        AlertDescription::NoApplicationProtocol => ErrorKind::Alpn,
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied
        | AlertDescription::NoCertificate
        | AlertDescription::BadCertificateStatusResponse
        | AlertDescription::CertificateRequired => ErrorKind::Certificate,
        _ => ErrorKind::Tls,
    }
}

fn describe(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => "it demands one and we presented none".to_owned(),
        AlertDescription::UnknownCA => "its issuer is unknown there".to_owned(),
        AlertDescription::CertificateExpired => "it has expired or is not valid yet".to_owned(),
        AlertDescription::BadCertificate => "it is not acceptable there".to_owned(),
        AlertDescription::CertificateUnknown => "it is not one of those accepted there".to_owned(),
        other => format!("alert {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_become_kinds() {
        for (alert, kind) in [
            (45, ErrorKind::Certificate),
            (48, ErrorKind::Certificate),
            (116, ErrorKind::Certificate),
            (120, ErrorKind::Alpn),
            (40, ErrorKind::Tls),
        ] {
            let error = handshake_error(alert, Origin::Peer, "");
            assert_eq!((error.kind(), error.detail()), (kind, u64::from(alert)));
        }
    }
}
