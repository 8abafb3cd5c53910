//! Networks and peers that fail: a clear error, no hang, and never a short read with a clean end.

mod common;

use std::future::poll_fn;
use std::io::IoSlice;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use common::relay::{LARGE, Relay, Way, address_of};
use common::{certificate, dial, dial_error, listen, pair, server_config, within};
use mux_api::{Config, ErrorKind, Listener, OpenOptions, Origin, Session, WriteFlags};
use tokio::net::UdpSocket;

/// Both ends of a session through a relay.
async fn relayed(way: Way) -> (Session, Session, Listener, Relay) {
    let made = certificate();
    let listener = listen("quic://127.0.0.1:0", &server_config(&made)).await;
    let relay = Relay::start(address_of(listener.url()), way).await;
    let mut config = Config::default();
    config.tls.pins = vec![made.pin];
    let client = dial(&format!("quic://{}", relay.address), &config).await.expect("dials");
    let server = within(listener.accept()).await.expect("accepts");
    (client, server, listener, relay)
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
    relayed(Way { asleep: Duration::from_millis(400), ..Way::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_packet_delays_only_the_channel_whose_bytes_it_carried() {
    const CHANNELS: u8 = 20;
    let (client, server, _listener, relay) = relayed(Way::default()).await;
    within(async {
        let (came, mut order) = tokio::sync::mpsc::unbounded_channel();
        let mut channels = Vec::new();
        for at in 0..CHANNELS {
            let mut near = client.open().await.expect("opens");
            near.write_all(b"?").await.expect("writes");
            let mut far = server.accept().await.expect("accepts");
            far.read(&mut [0]).await.expect("reads");
            channels.push(near);
            let came = came.clone();
            tokio::spawn(async move {
                far.read(&mut [0]).await.expect("reads");
                came.send(at).expect("somebody listens");
                far
            });
        }
        // What the path's MTU is tried with is as large.
        client.ping().await.expect("answers");
        // It is lost, and so are its first repetitions.
        relay.lose_large.store(5, Ordering::Relaxed);
        channels[0].write_all(&[7; LARGE]).await.expect("writes");
        while relay.lose_large.load(Ordering::Relaxed) == 5 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for near in &mut channels[1..] {
            near.write_all(b"!").await.expect("writes");
        }
        let mut overtook = 0;
        while order.recv().await.expect("all come") != 0 {
            overtook += 1;
        }
        assert!(overtook >= usize::from(CHANNELS / 2), "{overtook} came before the one that was lost");
    })
    .await;
}

/// The send window frees room in no fair order: a preface that waited for it could stay behind while later channels filled
/// theirs, and a ping too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prefaces_and_records_wait_for_nothing_that_others_have_on_their_way() {
    const CHANNELS: usize = 60;
    let (client, server, _listener, relay) = relayed(Way::default()).await;
    relay.shut.store(true, Ordering::Relaxed);
    within(async {
        let block = vec![7; 64 * 1024];
        let mut channels = Vec::new();
        for at in 0..CHANNELS {
            let options = OpenOptions::new().label(at.to_be_bytes().to_vec());
            let mut near = client.open_with(&options).await.expect("opens");
            let known = poll_fn(|cx| Poll::Ready(near.send_half().poll_flush(cx))).await;
            assert!(matches!(known, Poll::Ready(Ok(()))), "the preface of channel {at} waits");
            // As much as it takes: a window of 1 MiB, and of all of them 16 MiB.
            let mut full = false;
            while !full {
                let block = [IoSlice::new(&block)];
                let wrote = poll_fn(|cx| Poll::Ready(near.send_half().poll_write(cx, &block, WriteFlags::NONE))).await;
                full = wrote.map_err(|error| panic!("{error}")).is_pending();
            }
            channels.push(near);
        }
        relay.shut.store(false, Ordering::Relaxed);
        let (pinged, accepted) = tokio::join!(client.ping(), async {
            let mut accepted = Vec::new();
            while accepted.len() < CHANNELS {
                accepted.push(server.accept().await.expect("accepts").label().to_vec());
            }
            accepted
        });
        pinged.expect("answers");
        let mut seen = accepted;
        seen.sort_unstable();
        assert!(seen.into_iter().eq((0..CHANNELS).map(|at| at.to_be_bytes().to_vec())));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_writes_are_copied_only_while_the_peer_takes_nothing() {
    let (client, server, _listener) = pair("window=64k").await;
    let block = [7; 64 * 1024];
    within(async {
        let mut near = client.open().await.expect("opens");
        let mut far = server.accept().await.expect("accepts");
        let (mut wrote, mut read, mut buf) = (0, 0, [0; 16 * 1024]);
        // Nobody reads: after a while, the buffer fills.
        while near.send_half().room() > 0 {
            wrote += near.send_half().write(&block).await.expect("writes");
        }
        // As soon as something is taken, a write waits: else what follows would be copied for ever.
        while near.send_half().room() == 0 {
            read += far.read(&mut buf).await.expect("reads");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let slices = [IoSlice::new(&block)];
        let asked = poll_fn(|cx| Poll::Ready(near.send_half().poll_write(cx, &slices, WriteFlags::NONE))).await;
        assert!(asked.is_pending() && near.send_half().buffered() > 0, "{asked:?}");
        let mut bytes = Bytes::from(vec![7; 64 * 1024]);
        let asked = poll_fn(|cx| Poll::Ready(near.send_half().poll_write_bytes(cx, &mut bytes))).await;
        assert!(asked.is_pending(), "{asked:?}");
        // Not for long.
        wrote += near.send_half().write(&block).await.expect("writes");
        near.close();
        while read < wrote {
            read += far.read(&mut buf).await.expect("reads");
        }
        assert_eq!((far.read(&mut buf).await.expect("ends"), read), (0, wrote));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lossy_link_loses_nothing() {
    let (client, server, _listener, relay) = relayed(Way { lose: 37, ..Way::default() }).await;
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
