//! TLS over TCP without libmux: a channel is a connection with a handshake of its own.

use std::io;
use std::sync::Arc;

use libmux::TlsConfig;
use mux_transport::tls::{self, Wants};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::link::{Channels, Rx, TcpDial, Tx};
use super::secure::NOTHING;
use super::worker::Trouble;

/// Makes the dialing end of TLS.
pub(super) fn connector(tls: &TlsConfig, wants: Wants<'_>) -> Result<TlsConnector, Trouble> {
    Ok(TlsConnector::from(tls::client_config(tls, wants)?))
}

/// Makes the listening end of TLS.
pub(super) fn acceptor(tls: &TlsConfig, wants: Wants<'_>) -> Result<TlsAcceptor, Trouble> {
    Ok(TlsAcceptor::from(tls::server_config(tls, wants)?))
}

/// Puts TLS on a connection that was dialed.
pub(super) async fn connect(tcp: TcpStream, connector: &TlsConnector) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    Ok(connector.connect(name, tcp).await?.into())
}

/// Dials.
pub(super) struct TlsDial {
    tcp: TcpDial,
    connector: TlsConnector,
}

impl TlsDial {
    pub(super) fn new(tcp: TcpDial, tls: &TlsConfig) -> Result<Self, Trouble> {
        Ok(Self { tcp, connector: connector(tls, NOTHING)? })
    }
}

/// Listens.
pub(super) struct TlsListen(Mutex<mpsc::UnboundedReceiver<io::Result<TlsStream<TcpStream>>>>);

impl TlsListen {
    /// Handshakes run beside one another.
    pub(super) fn new(tcp: TcpListener, acceptor: &Arc<TlsAcceptor>) -> Self {
        let (queue, accepted) = mpsc::unbounded_channel();
        let acceptor = Arc::clone(acceptor);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = tcp.accept().await {
                let (queue, acceptor) = (queue.clone(), Arc::clone(&acceptor));
                tokio::spawn(async move {
                    let shaken = match tcp.set_nodelay(true) {
                        Ok(()) => acceptor.accept(tcp).await,
                        Err(error) => Err(error),
                    };
                    // Fails only when the worker is ending anyway.
                    let _ = queue.send(shaken.map(TlsStream::from));
                });
            }
        });
        Self(Mutex::new(accepted))
    }
}

type Halves = (WriteHalf<TlsStream<TcpStream>>, ReadHalf<TlsStream<TcpStream>>);

fn halves(stream: TlsStream<TcpStream>) -> Halves {
    let (rx, tx) = split(stream);
    (tx, rx)
}

impl Channels for TlsDial {
    type Tx = WriteHalf<TlsStream<TcpStream>>;
    type Rx = ReadHalf<TlsStream<TcpStream>>;

    async fn next(&self) -> io::Result<Halves> {
        Ok(halves(connect(self.tcp.connect().await?, &self.connector).await?))
    }
}

impl Channels for TlsListen {
    type Tx = WriteHalf<TlsStream<TcpStream>>;
    type Rx = ReadHalf<TlsStream<TcpStream>>;

    async fn next(&self) -> io::Result<Halves> {
        let accepted = self.0.lock().await.recv().await;
        Ok(halves(accepted.ok_or(io::ErrorKind::UnexpectedEof)??))
    }
}

impl Tx for WriteHalf<TlsStream<TcpStream>> {
    async fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
        AsyncWriteExt::write_all(self, data).await?;
        // What is encrypted may wait for the socket.
        self.flush().await
    }

    async fn write_last(&mut self, data: &[u8]) -> io::Result<()> {
        AsyncWriteExt::write_all(self, data).await?;
        self.shutdown().await
    }
}

impl Rx for ReadHalf<TlsStream<TcpStream>> {
    async fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        AsyncReadExt::read(self, buf).await
    }
}
