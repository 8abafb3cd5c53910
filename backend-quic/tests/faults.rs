//! Networks and peers that fail: a clear error, no hang, and never a short read with a clean end.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{certificate, dial, dial_error, listen, server_config, within};
use mux_api::{Channel, Config, Error, ErrorKind, OpenOptions, Origin};
use tokio::net::UdpSocket;
use tokio::task::{JoinHandle, JoinSet};

/// Datagrams on their way between one client and a server. It stops for good after `limit` of them.
struct Relay {
    address: SocketAddr,
    seen: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Drops one datagram in `lose` (0: none).
    async fn start(server: SocketAddr, limit: u64, lose: u64) -> Self {
        Self::run(server, limit, lose, Duration::ZERO).await
    }

    /// Nothing is looked at for so long.
    async fn start_after(server: SocketAddr, asleep: Duration) -> Self {
        Self::run(server, u64::MAX, 0, asleep).await
    }

    async fn run(server: SocketAddr, limit: u64, lose: u64, asleep: Duration) -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
        let back = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
        back.connect(server).await.expect("connects");
        let address = front.local_addr().expect("has an address");
        let seen = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            tokio::time::sleep(asleep).await;
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
                let at = count.fetch_add(1, Ordering::Relaxed);
                if at >= limit {
                    std::future::pending::<()>().await;
                }
                if lose > 0 && at > 20 && at.is_multiple_of(lose) {
                    continue;
                }
                // A full buffer is a lost datagram, as anywhere.
                if forward {
                    let _ = back.try_send(&up[..len]);
                } else if let Some(client) = client {
                    let _ = front.try_send_to(&down[..len], client);
                }
            }
        });
        Self { address, seen, task }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn address_of(url: &str) -> SocketAddr {
    url.strip_prefix("quic://").expect("quic").parse().expect("an address")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_port_refuses_and_a_silent_one_times_out() {
    let mut config = Config::default();
    config.tls.insecure = true;
    for host in ["127.0.0.1", "[::1]", "localhost"] {
        let any = if host == "[::1]" { "[::1]:0" } else { "127.0.0.1:0" };
        let Ok(socket) = UdpSocket::bind(any).await else { continue };
        let port = socket.local_addr().expect("has an address").port();
        drop(socket);
        let error = dial_error(&format!("quic://{host}:{port}"), &config).await;
        assert_eq!((error.kind(), error.is_retry_safe()), (ErrorKind::Refused, true), "{error:?}");
        assert!(error.message().contains(&port.to_string()), "{error}");
    }
    // One that is bound, and says nothing.
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
    let address = socket.local_addr().expect("has an address");
    config.connect_timeout = Duration::from_millis(700);
    let error = dial_error(&format!("quic://{address}"), &config).await;
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error:?}");
    assert!(error.message().contains(&address.to_string()) && error.message().contains("700ms"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_is_slow_to_answer_is_not_taken_for_closed() {
    let made = certificate();
    let listener = listen("quic://127.0.0.1:0", &server_config(&made)).await;
    let relay = Relay::start_after(address_of(listener.url()), Duration::from_millis(400)).await;
    let mut config = Config::default();
    config.tls.pins = vec![made.pin];
    dial(&format!("quic://{}", relay.address), &config).await.expect("dials");
}

/// What a transfer is made of.
const LEN: usize = 2 << 20;

/// Silence; or, where the peer has noticed it earlier on a busy machine and a last packet found it gone, that.
fn is_lost(error: &Error) -> bool {
    error.origin() == Origin::Transport && matches!(error.kind(), ErrorKind::Idle | ErrorKind::Closed)
}

/// Reads to the end, or to the error, of a transfer whose network went: whether it was whole.
async fn read_whole(channel: &mut Channel, at: u64) -> bool {
    let (mut total, mut buf) = (0, vec![0; 60_000]);
    let whole = loop {
        match within(channel.read(&mut buf)).await {
            Ok(0) => break true,
            Ok(len) => total += len,
            Err(error) => {
                assert!(is_lost(&error), "{at}: {error:?}");
                break false;
            }
        }
    };
    assert!(!whole || total == LEN, "{at}: a short read with a clean end after {total} bytes");
    whole
}

async fn write_whole(channel: &mut Channel) -> bool {
    let written = within(channel.write_all(&vec![7; LEN])).await.and_then(|()| channel.finish());
    written.is_ok() && within(channel.send_half().ended()).await.is_ok()
}

/// A session through a relay that dies after `limit` datagrams, in mid-transfer one way or the other.
async fn transfer_until(url: String, pin: [u8; 32], limit: u64) {
    let relay = Relay::start(address_of(&url), limit, 0).await;
    let mut config = Config::default();
    config.tls.pins = vec![pin];
    config.keepalive = Duration::from_millis(250);
    config.connect_timeout = Duration::from_secs(2);
    let session = match dial(&format!("quic://{}", relay.address), &config).await {
        Ok(session) => session,
        Err(error) => {
            assert!(error.kind() == ErrorKind::TimedOut || is_lost(&error), "{limit}: {error:?}");
            return;
        }
    };
    let label = if limit.is_multiple_of(2) { "down" } else { "up" };
    let mut channel = session.open_with(&OpenOptions::new().label(label)).await.expect("opens");
    let whole = if label == "down" { read_whole(&mut channel, limit).await } else { write_whole(&mut channel).await };
    if !whole {
        assert!(is_lost(&within(session.closed()).await));
        assert!(channel.write_all(b"x").await.is_err());
        assert!(session.open().await.is_err());
    }
}

async fn peers_vanish(points: usize) {
    let made = certificate();
    let mut server = server_config(&made);
    server.keepalive = Duration::from_millis(250);
    let listener = Arc::new(listen("quic://127.0.0.1:0", &server).await);
    let accepting = Arc::clone(&listener);
    let serving = tokio::spawn(async move {
        let mut sessions = JoinSet::new();
        while let Ok(session) = accepting.accept().await {
            sessions.spawn(async move {
                while let Ok(mut channel) = session.accept().await {
                    if &channel.label()[..] == b"down" {
                        write_whole(&mut channel).await;
                    } else {
                        read_whole(&mut channel, 0).await;
                    }
                }
                assert!(matches!(session.closed().await.kind(), ErrorKind::Idle | ErrorKind::Closed));
            });
        }
        sessions
    });
    let mut seed = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_nanos() as u64 | 1;
    println!("seed {seed}");
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    for _ in 0..points / 25 {
        let mut attempts = JoinSet::new();
        for at in 0..25 {
            // In the handshake, in the first packets, anywhere in the transfer.
            let limit = [random(20), random(100), random(2000)][at % 3];
            attempts.spawn(transfer_until(listener.url().to_owned(), made.pin, limit));
        }
        while let Some(attempt) = attempts.join_next().await {
            attempt.expect("attempt");
        }
    }
    listener.close();
    let mut sessions = within(serving).await.expect("serving");
    while let Some(session) = within(sessions.join_next()).await {
        session.expect("the listener's side of an attempt");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_vanishes_in_mid_transfer_is_never_a_clean_end() {
    peers_vanish(100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute"]
async fn a_peer_that_vanishes_at_a_thousand_points_is_never_a_clean_end() {
    peers_vanish(1000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lossy_link_loses_nothing() {
    let made = certificate();
    let listener = listen("quic://127.0.0.1:0", &server_config(&made)).await;
    let relay = Relay::start(address_of(listener.url()), u64::MAX, 37).await;
    let mut config = Config::default();
    config.tls.pins = vec![made.pin];
    let client = dial(&format!("quic://{}", relay.address), &config).await.expect("dials");
    let server = within(listener.accept()).await.expect("accepts");
    within(async {
        let writing = tokio::spawn(async move {
            for at in 0..20u8 {
                let mut channel = client.open().await.expect("opens");
                channel.write_all(&vec![at; 50_000]).await.expect("writes");
                channel.close();
            }
            client.close(0, "").expect("closes");
            client.closed().await
        });
        let mut seen = Vec::new();
        for _ in 0..20 {
            let mut channel = server.accept().await.expect("accepts");
            let (mut all, mut buf) = (Vec::new(), vec![0; 60_000]);
            loop {
                match channel.read(&mut buf).await.expect("reads") {
                    0 => break,
                    len => all.extend_from_slice(&buf[..len]),
                }
            }
            assert_eq!(all.len(), 50_000);
            assert!(all.iter().all(|byte| *byte == all[0]));
            seen.push(all[0]);
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..20).collect::<Vec<_>>());
        assert_eq!(writing.await.expect("writer").origin(), Origin::Local);
        assert_eq!(server.closed().await.origin(), Origin::Peer);
        assert!(relay.seen.load(Ordering::Relaxed) > 100);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_listener_refuses_at_once_and_says_that_retrying_is_safe() {
    let made = certificate();
    let mut server = server_config(&made);
    server.max_sessions = 1;
    let listener = listen("quic://127.0.0.1:0", &server).await;
    let mut config = Config::default();
    config.tls.pins = vec![made.pin];
    let first = dial(listener.url(), &config).await.expect("dials");
    let error = dial_error(listener.url(), &config).await;
    assert_eq!((error.kind(), error.is_retry_safe()), (ErrorKind::Refused, true), "{error}");
    let accepted = within(listener.accept()).await.expect("accepts");
    first.close(0, "").expect("closes");
    within(first.closed()).await;
    within(accepted.closed()).await;
    // The place becomes free with the transport.
    within(async {
        while dial(listener.url(), &config).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_session_ends_when_it_was_asked_to() {
    let made = certificate();
    let listener = listen("quic://127.0.0.1:0?idle=300ms", &server_config(&made)).await;
    let mut config = Config::default();
    config.tls.pins = vec![made.pin];
    let client = dial(listener.url(), &config).await.expect("dials");
    let server = within(listener.accept()).await.expect("accepts");
    let cause = within(server.closed()).await;
    assert_eq!((cause.kind(), cause.origin()), (ErrorKind::Idle, Origin::Local));
    assert_eq!(within(client.closed()).await.origin(), Origin::Peer);
}
