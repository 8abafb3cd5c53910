//! The contract of sessions and channels, over h2c.

mod common;

use std::time::Duration;

use common::{idle, pair, within};
use mux_api::{Capabilities, Config, ErrorKind, OpenOptions, Origin, codes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_open_and_echo() {
    let (client, server, _listener) = pair(&Config::default()).await;
    for (opener, acceptor) in [(client.clone(), server.clone()), (server.clone(), client.clone())] {
        within(async {
            let mut near = opener.open_with(&OpenOptions::new().label("rpc")).await.expect("opens");
            let mut far = acceptor.accept().await.expect("accepts");
            assert_eq!(&far.label()[..], b"rpc");
            assert!(opener.capabilities().contains(Capabilities::RESET_CODE | Capabilities::LABEL));
            near.opened().await.expect("is confirmed");
            near.write_all(b"hello").await.expect("writes");
            near.finish().expect("finishes");
            let mut buf = [0; 64];
            let len = far.read(&mut buf).await.expect("reads");
            assert_eq!(&buf[..len], b"hello");
            assert_eq!(far.read(&mut buf).await.expect("end"), 0);
            assert_eq!(far.read(&mut buf).await.expect("end stays"), 0);
            far.write_all(b"world").await.expect("other direction goes on");
            far.finish().expect("finishes");
            let len = near.read(&mut buf).await.expect("reads");
            assert_eq!(&buf[..len], b"world");
            assert_eq!(near.read(&mut buf).await.expect("end"), 0);
            near.send_half().ended().await.expect("all is sent");
        })
        .await;
    }
    idle([&client, &server]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_opens_first_and_is_seen_without_a_byte() {
    let (client, server, _listener) = pair(&Config::default()).await;
    within(async {
        let mut near = server.open().await.expect("opens");
        let mut far = client.accept().await.expect("is seen before any byte");
        near.opened().await.expect("is confirmed");
        near.write_all(b"server first").await.expect("writes");
        let mut buf = [0; 64];
        let len = far.read(&mut buf).await.expect("reads");
        assert_eq!(&buf[..len], b"server first");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_arrives_whole_in_both_directions() {
    const LEN: usize = 64 << 20;
    let (client, server, _listener) = pair(&Config::default()).await;
    for (opener, acceptor) in [(client.clone(), server.clone()), (server.clone(), client.clone())] {
        let near = opener.open().await.expect("opens");
        let far = within(acceptor.accept()).await.expect("accepts");
        let ((mut s1, mut r1), (mut s2, mut r2)) = (near.split(), far.split());
        let pattern = |at: usize| (at.wrapping_mul(2_654_435_761) >> 7) as u8;
        let data: Vec<u8> = (0..LEN).map(pattern).collect();
        let expected = data.clone();
        let send = tokio::spawn(async move {
            for chunk in data.chunks(100_000) {
                s1.write_all(chunk).await.expect("writes");
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
        within(async {
            loop {
                let len = r1.read(&mut buf).await.expect("reads");
                if len == 0 {
                    break;
                }
                assert!(buf[..len] == expected[at..at + len], "at {at}");
                at += len;
            }
        })
        .await;
        assert_eq!(at, LEN);
        send.await.expect("sender");
        echo.await.expect("echo");
        drop(r1);
        idle([&client, &server]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codes_travel_and_dropping_is_aborting() {
    let (client, server, _listener) = pair(&Config::default()).await;
    for (opener, acceptor) in [(client.clone(), server.clone()), (server.clone(), client.clone())] {
        within(async {
            let (mut s1, mut r1) = opener.open().await.expect("opens").split();
            let (mut s2, mut r2) = acceptor.accept().await.expect("accepts").split();
            s1.write_all(b"partial").await.expect("writes");
            s1.reset(7).expect("resets");
            let mut buf = [0; 64];
            let error = loop {
                match r2.read(&mut buf).await {
                    Ok(0) => panic!("a reset is never an end"),
                    Ok(_) => {}
                    Err(error) => break error,
                }
            };
            assert_eq!((error.kind(), error.code()), (ErrorKind::Reset, Some(7)));
            r1.stop(codes::LIBRARY_FIRST - 1).expect("stops");
            let error = loop {
                if let Err(error) = s2.write_all(b"x").await {
                    break error;
                }
                tokio::task::yield_now().await;
            };
            assert_eq!((error.kind(), error.code()), (ErrorKind::Stopped, Some(codes::LIBRARY_FIRST - 1)));
            assert_eq!(s2.ended().await.expect_err("stopped").kind(), ErrorKind::Stopped);

            let mut near = opener.open().await.expect("opens");
            near.write_all(b"half").await.expect("writes");
            let mut far = acceptor.accept().await.expect("accepts");
            drop(near);
            let error = loop {
                match far.read(&mut buf).await {
                    Ok(0) => panic!("a drop is never an end"),
                    Ok(_) => {}
                    Err(error) => break error,
                }
            };
            assert_eq!(error.code(), Some(codes::DROPPED));
        })
        .await;
    }
    idle([&client, &server]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_a_session_loses_nothing_that_was_finished() {
    for server_closes in [false, true] {
        let (client, server, _listener) = pair(&Config::default()).await;
        let (closer, other) = if server_closes { (server, client) } else { (client, server) };
        within(async {
            let mut near = closer.open().await.expect("opens");
            let data = vec![5; 3 << 20];
            let reader = tokio::spawn(async move {
                let mut far = other.accept().await.expect("accepts");
                let (mut total, mut buf) = (0, vec![0; 9000]);
                loop {
                    match far.read(&mut buf).await.expect("no error before the end") {
                        0 => break,
                        len => total += len,
                    }
                }
                (total, other.closed().await)
            });
            near.write_all(&data).await.expect("writes");
            near.close();
            closer.close(42, "done").expect("closes");
            assert_eq!(closer.closed().await.origin(), Origin::Local);
            let (total, cause) = reader.await.expect("reader");
            assert_eq!(total, data.len());
            assert_eq!((cause.origin(), cause.code(), cause.message()), (Origin::Peer, Some(42), "done"));
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aborting_and_dropping_a_session_are_told_apart_from_a_close() {
    for dropped in [false, true] {
        let (client, server, _listener) = pair(&Config::default()).await;
        within(async {
            let near = client.open().await.expect("opens");
            let mut far = server.accept().await.expect("accepts");
            if dropped {
                drop(near);
                drop(client);
            } else {
                client.abort(9).expect("aborts");
                assert_eq!(client.closed().await.code(), Some(9));
            }
            let cause = server.closed().await;
            let code = if dropped { codes::DROPPED } else { 9 };
            assert_eq!((cause.origin(), cause.code()), (Origin::Peer, Some(code)), "{cause:?}");
            assert!(far.read(&mut [0; 8]).await.is_err());
            assert!(server.open().await.is_err());
            assert!(server.accept().await.is_err());
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_refuses_new_channels_and_keeps_the_old() {
    let (client, server, _listener) = pair(&Config::default()).await;
    within(async {
        let mut near = client.open().await.expect("opens");
        let mut far = server.accept().await.expect("accepts");
        server.drain();
        let error = loop {
            match client.open().await {
                Ok(mut raced) => {
                    if let Err(error) = raced.opened().await {
                        assert!(error.is_retry_safe(), "{error:?}");
                    }
                }
                Err(error) => break error,
            }
        };
        assert_eq!((error.kind(), error.origin()), (ErrorKind::GoAway, Origin::Peer));
        assert!(error.is_retry_safe());
        assert_eq!(server.open().await.expect_err("drains").kind(), ErrorKind::GoAway);
        near.write_all(b"still").await.expect("writes");
        let mut buf = [0; 8];
        assert_eq!(far.read(&mut buf).await.expect("reads"), 5);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_the_backlog_an_open_is_refused_and_may_be_retried() {
    let mut config = Config::default();
    config.channel_backlog = 3;
    let (client, server, _listener) = pair(&config).await;
    for (opener, acceptor) in [(client.clone(), server.clone()), (server.clone(), client.clone())] {
        within(async {
            let mut channels = Vec::new();
            for _ in 0..3 {
                let mut channel = opener.open().await.expect("opens");
                channel.opened().await.expect("has room");
                channels.push(channel);
            }
            let mut refused = opener.open().await.expect("opens");
            let error = refused.opened().await.expect_err("the backlog is full");
            assert_eq!((error.kind(), error.code()), (ErrorKind::Refused, Some(codes::REFUSED)), "{error:?}");
            assert!(error.is_retry_safe());
            assert_eq!(refused.read(&mut [0; 1]).await.expect_err("refused").kind(), ErrorKind::Refused);
            assert_eq!(refused.write_all(b"x").await.expect_err("refused").kind(), ErrorKind::Refused);
            for _ in 0..3 {
                acceptor.accept().await.expect("accepts");
            }
            let mut again = opener.open().await.expect("opens");
            again.opened().await.expect("there is room again");
            acceptor.accept().await.expect("accepts");
        })
        .await;
    }
    idle([&client, &server]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ping_measures_the_round_trip() {
    let (client, server, _listener) = pair(&Config::default()).await;
    for session in [&client, &server] {
        let rtt = within(session.ping()).await.expect("answers");
        assert!(rtt < Duration::from_secs(5));
        assert!(session.stats().rtt.is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_writes_arrive_in_order_and_flush() {
    let (client, server, _listener) = pair(&Config::default()).await;
    within(async {
        let mut near = client.open().await.expect("opens");
        let far = server.accept().await.expect("accepts");
        let reader = tokio::spawn(async move {
            let (_send, mut recv) = far.split();
            let mut all = Vec::new();
            while let Some(bytes) = recv.read_bytes(1000).await.expect("reads") {
                all.extend_from_slice(&bytes);
            }
            all
        });
        for at in 0..100_000u32 {
            near.write_all(&at.to_be_bytes()).await.expect("writes");
        }
        near.send_half().flush().await.expect("flushes");
        assert_eq!(near.send_half().buffered(), 0);
        near.finish().expect("finishes");
        let all = reader.await.expect("reader");
        let expected: Vec<u8> = (0..100_000u32).flat_map(u32::to_be_bytes).collect();
        assert!(all == expected);
        client.flush().await.expect("flushes");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_given_up_at_once_harms_nothing() {
    let (client, server, _listener) = pair(&Config::default()).await;
    within(async {
        for session in [&client, &server] {
            for _ in 0..200 {
                drop(session.open().await.expect("opens"));
                tokio::task::yield_now().await;
            }
        }
        // What was announced before it was given up is refused or accepted as reset; the rest works.
        let drain = |session: mux_api::Session| async move {
            loop {
                let mut channel = session.accept().await.expect("accepts");
                if channel.label() == "last" {
                    return;
                }
                assert!(channel.read(&mut [0; 1]).await.is_err());
            }
        };
        let near = client.open_with(&OpenOptions::new().label("last")).await.expect("opens");
        let far = server.open_with(&OpenOptions::new().label("last")).await.expect("opens");
        tokio::join!(drain(server.clone()), drain(client.clone()));
        drop((near, far));
    })
    .await;
    idle([&client, &server]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_given_up_before_it_was_accepted_is_never_seen() {
    let (client, server, _listener) = pair(&Config::default()).await;
    for (opener, acceptor) in [(&client, &server), (&server, &client)] {
        within(async {
            for _ in 0..300 {
                // More than the backlog holds: what was given up takes no place in it.
                let mut near = opener.open().await.expect("opens");
                if near.opened().await.is_ok() {
                    near.write_all(b"never seen").await.expect("writes");
                }
            }
            let mut finished = opener.open_with(&OpenOptions::new().label("seen")).await.expect("opens");
            finished.write_all(b"all").await.expect("writes");
            finished.finish().expect("finishes");
            // Confirmed although all of it came at once.
            let confirmed = tokio::time::timeout(Duration::from_secs(10), finished.opened()).await;
            confirmed.expect("in time").expect("there is room");
            drop(finished);
            idle([opener, opener]).await;
            let mut far = acceptor.accept().await.expect("accepts");
            assert_eq!(&far.label()[..], b"seen");
            let mut buf = [0; 8];
            assert_eq!(far.read(&mut buf).await.expect("reads"), 3);
            assert_eq!(far.read(&mut buf).await.expect("ends"), 0);
            assert!(acceptor.try_accept().is_err());
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_listener_frees_its_address_and_its_sessions_live_on() {
    let (client, server, listener) = pair(&Config::default()).await;
    let url = listener.url().to_owned();
    listener.close();
    let again = common::listen(&url, &Config::default()).await.expect("the address is free at once");
    within(async {
        let mut near = client.open().await.expect("opens");
        near.write_all(b"x").await.expect("writes");
        assert_eq!(server.accept().await.expect("accepts").read(&mut [0; 4]).await.expect("reads"), 1);
        assert!(listener.accept().await.is_err());
        common::dial(again.url(), &Config::default()).await.expect("dials the new one");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credit_goes_on_after_the_other_direction_has_ended() {
    const LEN: usize = 4 << 20;
    let (client, server, _listener) = pair(&Config::default()).await;
    for (opener, acceptor) in [(client.clone(), server.clone()), (server.clone(), client.clone())] {
        within(async {
            let mut near = opener.open().await.expect("opens");
            near.finish().expect("finishes before anything comes back");
            let mut far = acceptor.accept().await.expect("accepts");
            assert_eq!(far.read(&mut [0; 1]).await.expect("ends"), 0);
            let writing = async {
                far.write_all(&vec![4; LEN]).await.expect("writes");
                far.finish().expect("finishes");
            };
            let reading = async {
                let (mut total, mut buf) = (0, vec![0; 50_000]);
                loop {
                    match near.read(&mut buf).await.expect("reads") {
                        0 => break total,
                        len => total += len,
                    }
                }
            };
            let ((), total) = tokio::join!(writing, reading);
            assert_eq!(total, LEN);
        })
        .await;
    }
    idle([&client, &server]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_finished_before_the_session_was_closed_never_looks_whole() {
    for _ in 0..60 {
        let (client, server, _listener) = pair(&Config::default()).await;
        within(async {
            let mut near = client.open().await.expect("opens");
            near.write_all(b"half").await.expect("writes");
            let mut far = server.accept().await.expect("accepts");
            client.close(0, "").expect("closes");
            near.close();
            let mut buf = [0; 64];
            loop {
                match far.read(&mut buf).await {
                    Ok(0) => panic!("a half looks whole"),
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
        })
        .await;
    }
}
