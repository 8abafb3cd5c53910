//! How channels and sessions end over QUIC.

mod common;

use std::time::Duration;

use common::{idle, pair, within};
use mux_api::{ErrorKind, Origin, WriteFlags, codes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_accept_fails_is_always_said() {
    for at in 0..100u64 {
        let (client, server, _listener) = pair("").await;
        let accepting = server.clone();
        let accepting = tokio::spawn(async move { accepting.accept().await });
        tokio::time::sleep(Duration::from_micros(at * 20)).await;
        match at % 3 {
            0 => client.abort(7).expect("aborts"),
            1 => client.close(7, "enough").expect("closes"),
            _ => drop(client),
        }
        let code = if at % 3 == 2 { codes::DROPPED } else { 7 };
        let error = within(accepting).await.expect("task").expect_err("nothing to accept");
        assert_eq!((error.origin(), error.code()), (Origin::Peer, Some(code)), "{at}: {error:?}");
        assert_eq!(within(server.closed()).await.origin(), Origin::Peer);
    }
    let (client, _server, _listener) = pair("").await;
    client.close(9, "").expect("closes");
    let error = client.accept().await.expect_err("closing");
    assert_eq!((error.origin(), error.code()), (Origin::Local, Some(9)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_crosses_the_peers_stop_frees_the_channels_place() {
    let (client, server, _listener) = pair("max_channels=1").await;
    within(async {
        for at in 0..6 {
            let mut near = client.open().await.expect("opens once there is room");
            let far = server.accept().await.expect("accepts");
            near.recv_half().stop(5).expect("stops");
            if at % 2 == 0 {
                // It is there when the direction ends, and nobody has looked.
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            far.close();
            near.close();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_is_aborting() {
    let (client, server, _listener) = pair("").await;
    within(async {
        let mut near = client.open().await.expect("opens");
        near.write_all(b"half").await.expect("writes");
        let mut far = server.accept().await.expect("accepts");
        drop(near);
        let mut buf = [0; 64];
        let error = loop {
            match far.read(&mut buf).await {
                Ok(0) => panic!("a drop is never an end"),
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!((error.kind(), error.code()), (ErrorKind::Reset, Some(codes::DROPPED)));
        drop(far);
        idle(&[&client, &server]).await;
        let _open = client.open().await.expect("opens");
        drop((client, _open));
        let cause = server.closed().await;
        assert_eq!((cause.origin(), cause.code()), (Origin::Peer, Some(codes::DROPPED)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_a_session_loses_nothing_that_was_finished() {
    for slow in [false, true] {
        let (client, server, _listener) = pair("").await;
        within(async {
            let mut near = client.open().await.expect("opens");
            let mut never_finished = client.open().await.expect("opens");
            never_finished.write_all(b"part").await.expect("writes");
            let data = vec![5; 8 << 20];
            let reader = tokio::spawn(async move {
                let mut far = server.accept().await.expect("accepts");
                let mut cut = server.accept().await.expect("accepts");
                let (mut total, mut buf) = (0, vec![0; 90_000]);
                loop {
                    match far.read(&mut buf).await.expect("no error before the end") {
                        0 => break,
                        len => total += len,
                    }
                    if slow {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
                let cut = loop {
                    match cut.read(&mut buf).await {
                        Ok(0) => panic!("what was not finished has no end"),
                        Ok(_) => {}
                        Err(error) => break error,
                    }
                };
                assert_eq!(cut.origin(), Origin::Peer);
                (total, server.closed().await)
            });
            near.write_all(&data).await.expect("writes");
            near.close();
            client.close(42, "done").expect("closes");
            assert_eq!(client.open().await.expect_err("closing").origin(), Origin::Local);
            assert_eq!(client.closed().await.origin(), Origin::Local);
            let (total, cause) = reader.await.expect("reader");
            assert_eq!(total, data.len());
            assert_eq!((cause.origin(), cause.code(), cause.message()), (Origin::Peer, Some(42), "done"));
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_closed_before_anybody_accepted_is_still_accepted() {
    let (client, server, _listener) = pair("").await;
    within(async {
        for at in 0..20u8 {
            let mut near = client.open().await.expect("opens");
            near.send_half().write_all_with(&[at], WriteFlags::FIN).await.expect("writes");
            near.close();
        }
        client.close(0, "").expect("closes");
        client.closed().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        for at in 0..20u8 {
            let mut far = server.accept().await.expect("accepts");
            let mut buf = [0; 8];
            assert_eq!((far.read(&mut buf).await.expect("reads"), buf[0]), (1, at));
            assert_eq!(far.read(&mut buf).await.expect("end"), 0);
        }
        assert_eq!(server.accept().await.expect_err("over").origin(), Origin::Peer);
        server.closed().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_refuses_new_channels_and_lets_old_ones_finish() {
    let (client, server, _listener) = pair("").await;
    within(async {
        let mut near = client.open().await.expect("opens");
        let mut far = server.accept().await.expect("accepts");
        server.drain();
        let error = loop {
            match client.open().await {
                Ok(mut channel) => {
                    if let Err(error) = channel.read(&mut [0]).await {
                        assert_eq!((error.kind(), error.is_retry_safe()), (ErrorKind::Refused, true));
                    }
                }
                Err(error) => break error,
            }
        };
        assert_eq!((error.kind(), error.origin(), error.is_retry_safe()), (ErrorKind::GoAway, Origin::Peer, true));
        assert_eq!(server.open().await.expect_err("draining").kind(), ErrorKind::GoAway);
        near.write_all(b"still").await.expect("writes");
        near.finish().expect("finishes");
        let mut buf = [0; 8];
        assert_eq!(far.read(&mut buf).await.expect("reads"), 5);
        assert_eq!(far.read(&mut buf).await.expect("end"), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_outlive_their_listener_which_frees_its_address() {
    let (client, server, listener) = pair("").await;
    let url = listener.url().to_owned();
    listener.close();
    assert!(listener.accept().await.is_err());
    drop(listener);
    // The socket is still there for the session; others are told at once.
    let mut config = mux_api::Config::default();
    config.tls.insecure = true;
    let error = common::dial_error(&url, &config).await;
    assert_eq!((error.kind(), error.is_retry_safe()), (ErrorKind::Refused, true), "{error:?}");
    within(async {
        let mut near = client.open().await.expect("opens");
        near.write_all(b"x").await.expect("writes");
        let mut far = server.accept().await.expect("accepts");
        assert_eq!(far.read(&mut [0; 4]).await.expect("reads"), 1);
        client.close(0, "").expect("closes");
        server.closed().await;
        client.closed().await;
    })
    .await;
    drop((client, server));
    let made = common::certificate();
    let url = mux_api::Url::parse(&url).expect("parses");
    within(async {
        use mux_api::backend::Backend;
        // The server's end of a connection lingers for some probe timeouts.
        while backend_quic::QuicBackend.listen(&url, &common::server_config(&made)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
