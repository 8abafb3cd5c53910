//! Small writes that are gathered, and small reads that are served from what was lent: nothing is lost, moved or forgotten.
//! One thread: the driver runs only while a test waits, so what is gathered, and when, is the same every time.

use std::future::Future;
use std::time::Duration;

use backend_qmux::Qmux;
use mux_api::{Capabilities, Channel, Config, ErrorKind, Role, Session, SessionInfo};
use mux_driver::{Profile, Stream, establish};
use tokio::io::{DuplexStream, duplex, split};

const SMALL: usize = 64;

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("finishes in time")
}

async fn session(io: DuplexStream, role: Role, config: &Config) -> Session {
    let (reader, writer) = split(io);
    let stream = Stream { reader: Box::new(reader), writer: Box::new(writer), guard: None };
    let profile = Profile { wire: Qmux, extension: Some(true), capabilities: |_| Capabilities::none() };
    establish(stream, profile, SessionInfo::new(role, "test"), config).await.expect("is established")
}

struct Pair {
    near: Session,
    _far: Session,
    a: Channel,
    b: Channel,
}

async fn pair(config: &Config) -> Pair {
    let (near, far) = duplex(64 * 1024);
    let (near, far) = tokio::join!(session(near, Role::Client, config), session(far, Role::Server, config));
    let mut a = near.open().await.expect("opens");
    let b = far.accept().await.expect("accepts");
    a.opened().await.expect("is confirmed");
    Pair { near, _far: far, a, b }
}

/// Bytes by which every place of a stream is known.
fn numbered(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|at| (at % 251) as u8).collect()
}

/// Writes so many small pieces, of which all but the first few are gathered.
async fn burst(channel: &mut Channel, from: usize, count: usize) -> usize {
    for at in 0..count {
        channel.write_all(&numbered(from + at * SMALL, SMALL)).await.expect("writes");
    }
    from + count * SMALL
}

async fn read_exactly(channel: &mut Channel, from: usize, len: usize) {
    let (mut got, mut buf) = (Vec::new(), vec![0; 10_000]);
    while got.len() < len {
        let count = channel.read(&mut buf).await.expect("reads");
        assert!(count > 0, "ends after {}", got.len());
        got.extend_from_slice(&buf[..count]);
    }
    assert!(got == numbered(from, len), "other bytes, or in another order");
}

#[tokio::test]
async fn a_burst_goes_out_without_another_call() {
    within(async {
        let mut pair = pair(&Config::default()).await;
        let written = burst(&mut pair.a, 0, 1000).await;
        assert!(pair.a.send_half().burst().is_some(), "it was gathered");
        read_exactly(&mut pair.b, 0, written).await;
        let more = burst(&mut pair.a, written, 1000).await;
        read_exactly(&mut pair.b, written, more - written).await;
    })
    .await;
}

#[tokio::test]
async fn what_was_gathered_goes_before_what_follows() {
    within(async {
        let mut pair = pair(&Config::default()).await;
        let reader = tokio::spawn(async move {
            let (mut all, mut buf) = (Vec::new(), vec![0; 10_000]);
            while let count @ 1.. = pair.b.read(&mut buf).await.expect("reads") {
                all.extend_from_slice(&buf[..count]);
            }
            all
        });
        let mut at = 0;
        for large in [5_000, 100_000, 1_025, 4_096] {
            at = burst(&mut pair.a, at, 20).await;
            pair.a.write_all(&numbered(at, large)).await.expect("writes");
            at += large;
            at = burst(&mut pair.a, at, 20).await;
            pair.a.send_half().write_bytes(numbered(at, large).into()).await.expect("writes");
            at += large;
        }
        at = burst(&mut pair.a, at, 20).await;
        pair.a.finish().expect("ends");
        assert!(reader.await.expect("reads") == numbered(0, at));
    })
    .await;
}

#[tokio::test]
async fn a_flush_and_what_is_told_include_what_was_gathered() {
    within(async {
        let mut pair = pair(&Config::default()).await;
        burst(&mut pair.a, 0, 100).await;
        assert!(pair.a.send_half().buffered() > 50 * SMALL, "little was gathered");
        burst(&mut pair.a, 100 * SMALL, 100).await;
        assert!(pair.near.stats().send_buffered > 150 * SMALL as u64);
        burst(&mut pair.a, 200 * SMALL, 100).await;
        pair.a.send_half().flush().await.expect("is taken");
        assert_eq!(pair.a.send_half().buffered(), 0);
        burst(&mut pair.a, 300 * SMALL, 100).await;
        pair.near.flush().await.expect("is taken");
        assert_eq!(pair.near.stats().send_buffered, 0);
        read_exactly(&mut pair.b, 0, 400 * SMALL).await;
    })
    .await;
}

