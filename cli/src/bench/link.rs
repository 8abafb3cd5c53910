//! One shape for a bare transport and for a session, so that every scenario is written once.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

use libmux::{RecvHalf, SendHalf, Session, WriteFlags};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream, tcp, unix};

/// The sending side of a channel or connection.
pub(crate) trait Tx: Send + 'static {
    /// Writes all of `data`.
    fn write_all(&mut self, data: &[u8]) -> impl Future<Output = io::Result<()>> + Send;

    /// Writes all of `data`, then ends the direction.
    fn write_last(&mut self, data: &[u8]) -> impl Future<Output = io::Result<()>> + Send;
}

/// The receiving side of a channel or connection.
pub(crate) trait Rx: Send + 'static {
    /// Reads what is there; 0 is the end.
    fn read(&mut self, buf: &mut [u8]) -> impl Future<Output = io::Result<usize>> + Send;
}

/// One end of a transport: the dialing end opens channels, the listening end accepts them.
pub(crate) trait Channels: Send + Sync + 'static {
    /// What is written to.
    type Tx: Tx;
    /// What is read from.
    type Rx: Rx;

    /// The next channel.
    fn next(&self) -> impl Future<Output = io::Result<(Self::Tx, Self::Rx)>> + Send;
}

/// Dials channels of a session.
pub(crate) struct Opening(pub(crate) Session);

/// Accepts channels of a session.
pub(crate) struct Accepting(pub(crate) Session);

impl Channels for Opening {
    type Tx = SendHalf;
    type Rx = RecvHalf;

    async fn next(&self) -> io::Result<(SendHalf, RecvHalf)> {
        Ok(self.0.open().await?.split())
    }
}

impl Channels for Accepting {
    type Tx = SendHalf;
    type Rx = RecvHalf;

    async fn next(&self) -> io::Result<(SendHalf, RecvHalf)> {
        Ok(self.0.accept().await?.split())
    }
}

impl Tx for SendHalf {
    async fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
        Ok(SendHalf::write_all(self, data).await?)
    }

    async fn write_last(&mut self, data: &[u8]) -> io::Result<()> {
        Ok(self.write_all_with(data, WriteFlags::FIN).await?)
    }
}

impl Rx for RecvHalf {
    async fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(RecvHalf::read(self, buf).await?)
    }
}

/// Dials TCP: a channel is a connection.
pub(crate) struct TcpDial {
    to: Vec<SocketAddr>,
    opened: AtomicUsize,
}

impl TcpDial {
    /// Dials the addresses in turn, many times each. A closed connection keeps its port for a minute; a client that has
    /// used most of the 28,000 to one address spends its time in searching for a free one, and that would flatter
    /// whatever is compared with tcp.
    pub(crate) fn new(to: Vec<SocketAddr>) -> Self {
        Self { to, opened: AtomicUsize::new(0) }
    }

    /// The next connection.
    pub(crate) async fn connect(&self) -> io::Result<TcpStream> {
        let tcp = TcpStream::connect(self.turn()?).await?;
        tcp.set_nodelay(true)?;
        Ok(tcp)
    }

    fn turn(&self) -> io::Result<SocketAddr> {
        const TIMES: usize = 10_000;
        let turn = self.opened.fetch_add(1, Ordering::Relaxed) / TIMES % self.to.len().max(1);
        self.to.get(turn).copied().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }
}

/// Listens at `at`; on loopback, on the same free port of several addresses, see [`TcpDial::new`].
pub(crate) async fn listen_tcp(at: &str) -> io::Result<Vec<TcpListener>> {
    let mut listeners = vec![TcpListener::bind(at).await?];
    let first = listeners[0].local_addr()?;
    if first.ip() == Ipv4Addr::LOCALHOST {
        for last in 2..=8 {
            // Taken, or not there: the others do.
            listeners.extend(TcpListener::bind((Ipv4Addr::new(127, 0, 0, last), first.port())).await);
        }
    }
    Ok(listeners)
}

/// Dials a Unix socket: a channel is a connection.
pub(crate) struct UnixDial(pub(crate) String);

impl Channels for TcpDial {
    type Tx = tcp::OwnedWriteHalf;
    type Rx = tcp::OwnedReadHalf;

    async fn next(&self) -> io::Result<(Self::Tx, Self::Rx)> {
        Ok(split_tcp(self.connect().await?))
    }
}

impl Channels for TcpListener {
    type Tx = tcp::OwnedWriteHalf;
    type Rx = tcp::OwnedReadHalf;

    async fn next(&self) -> io::Result<(Self::Tx, Self::Rx)> {
        let (tcp, _) = self.accept().await?;
        tcp.set_nodelay(true)?;
        Ok(split_tcp(tcp))
    }
}

fn split_tcp(tcp: TcpStream) -> (tcp::OwnedWriteHalf, tcp::OwnedReadHalf) {
    let (rx, tx) = tcp.into_split();
    (tx, rx)
}

impl Channels for UnixDial {
    type Tx = unix::OwnedWriteHalf;
    type Rx = unix::OwnedReadHalf;

    async fn next(&self) -> io::Result<(Self::Tx, Self::Rx)> {
        loop {
            match UnixStream::connect(&self.0).await {
                Ok(stream) => {
                    let (rx, tx) = stream.into_split();
                    return Ok((tx, rx));
                }
                // A full accept queue, which TCP would wait for.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::task::yield_now().await,
                Err(error) => return Err(error),
            }
        }
    }
}

impl Channels for UnixListener {
    type Tx = unix::OwnedWriteHalf;
    type Rx = unix::OwnedReadHalf;

    async fn next(&self) -> io::Result<(Self::Tx, Self::Rx)> {
        let (rx, tx) = self.accept().await?.0.into_split();
        Ok((tx, rx))
    }
}

/// The halves of a bare connection are alike but in name.
macro_rules! bare_halves {
    ($($module:ident),*) => {$(
        impl Tx for $module::OwnedWriteHalf {
            async fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
                AsyncWriteExt::write_all(self, data).await
            }

            async fn write_last(&mut self, data: &[u8]) -> io::Result<()> {
                AsyncWriteExt::write_all(self, data).await?;
                self.shutdown().await
            }
        }

        impl Rx for $module::OwnedReadHalf {
            async fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                AsyncReadExt::read(self, buf).await
            }
        }
    )*};
}

bare_halves!(tcp, unix);
