//! Certificates and keys from PEM.

use std::path::Path;
use std::sync::Arc;

use mux_api::{Error, Result, TlsConfig};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// Our certificate and key, if the configuration names any.
pub(super) fn identity(config: &TlsConfig) -> Result<Option<Arc<CertifiedKey>>> {
    if let Some((chain, key)) = &config.identity_pem {
        return certified(chain, key, "the given certificate", "the given key").map(Some);
    }
    let Some((chain, key)) = &config.identity_files else { return Ok(None) };
    identity_from_files(chain, key).map(Some)
}

pub(super) fn identity_from_files(chain: &Path, key: &Path) -> Result<Arc<CertifiedKey>> {
    let (chain_name, key_name) = (chain.display().to_string(), key.display().to_string());
    certified(&read(chain)?, &read(key)?, &chain_name, &key_name)
}

fn certified(chain: &[u8], key: &[u8], chain_name: &str, key_name: &str) -> Result<Arc<CertifiedKey>> {
    let certificates = certificates(chain, chain_name)?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|error| Error::invalid_input(format!("{key_name} holds no usable PEM private key: {error}")))?;
    let key = super::provider()
        .key_provider
        .load_private_key(key)
        .map_err(|error| Error::invalid_input(format!("the private key of {key_name} cannot be used: {error}")))?;
    let certified = CertifiedKey::new(certificates, key);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(Arc::new(certified)),
        Err(error) => {
            Err(Error::invalid_input(format!("the key of {key_name} does not belong to {chain_name}: {error}")))
        }
    }
}

/// The authorities that the configuration trusts, `None` where it names none.
pub(super) fn roots(config: &TlsConfig) -> Result<Option<Arc<RootCertStore>>> {
    let mut roots = RootCertStore::empty();
    if let Some(pem) = &config.ca_pem {
        add(&mut roots, pem, "the given CA")?;
    }
    if let Some(path) = &config.ca_file {
        add(&mut roots, &read(path)?, &path.display().to_string())?;
    }
    Ok((!roots.is_empty()).then(|| Arc::new(roots)))
}

fn add(roots: &mut RootCertStore, pem: &[u8], name: &str) -> Result<()> {
    for certificate in certificates(pem, name)? {
        roots.add(certificate).map_err(|error| {
            Error::invalid_input(format!("{name} holds a certificate that is no authority: {error}"))
        })?;
    }
    Ok(())
}

fn certificates(pem: &[u8], name: &str) -> Result<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| Error::invalid_input(format!("{name} is not well-formed PEM: {error}")))?;
    if found.is_empty() {
        return Err(Error::invalid_input(format!("{name} holds no PEM certificate")));
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Error::from_io(format!("reading {}", path.display()), error))
}