#[tokio::test]
async fn nothing_is_gathered_after_an_end() {
    within(async {
        type End = fn(&mut Pair);
        let ends: [End; 4] = [
            |pair| pair.a.finish().expect("ends"),
            |pair| pair.a.send_half().reset(7).expect("ends"),
            |pair| pair.near.close(0, "").expect("ends"),
            |pair| pair.near.abort(0).expect("ends"),
        ];
        for end in ends {
            let mut pair = pair(&Config::default()).await;
            burst(&mut pair.a, 0, 100).await;
            let gathers = pair.a.send_half().burst().expect("it was gathered");
            assert!(gathers.take(b"x"), "before");
            end(&mut pair);
            assert!(!gathers.take(b"x"), "after");
            assert!(pair.a.send_half().write(b"x").await.is_err());
        }
        let mut pair = pair(&Config::default()).await;
        burst(&mut pair.a, 0, 100).await;
        let gathers = pair.a.send_half().burst().expect("it was gathered");
        drop(pair.a);
        assert!(!gathers.take(b"x"), "its half is gone");
    })
    .await;
}

#[tokio::test]
async fn a_writer_of_small_pieces_learns_that_the_peer_stopped() {
    within(async {
        let mut pair = pair(&Config::default()).await;
        pair.b.recv_half().stop(9).expect("stops");
        let error = loop {
            if let Err(error) = pair.a.send_half().write(&[1; SMALL]).await {
                break error;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!((error.kind(), error.code()), (ErrorKind::Stopped, Some(9)));
    })
    .await;
}

#[tokio::test]
async fn one_that_writes_small_pieces_waits_for_its_reader() {
    within(async {
        let mut pair = pair(&Config::default()).await;
        let mut written = 0;
        // Nobody reads: window, buffers and transport are full at some time, whatever is gathered.
        while tokio::time::timeout(Duration::from_millis(200), pair.a.write_all(&numbered(written, SMALL)))
            .await
            .is_ok()
        {
            written += SMALL;
            assert!(written < 64 << 20, "no end");
        }
        read_exactly(&mut pair.b, 0, written).await;
    })
    .await;
}

#[tokio::test]
async fn small_reads_miss_nothing_and_give_their_credit_back() {
    within(async {
        let mut config = Config::default();
        config.window = 16 * 1024;
        let mut pair = pair(&config).await;
        const ALL: usize = 300_000;
        let writer = tokio::spawn(async move {
            pair.a.write_all(&numbered(0, ALL)).await.expect("writes");
            pair.a.finish().expect("ends");
            pair.a
        });
        let (mut got, mut buf, mut turn) = (Vec::new(), vec![0; 700], 0);
        loop {
            turn += 1;
            if turn % 7 == 0 {
                match pair.b.recv_half().read_bytes(turn % 100 + 1).await.expect("reads") {
                    Some(bytes) => got.extend_from_slice(&bytes),
                    None => break,
                }
                continue;
            }
            let count = pair.b.read(&mut buf[..turn % 600 + 1]).await.expect("reads");
            if count == 0 {
                break;
            }
            got.extend_from_slice(&buf[..count]);
        }
        assert!(got == numbered(0, ALL));
        drop(writer.await);
    })
    .await;
}

#[tokio::test]
async fn what_was_lent_counts_as_waiting_until_it_is_read() {
    within(async {
        let mut pair = pair(&Config::default()).await;
        pair.a.write_all(&numbered(0, 3000)).await.expect("writes");
        while pair.b.recv_half().buffered() < 3000 {
            tokio::task::yield_now().await;
        }
        let mut buf = [0; SMALL];
        assert_eq!(pair.b.read(&mut buf).await.expect("reads"), SMALL);
        assert_eq!(pair.b.recv_half().buffered(), 3000 - SMALL);
        assert_eq!(pair.b.read(&mut buf).await.expect("reads"), SMALL);
        assert_eq!(pair.b.recv_half().buffered(), 3000 - 2 * SMALL);
        pair.b.recv_half().stop(3).expect("stops");
        assert_eq!(pair.b.recv_half().buffered(), 0);
        assert_eq!(pair.b.read(&mut buf).await.expect_err("stopped").kind(), ErrorKind::Finished);
    })
    .await;
}
