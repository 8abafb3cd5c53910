//! Certificates for development.

use mux_api::{Error, ErrorKind, Origin, Result};

/// A certificate that nobody vouches for, to be trusted by its pin.
#[derive(Clone, Debug)]
pub struct SelfSigned {
    /// The certificate, PEM.
    pub cert_pem: String,
    /// Its private key, PEM.
    pub key_pem: String,
    /// The SHA-256 of its DER.
    pub pin: [u8; 32],
}

/// Makes a certificate valid for `names` (DNS names and addresses).
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for a name that no certificate can hold.
pub fn self_signed(names: &[&str]) -> Result<SelfSigned> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = make(names).map_err(|error| {
        let message = format!("no certificate can be made for these names: {error}");
        Error::new(ErrorKind::InvalidInput, Origin::Local, message)
    })?;
    Ok(made)
}

fn make(names: Vec<String>) -> Result<SelfSigned, rcgen::Error> {
    let key = rcgen::KeyPair::generate()?;
    let mut params = rcgen::CertificateParams::new(names)?;
    // A subject of its own: with a common one, a certificate that is not trusted would look like a forgery of one that is.
    let subject = super::pin_text(&super::pin_of(key.public_key_raw()));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, format!("libmux development {}", &subject[7..23]));
    let cert = params.self_signed(&key)?;
    Ok(SelfSigned { cert_pem: cert.pem(), key_pem: key.serialize_pem(), pin: super::pin_of(cert.der()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_can_be_used_by_a_listener_and_a_dialer() {
        let made = self_signed(&["localhost", "127.0.0.1"]).expect("makes");
        let mut config = mux_api::TlsConfig::default();
        config.identity_pem = Some((made.cert_pem.clone().into_bytes(), made.key_pem.into_bytes()));
        config.ca_pem = Some(made.cert_pem.into_bytes());
        let wants = crate::tls::Wants { alpn: &["libmux/1"], tls13_only: true };
        crate::tls::server_config(&config, wants).expect("listens");
        crate::tls::client_config(&config, wants).expect("dials");
        assert!(crate::tls::pin_text(&made.pin).starts_with("sha256:"));
        assert!(self_signed(&["\u{fc}"]).is_err());
    }

    #[test]
    fn what_is_missing_is_said() {
        let wants = crate::tls::Wants { alpn: &["libmux/1"], tls13_only: true };
        let mut config = mux_api::TlsConfig::default();
        let error = crate::tls::server_config(&config, wants).expect_err("no certificate");
        assert!(error.message().contains("cert=PATH"), "{error}");
        config.identity_files = Some(("/nonexistent.pem".into(), "/nonexistent.key".into()));
        let error = crate::tls::server_config(&config, wants).expect_err("no file");
        assert!(error.message().contains("/nonexistent.pem"), "{error}");
    }
}
