//! What lies between the two ends of a session: a relay that can be narrow, slow, still, deaf or cut.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mux_api::{Error, Result, Url};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// What a backend's bytes travel in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    Unix,
    Udp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Bytes pass.
    Open,
    /// Bytes wait; what does not fit blocks its sender (or is lost, on UDP).
    Paused,
    /// Bytes vanish: both ends believe that they are on their way.
    BlackHole,
    /// The connection is broken.
    Cut,
}

/// A link between two ends. Clones are handles to the same one.
#[derive(Clone)]
pub(crate) struct Link(Arc<State>);

struct State {
    mode: watch::Sender<Mode>,
    /// Bytes that it holds in each direction.
    capacity: usize,
    /// Bytes a second in each direction; 0: as fast as it goes.
    rate: AtomicU64,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Link {
    /// A link that holds `capacity` bytes in each direction (of what the kernel adds to sockets we are not master).
    pub(crate) fn new(capacity: usize) -> Self {
        let (mode, _) = watch::channel(Mode::Open);
        Self(Arc::new(State { mode, capacity, rate: AtomicU64::new(0), tasks: Mutex::default() }))
    }

    pub(crate) fn pause(&self) {
        self.0.mode.send_replace(Mode::Paused);
    }

    pub(crate) fn resume(&self) {
        self.0.mode.send_replace(Mode::Open);
    }

    pub(crate) fn black_hole(&self) {
        self.0.mode.send_replace(Mode::BlackHole);
    }

    pub(crate) fn cut(&self) {
        self.0.mode.send_replace(Mode::Cut);
    }

    /// Lets so many bytes a second pass in each direction; 0: as fast as it goes.
    pub(crate) fn throttle(&self, bytes_a_second: u64) {
        self.0.rate.store(bytes_a_second, Ordering::Relaxed);
    }

    /// Ends the relay's tasks.
    pub(crate) fn stop(&self) {
        for task in self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let task = tokio::spawn(task).abort_handle();
        self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }

    /// A pipe in memory, through this link.
    pub(crate) fn pipe(&self) -> (DuplexStream, DuplexStream) {
        let (near, near_relay) = tokio::io::duplex(self.0.capacity);
        let (far, far_relay) = tokio::io::duplex(self.0.capacity);
        let link = self.clone();
        self.spawn(async move { link.join(near_relay, far_relay).await });
        (near, far)
    }

    /// Listens beside the listener at `url`; the URL by which it is reached through this link.
    pub(crate) async fn relay(&self, kind: Kind, url: &str) -> Result<String> {
        let parsed = Url::parse(url)?;
        let fail = |error| Error::from_io(format!("a relay to {url}"), error);
        match kind {
            Kind::Unix => {
                let path = parsed.path().to_owned();
                let own = format!("{path}.relay");
                self.relay_unix(&own, path.clone()).map_err(fail)?;
                Ok(url.replacen(&path, &own, 1))
            }
            Kind::Tcp | Kind::Udp => {
                let (host, port) = parsed.host_port()?;
                let target: SocketAddr = tokio::net::lookup_host((host, port))
                    .await
                    .map_err(fail)?
                    .next()
                    .ok_or_else(|| Error::url(format!("URL '{url}' has no address")))?;
                let own = match kind {
                    Kind::Tcp => self.relay_tcp(target).await,
                    _ => self.relay_udp(target).await,
                };
                Ok(url.replacen(parsed.authority(), &own.map_err(fail)?.to_string(), 1))
            }
        }
    }

    async fn relay_tcp(&self, target: SocketAddr) -> io::Result<SocketAddr> {
        let socket = TcpSocket::new_v4()?;
        self.narrow(&socket)?;
        socket.bind((std::net::Ipv4Addr::LOCALHOST, 0).into())?;
        let listener: TcpListener = socket.listen(64)?;
        let own = listener.local_addr()?;
        let link = self.clone();
        self.spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = link.connect_tcp(target).await else { continue };
                let (_, _) = (near.set_nodelay(true), far.set_nodelay(true));
                let inner = link.clone();
                link.spawn(async move { inner.join(near, far).await });
            }
        });
        Ok(own)
    }

    async fn connect_tcp(&self, target: SocketAddr) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        self.narrow(&socket)?;
        socket.connect(target).await
    }

    fn narrow(&self, socket: &TcpSocket) -> io::Result<()> {
        let size = u32::try_from(self.0.capacity).unwrap_or(u32::MAX);
        socket.set_recv_buffer_size(size)?;
        socket.set_send_buffer_size(size)
    }

    fn relay_unix(&self, own: &str, target: String) -> io::Result<()> {
        let listener = UnixListener::bind(own)?;
        let own = Remove(own.to_owned());
        let link = self.clone();
        self.spawn(async move {
            let _own = own;
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = UnixStream::connect(&target).await else { continue };
                let inner = link.clone();
                link.spawn(async move { inner.join(near, far).await });
            }
        });
        Ok(())
    }

    async fn relay_udp(&self, target: SocketAddr) -> io::Result<SocketAddr> {
        let near = Arc::new(UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?);
        let own = near.local_addr()?;
        // One dialer a relay: the first whose packet comes.
        let far = Arc::new(UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?);
        far.connect(target).await?;
        let (dialer, known) = watch::channel(None);
        let (link, from, to) = (self.clone(), Arc::clone(&near), Arc::clone(&far));
        self.spawn(async move {
            let mut buf = vec![0; 65_536];
            while let Ok((len, peer)) = from.recv_from(&mut buf).await {
                dialer.send_replace(Some(peer));
                if link.packet(len).await {
                    let _ = to.send(&buf[..len]).await;
                }
            }
        });
        let link = self.clone();
        self.spawn(async move {
            let mut buf = vec![0; 65_536];
            // An error says that a packet did not reach the target's port: the next may.
            loop {
                let Ok(len) = far.recv(&mut buf).await else {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    continue;
                };
                let peer = *known.borrow();
                if let (true, Some(peer)) = (link.packet(len).await, peer) {
                    let _ = near.send_to(&buf[..len], peer).await;
                }
            }
        });
        Ok(own)
    }

    /// Waits until a packet may go on; `false`: it is lost.
    async fn packet(&self, len: usize) -> bool {
        let mode = self.moving().await;
        self.account(len).await;
        mode == Mode::Open
    }

    /// Waits while the link is paused.
    async fn moving(&self) -> Mode {
        let mut mode = self.0.mode.subscribe();
        let moving = mode.wait_for(|mode| *mode != Mode::Paused).await;
        moving.map_or(Mode::Cut, |mode| *mode)
    }

    async fn until_cut(&self) {
        let _ = self.0.mode.subscribe().wait_for(|mode| *mode == Mode::Cut).await;
    }

    async fn account(&self, len: usize) {
        let rate = self.0.rate.load(Ordering::Relaxed);
        if let Some(micros) = (len as u64 * 1_000_000).checked_div(rate) {
            tokio::time::sleep(Duration::from_micros(micros)).await;
        }
    }

    /// Carries bytes both ways until both directions have ended, one has failed, or the link is cut.
    async fn join<A, B>(&self, near: A, far: B)
    where
        A: AsyncRead + AsyncWrite,
        B: AsyncRead + AsyncWrite,
    {
        let ((near_read, near_write), (far_read, far_write)) = (tokio::io::split(near), tokio::io::split(far));
        let both = async {
            let _ = tokio::try_join!(self.carry(near_read, far_write), self.carry(far_read, near_write));
        };
        tokio::select! {
            () = both => {}
            () = self.until_cut() => {}
        }
    }

    async fn carry(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
        let mut buf = vec![0; self.0.capacity];
        loop {
            self.moving().await;
            let len = from.read(&mut buf).await?;
            if self.moving().await == Mode::BlackHole {
                if len == 0 {
                    return std::future::pending().await;
                }
                continue;
            }
            if len == 0 {
                return to.shutdown().await;
            }
            self.account(len).await;
            to.write_all(&buf[..len]).await?;
        }
    }
}

/// A socket's name, removed when its relay ends.
struct Remove(String);

impl Drop for Remove {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
