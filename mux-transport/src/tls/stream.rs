//! TLS on a byte stream.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use mux_api::backend::ByteStream;
use mux_api::{Error, ErrorKind, Origin, Result, TlsConfig, TlsInfo};
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{CommonState, ServerConfig, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, split};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{Wants, client_config, io_error, server_name};
use crate::Joined;

/// A stream on which TLS was put.
pub struct Connected {
    /// What goes over it is protected. A read that fails by TLS says so by an [`Error`] of kind `Tls`, `Certificate` or `Alpn`.
    pub stream: ByteStream,
    /// What the handshake settled.
    pub info: TlsInfo,
    /// The server asked for a certificate, or that there is none. In TLS 1.3 it has not judged the answer yet: only what it says
    /// next tells that it took it.
    pub judged_later: bool,
}

/// Puts TLS on a stream that was dialed; `host` is whom to verify unless the settings name somebody else.
///
/// # Errors
/// What is wrong with the settings, or why the handshake failed; [`Alpn`](ErrorKind::Alpn) for a server that chooses none
/// of the protocols wanted.
///
/// # Cancel safety
/// A dropped future drops the stream.
pub async fn connect(stream: ByteStream, host: &str, config: &TlsConfig, wants: Wants<'_>) -> Result<Connected> {
    let name = server_name(config, host)?;
    let mut client = Arc::unwrap_or_clone(client_config(config, wants)?);
    let noted = Arc::new(Noted { inner: client.client_auth_cert_resolver, asked: AtomicBool::new(false) });
    client.client_auth_cert_resolver = Arc::clone(&noted) as _;
    let connector = TlsConnector::from(Arc::new(client));
    let (joined, addresses) = Addresses::of(stream);
    let stream = connector.connect(name, joined).await.map_err(|error| io_error("the TLS handshake failed", error))?;
    let info = describe(stream.get_ref().1);
    if info.alpn.is_empty() {
        let message = "the server chose no application protocol (ALPN): it is none of this wire";
        return Err(Error::new(ErrorKind::Alpn, Origin::Peer, message));
    }
    let judged_later = noted.asked.load(Ordering::Relaxed);
    Ok(Connected { stream: addresses.on(stream), info, judged_later })
}

/// Notes that the server asked for a certificate.
#[derive(Debug)]
struct Noted {
    inner: Arc<dyn ResolvesClientCert>,
    asked: AtomicBool,
}

impl ResolvesClientCert for Noted {
    fn resolve(&self, issuers: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.inner.resolve(issuers, schemes)
    }

    fn has_certs(&self) -> bool {
        self.inner.has_certs()
    }
}

/// Puts TLS on a stream that was accepted; `config` is [`server_config`](super::server_config)'s.
///
/// # Errors
/// Why the handshake failed.
///
/// # Cancel safety
/// A dropped future drops the stream.
pub async fn accept(stream: ByteStream, config: Arc<ServerConfig>) -> Result<(ByteStream, TlsInfo)> {
    let (joined, addresses) = Addresses::of(stream);
    let stream = TlsAcceptor::from(config).accept(joined).await;
    let stream = stream.map_err(|error| io_error("the TLS handshake failed", error))?;
    let info = describe(stream.get_ref().1);
    Ok((addresses.on(stream), info))
}

/// What a handshake settled.
pub fn describe(state: &CommonState) -> TlsInfo {
    // "TLSv1_3" to those who wrote it down, "TLS 1.3" to those who read it, on every wire.
    let version =
        state.protocol_version().map(|version| format!("{version:?}").replace("TLSv", "TLS ").replace('_', "."));
    let suite = state.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()));
    let leaf = state.peer_certificates().and_then(|chain| chain.first());
    let mut info = TlsInfo::default();
    info.summary = version.into_iter().chain(suite).collect::<Vec<_>>().join(" ");
    info.alpn = state.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default();
    info.peer_certificate = leaf.map(|leaf| bytes::Bytes::copy_from_slice(leaf));
    info
}

/// Who is at both ends of a stream.
struct Addresses(String, String);

impl Addresses {
    fn of(mut stream: ByteStream) -> (Joined, Self) {
        let addresses = Self(std::mem::take(&mut stream.local_addr), std::mem::take(&mut stream.peer_addr));
        (Joined::new(stream), addresses)
    }

    /// The two directions share the state of TLS, so a lock that is held for a call's time.
    fn on(self, stream: impl AsyncRead + AsyncWrite + Send + 'static) -> ByteStream {
        let (reader, writer) = split(stream);
        let reader = Explained(reader);
        ByteStream { reader: Box::new(reader), writer: Box::new(writer), local_addr: self.0, peer_addr: self.1 }
    }
}

/// A reader whose failures by TLS are told as the handshake's are: an alert may come after it.
struct Explained<S>(ReadHalf<S>);

impl<S: AsyncRead + AsyncWrite> AsyncRead for Explained<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf).map_err(|error| match error.get_ref() {
            Some(inner) if inner.is::<rustls::Error>() => io_error("TLS", error).into(),
            _ => error,
        })
    }
}
