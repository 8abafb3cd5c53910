//! What lies between a dialer and a listener.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// What a relay does to the datagrams that pass.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// It stops for good after so many.
    pub limit: u64,
    /// It drops one in so many; 0: none.
    pub lose: u64,
    /// Nothing is looked at for so long.
    pub asleep: Duration,
    /// After so many, the listener sees another address of the dialer, as behind a NAT that forgets; 0: never.
    pub rebind: u64,
}

impl Default for Way {
    fn default() -> Self {
        Self { limit: u64::MAX, lose: 0, asleep: Duration::ZERO, rebind: 0 }
    }
}

pub const LARGE: usize = 1000;

/// Datagrams on their way between one dialer and a listener.
pub struct Relay {
    pub address: SocketAddr,
    pub seen: Arc<AtomicU64>,
    /// Addresses that the listener saw.
    pub rebound: Arc<AtomicU64>,
    /// While set, the listener's answers are dropped.
    pub mute: Arc<AtomicBool>,
    /// While set, nothing passes.
    pub shut: Arc<AtomicBool>,
    /// So many of the dialer's datagrams of [`LARGE`] bytes and more are dropped.
    pub lose_large: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Relay {
    pub async fn start(server: SocketAddr, way: Way) -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
        let address = front.local_addr().expect("has an address");
        let [seen, rebound, lose_large] = <[Arc<AtomicU64>; 3]>::default();
        let [mute, shut] = <[Arc<AtomicBool>; 2]>::default();
        let marks = [&seen, &rebound, &lose_large].map(Arc::clone);
        let task = tokio::spawn(run(front, server, way, marks, [&mute, &shut].map(Arc::clone)));
        Self { address, seen, rebound, mute, shut, lose_large, task }
    }
}

async fn behind(server: SocketAddr) -> UdpSocket {
    let back = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
    back.connect(server).await.expect("connects");
    back
}

async fn run(
    front: UdpSocket,
    server: SocketAddr,
    way: Way,
    [seen, rebound, lose_large]: [Arc<AtomicU64>; 3],
    [mute, shut]: [Arc<AtomicBool>; 2],
) {
    tokio::time::sleep(way.asleep).await;
    let mut back = behind(server).await;
    let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
    let mut client = None;
    loop {
        let (forward, len) = tokio::select! {
            read = front.recv_from(&mut up) => match read {
                Ok((len, from)) => { client = Some(from); (true, len) }
                Err(_) => continue,
            },
            read = back.recv(&mut down) => match read { Ok(len) => (false, len), Err(_) => continue },
        };
        if shut.load(Ordering::Relaxed) {
            continue;
        }
        let at = seen.fetch_add(1, Ordering::Relaxed);
        if at >= way.limit {
            std::future::pending::<()>().await;
        }
        if way.lose > 0 && at > 20 && at.is_multiple_of(way.lose) {
            continue;
        }
        if way.rebind > 0 && at > 0 && at.is_multiple_of(way.rebind) {
            back = behind(server).await;
            rebound.fetch_add(1, Ordering::Relaxed);
        }
        let less = |left: u64| left.checked_sub(1);
        if forward && len >= LARGE && lose_large.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok() {
            continue;
        }
        // A full buffer is a lost datagram, as anywhere.
        if forward {
            let _ = back.try_send(&up[..len]);
        } else if let Some(client) = client
            && !mute.load(Ordering::Relaxed)
        {
            let _ = front.try_send_to(&down[..len], client);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn address_of(url: &str) -> SocketAddr {
    url.strip_prefix("quic://").expect("quic").parse().expect("an address")
}
