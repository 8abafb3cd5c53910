//! The contract of sessions and channels over QUIC.

mod common;

use std::time::Duration;

use common::{idle, pair, within};
use mux_api::{Capabilities, ErrorKind, OpenOptions, Priority, codes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_open_and_echo() {
    let (client, server, _listener) = pair("").await;
    for (opener, acceptor) in [(client.clone(), server.clone()), (server, client)] {
        within(async {
            let options = OpenOptions::new().label("rpc").priority(Priority::new(1, true).expect("in range"));
            let mut near = opener.open_with(&options).await.expect("opens");
            let mut far = acceptor.accept().await.expect("accepts");
            assert_eq!((&far.label()[..], far.id()), (&b"rpc"[..], near.id()));
            assert!(opener.capabilities().contains(Capabilities::RESET_CODE | Capabilities::LABEL));
            near.write_all(b"hello").await.expect("writes");
            near.finish().expect("finishes");
            let mut buf = [0; 64];
            let len = far.read(&mut buf).await.expect("reads");
            assert_eq!(&buf[..len], b"hello");
            assert_eq!(far.read(&mut buf).await.expect("end"), 0);
            assert_eq!(far.read(&mut buf).await.expect("end stays"), 0);
            far.write_all(b"world").await.expect("other direction goes on");
            far.finish().expect("finishes");
            assert_eq!(far.finish().expect_err("twice").kind(), ErrorKind::Finished);
            let len = near.read(&mut buf).await.expect("reads");
            assert_eq!(&buf[..len], b"world");
            assert_eq!(near.read(&mut buf).await.expect("end"), 0);
            near.send_half().ended().await.expect("the peer has it all");
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_opens_first_and_the_client_sees_it_before_any_byte() {
    let (client, server, _listener) = pair("").await;
    within(async {
        let _near = server.open_with(&OpenOptions::new().label("first")).await.expect("opens");
        let far = client.accept().await.expect("accepts");
        assert_eq!(&far.label()[..], b"first");
        let silent = client.open().await.expect("opens");
        let seen = server.accept().await.expect("seen without a byte");
        assert_eq!(seen.id(), silent.id());
        assert!(client.ping().await.expect("pings") < Duration::from_secs(10));
        server.ping().await.expect("pings from the other side");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_arrives_whole_in_both_directions() {
    const LEN: usize = 64 << 20;
    let (client, server, _listener) = pair("").await;
    let near = client.open().await.expect("opens");
    let far = server.accept().await.expect("accepts");
    let ((mut s1, mut r1), (mut s2, mut r2)) = (near.split(), far.split());
    let pattern = |at: usize| (at.wrapping_mul(2654435761) >> 7) as u8;
    let data: Vec<u8> = (0..LEN).map(pattern).collect();
    let send = tokio::spawn(async move {
        // Sizes that take every path of a write: small, gathered, large.
        let (mut rest, mut size) = (&data[..], 1);
        while !rest.is_empty() {
            let len = size.min(rest.len());
            s1.write_all(&rest[..len]).await.expect("writes");
            rest = &rest[len..];
            size = if size > 150_000 { 1 } else { size * 3 };
        }
        s1.finish().expect("finishes");
        s1
    });
    let echo = tokio::spawn(async move {
        while let Some(bytes) = r2.read_bytes(usize::MAX).await.expect("reads") {
            s2.write_bytes(bytes).await.expect("echoes");
        }
        s2.finish().expect("finishes");
    });
    let mut buf = vec![0; 70_000];
    let mut at = 0;
    let began = std::time::Instant::now();
    within(async {
        loop {
            let len = r1.read(&mut buf).await.expect("reads");
            if len == 0 {
                break;
            }
            for (i, byte) in buf[..len].iter().enumerate() {
                assert_eq!(*byte, pattern(at + i), "at {}", at + i);
            }
            at += len;
        }
    })
    .await;
    println!("{} MB/s", LEN as f64 / began.elapsed().as_secs_f64() / 1e6);
    assert_eq!(at, LEN);
    drop(send.await.expect("sender"));
    echo.await.expect("echo");
    drop(r1);
    idle(&[&client, &server]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codes_travel_whole() {
    let (client, server, _listener) = pair("").await;
    for code in [0, 1 << 32, codes::LIBRARY_FIRST - 1] {
        within(async {
            let (mut s1, mut r1) = client.open().await.expect("opens").split();
            s1.write_all(b"partial").await.expect("writes");
            let (mut s2, mut r2) = server.accept().await.expect("accepts").split();
            s1.reset(code).expect("resets");
            let mut buf = [0; 64];
            let error = loop {
                match r2.read(&mut buf).await {
                    Ok(0) => panic!("a reset is never an end"),
                    Ok(_) => {}
                    Err(error) => break error,
                }
            };
            assert_eq!((error.kind(), error.code()), (ErrorKind::Reset, Some(code)));
            assert_eq!(r2.read(&mut buf).await.expect_err("stays").code(), Some(code));
            r1.stop(code).expect("stops");
            assert_eq!(r1.read(&mut buf).await.expect_err("stopped").kind(), ErrorKind::Finished);
            let error = s2.ended().await.expect_err("the peer stopped us");
            assert_eq!((error.kind(), error.code()), (ErrorKind::Stopped, Some(code)));
            assert_eq!(s2.write_all(b"x").await.expect_err("stays").code(), Some(code));
        })
        .await;
    }
    assert!(client.open().await.expect("opens").abort(codes::DROPPED).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_right_after_the_open_keeps_the_label_and_the_other_direction() {
    const COUNT: usize = 600;
    let (client, server, _listener) = pair("max_channels=2000").await;
    let label = |at: usize| vec![at as u8; [0, 5, 1024][at % 3]];
    for (opener, acceptor) in [(client.clone(), server.clone()), (server.clone(), client.clone())] {
        within(async {
            let answering = tokio::spawn(async move {
                for _ in 0..COUNT {
                    let mut far = acceptor.accept().await.expect("accepts");
                    let label = far.label().clone();
                    let error = loop {
                        match far.read(&mut [0; 512]).await {
                            Ok(0) => panic!("a reset is never an end"),
                            Ok(_) => {}
                            Err(error) => break error,
                        }
                    };
                    assert_eq!(error.kind(), ErrorKind::Reset, "{error}");
                    let code = error.code().expect("has a code").to_be_bytes();
                    // Who aborted both directions hears no answer.
                    if far.write_all(&[&code, &label[..]].concat()).await.is_ok() {
                        far.close();
                    }
                }
            });
            let mut channels = Vec::new();
            for at in 0..COUNT {
                let mut near = opener.open_with(&OpenOptions::new().label(label(at))).await.expect("opens");
                // With and without bytes of its own, and halves that are dropped instead.
                if at % 2 == 0 {
                    near.write_all(&vec![1; at]).await.expect("writes");
                }
                if at % 5 == 0 {
                    near.abort(at as u64).expect("aborts");
                } else {
                    near.send_half().reset(at as u64).expect("resets");
                    channels.push((at, near));
                }
                if at % 100 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            for (at, mut near) in channels {
                let (mut answer, mut buf) = (Vec::new(), [0; 2048]);
                loop {
                    match near.read(&mut buf).await.unwrap_or_else(|error| panic!("{at}: {error}")) {
                        0 => break,
                        len => answer.extend_from_slice(&buf[..len]),
                    }
                }
                assert_eq!(answer, [&(at as u64).to_be_bytes(), &label(at)[..]].concat());
            }
            answering.await.expect("answering");
        })
        .await;
    }
    idle(&[&client, &server]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_channels_echo_and_leave_nothing() {
    const COUNT: u64 = 2000;
    let (client, server, _listener) = pair("max_channels=2000").await;
    within(async {
        let accepting = tokio::spawn(async move {
            let mut channels = Vec::new();
            for _ in 0..COUNT {
                channels.push(server.accept().await.expect("accepts"));
            }
            for channel in &mut channels {
                let mut buf = [0; 8];
                assert_eq!(channel.read(&mut buf).await.expect("reads"), 8);
                channel.write_all(&buf).await.expect("writes");
                channel.finish().expect("finishes");
                assert_eq!(channel.read(&mut buf).await.expect("end"), 0);
            }
            server
        });
        let mut channels = Vec::new();
        for at in 0..COUNT {
            let mut channel = client.open().await.expect("opens");
            channel.write_all(&at.to_be_bytes()).await.expect("writes");
            channels.push(channel);
        }
        for (at, channel) in channels.iter_mut().enumerate() {
            let mut buf = [0; 8];
            assert_eq!(channel.read(&mut buf).await.expect("reads"), 8);
            assert_eq!(u64::from_be_bytes(buf), at as u64);
            channel.finish().expect("finishes");
            assert_eq!(channel.read(&mut buf).await.expect("end"), 0);
        }
        drop(channels);
        let server = accepting.await.expect("accepting");
        idle(&[&client, &server]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_channels_stall_only_themselves() {
    let (client, server, _listener) = pair("window=64k").await;
    for (writer, reader) in [(client.clone(), server.clone()), (server.clone(), client.clone())] {
        within(async {
            let mut unread = Vec::new();
            for _ in 0..200 {
                let mut near = writer.open().await.expect("opens");
                let far = reader.accept().await.expect("accepts");
                let filling = tokio::spawn(async move {
                    let _ = near.write_all(&vec![1; 1 << 20]).await;
                });
                unread.push((far, filling));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            let mut near = writer.open().await.expect("opens");
            let mut far = reader.accept().await.expect("accepts");
            let moving = tokio::spawn(async move {
                near.write_all(&vec![2; 4 << 20]).await.expect("writes");
                near.finish().expect("finishes");
                near.send_half().ended().await.expect("arrives");
            });
            let (mut total, mut buf) = (0, vec![0; 65_536]);
            loop {
                match far.read(&mut buf).await.expect("reads") {
                    0 => break,
                    len => total += len,
                }
            }
            assert_eq!(total, 4 << 20);
            moving.await.expect("moving");
            assert!(unread.iter().all(|(_, filling)| !filling.is_finished()));
            for (far, filling) in unread {
                drop(far);
                filling.await.expect("stops when its reader is gone");
            }
        })
        .await;
    }
    idle(&[&client, &server]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_beyond_the_limit_waits_and_one_beyond_the_backlog_is_refused() {
    let (client, server, _listener) = pair("max_channels=200").await;
    within(async {
        let mut channels = Vec::new();
        let mut refused = 0;
        for _ in 0..200 {
            channels.push(client.open().await.expect("opens"));
        }
        assert_eq!(client.try_open(&OpenOptions::new()).expect_err("no credit").kind(), ErrorKind::Blocked);
        // The backlog holds 128.
        for channel in &mut channels[128..] {
            let error = channel.read(&mut [0]).await.expect_err("refused");
            assert_eq!(
                (error.kind(), error.code(), error.is_retry_safe()),
                (ErrorKind::Refused, Some(codes::REFUSED), true)
            );
            refused += 1;
        }
        assert_eq!(refused, 72);
        drop(channels.split_off(128));
        // Their slots are free again.
        for _ in 0..72 {
            server.accept().await.expect("accepts").close();
            channels.push(client.open().await.expect("opens"));
        }
        let waiting = client.clone();
        let waiting = tokio::spawn(async move { waiting.open().await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(channels);
        waiting.await.expect("task").expect("opens once there is room");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_channel_that_ends_lets_another_in() {
    let (client, server, _listener) = pair("max_channels=100").await;
    for (opener, acceptor) in [(client.clone(), server.clone()), (server, client)] {
        within(async {
            let (mut near, mut far) = (Vec::new(), Vec::new());
            for _ in 0..100 {
                near.push(opener.open().await.expect("opens"));
                far.push(acceptor.accept().await.expect("accepts"));
            }
            for at in 0..20 {
                assert_eq!(opener.try_open(&OpenOptions::new()).expect_err("full").kind(), ErrorKind::Blocked);
                let (near_end, far_end) = (near.remove(at), far.remove(at));
                if at % 2 == 0 {
                    near_end.close();
                    far_end.close();
                } else {
                    drop((far_end, near_end));
                }
                near.push(opener.open().await.expect("opens once there is room"));
                far.push(acceptor.accept().await.expect("accepts"));
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_and_urgencies_have_bounds() {
    let (client, _server, _listener) = pair("").await;
    let long = OpenOptions::new().label(vec![0; 1025]);
    assert_eq!(client.open_with(&long).await.expect_err("too long").kind(), ErrorKind::TooBig);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_small_writes_arrives_in_order_and_a_lone_one_at_once() {
    let (client, server, _listener) = pair("").await;
    within(async {
        let (mut s, _r) = client.open().await.expect("opens").split();
        let (_s, mut r) = server.accept().await.expect("accepts").split();
        s.write_all(b"lone").await.expect("writes");
        let mut buf = vec![0; 100_000];
        assert_eq!(r.read(&mut buf).await.expect("reads"), 4);
        for at in 0..100_000u32 {
            s.write_all(&at.to_be_bytes()).await.expect("writes");
        }
        s.flush().await.expect("flushes");
        let mut seen = Vec::new();
        while seen.len() < 400_000 {
            r.readable(5).await;
            let len = r.read(&mut buf).await.expect("reads");
            seen.extend_from_slice(&buf[..len]);
        }
        assert!(seen.chunks(4).enumerate().all(|(at, bytes)| bytes == (at as u32).to_be_bytes()));
    })
    .await;
}

trait Readable {
    async fn readable(&mut self, min: usize);
}

impl Readable for mux_api::RecvHalf {
    async fn readable(&mut self, min: usize) {
        std::future::poll_fn(|cx| self.poll_readable(cx, min)).await;
    }
}
