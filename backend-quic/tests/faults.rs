//! Networks and peers that fail: a clear error, no hang, and never a short read with a clean end.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{certificate, dial, dial_error, listen, server_config, within};
use mux_api::{Config, ErrorKind, Origin};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_vanishes_in_mid_transfer_is_never_a_clean_end() {
    const LEN: usize = 8 << 20;
    let made = certificate();
    let mut server = server_config(&made);
    server.keepalive = Duration::from_millis(250);
    let listener = Arc::new(listen("quic://127.0.0.1:0", &server).await);
    let accepting = Arc::clone(&listener);
    let serving = tokio::spawn(async move {
        while let Ok(session) = accepting.accept().await {
            tokio::spawn(async move {
                while let Ok(mut channel) = session.accept().await {
                    tokio::spawn(async move {
                        if channel.write_all(&vec![7; LEN]).await.is_ok() {
                            channel.close();
                        }
                    });
                }
            });
        }
    });
    let mut ends = 0;
    // A point in the handshake, in the first packets, and anywhere in the transfer.
    let points = (0..25).map(|at| at * 3).chain((0..25).map(|at| 100 + at * 157));
    let attempts: Vec<_> = points
        .map(|limit| {
            let (url, pin) = (listener.url().to_owned(), made.pin);
            tokio::spawn(async move {
                let relay = Relay::start(address_of(&url), limit, 0).await;
                let mut config = Config::default();
                config.tls.pins = vec![pin];
                config.keepalive = Duration::from_millis(250);
                config.connect_timeout = Duration::from_secs(2);
                let session = match dial(&format!("quic://{}", relay.address), &config).await {
                    Ok(session) => session,
                    Err(error) => {
                        let known = [ErrorKind::TimedOut, ErrorKind::Idle];
                        assert!(known.contains(&error.kind()), "{limit}: {error:?}");
                        return false;
                    }
                };
                let mut channel = session.open().await.expect("opens");
                let (mut total, mut buf) = (0, vec![0; 60_000]);
                let whole = loop {
                    match within(channel.read(&mut buf)).await {
                        Ok(0) => break true,
                        Ok(len) => total += len,
                        Err(error) => {
                            assert_eq!(
                                (error.kind(), error.origin()),
                                (ErrorKind::Idle, Origin::Transport),
                                "{error:?}"
                            );
                            break false;
                        }
                    }
                };
                assert_eq!(whole, total == LEN, "{limit}: a short read with a clean end after {total} bytes");
                if !whole {
                    assert_eq!(within(session.closed()).await.kind(), ErrorKind::Idle);
                    assert!(channel.write_all(b"x").await.is_err());
                    assert!(session.open().await.is_err());
                }
                whole
            })
        })
        .collect();
    for attempt in attempts {
        ends += u32::from(attempt.await.expect("attempt"));
    }
    println!("{ends} transfers were complete before their network went");
    serving.abort();
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
