//! Peers that speak QUIC and break the rules of the mapping: they harm nobody but themselves.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{certificate, listen, server_config, within};
use mux_api::{ErrorKind, Listener, Origin, Session, codes};
use mux_transport::tls::{self, Wants};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, Endpoint, ReadError, RecvStream, SendStream, VarInt};

/// A session with a peer that is plain quinn.
async fn raw_peer() -> (Connection, Session, Listener, Endpoint) {
    let made = certificate();
    let mut config = server_config(&made);
    config.window = 32 * 1024;
    let listener = listen("quic://127.0.0.1:0", &config).await;
    let mut trust = mux_api::TlsConfig::default();
    trust.pins = vec![made.pin];
    let crypto = tls::client_config(&trust, Wants { alpn: &["libmux/1"], tls13_only: true }).expect("TLS");
    let crypto = QuicClientConfig::try_from(crypto).expect("TLS 1.3");
    let endpoint = Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("binds");
    let address = listener.url().strip_prefix("quic://").expect("quic").parse().expect("an address");
    let client = quinn::ClientConfig::new(Arc::new(crypto));
    let conn = endpoint.connect_with(client, address, "localhost").expect("dials").await.expect("connects");
    let session = within(listener.accept()).await.expect("accepts");
    (conn, session, listener, endpoint)
}

async fn stream(conn: &Connection, bytes: &[u8]) -> (SendStream, RecvStream) {
    let (mut send, recv) = conn.open_bi().await.expect("opens");
    send.write_all(bytes).await.expect("writes");
    (send, recv)
}

fn record(payload: &[u8]) -> Vec<u8> {
    let mut record = vec![0x80];
    record.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    record.extend_from_slice(payload);
    record
}

async fn reset_code(recv: &mut RecvStream) -> u64 {
    match within(recv.read(&mut [0; 8])).await {
        Err(ReadError::Reset(code)) => code.into_inner(),
        other => panic!("expected a reset: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incomplete_or_unknown_preface_delays_nobody() {
    let (conn, session, _listener, _endpoint) = raw_peer().await;
    within(async {
        // A label of 5 bytes of which 2 have come: it must not hold up the next channel.
        let (mut slow, _r1) = stream(&conn, &[0x22, 3, 5, b'h', b'e']).await;
        let (_s2, mut unknown) = stream(&conn, b"GET / HTTP/1.1").await;
        let (_s3, mut long) = stream(&conn, &[0x22, 3, 0x7f, 0xff]).await;
        let (_s4, mut urgent) = stream(&conn, &[0x22, 9]).await;
        let (_s5, _r5) = stream(&conn, b"!quick").await;
        let mut quick = session.accept().await.expect("accepts");
        let mut buf = [0; 16];
        assert_eq!(quick.read(&mut buf).await.expect("reads"), 5);
        assert_eq!(reset_code(&mut unknown).await, codes::PROTOCOL);
        assert_eq!(reset_code(&mut long).await, codes::LIMIT);
        assert_eq!(reset_code(&mut urgent).await, codes::PROTOCOL);
        slow.write_all(b"llo, data").await.expect("writes");
        let mut late = session.accept().await.expect("accepts");
        assert_eq!(&late.label()[..], b"hello");
        assert_eq!(late.read(&mut buf).await.expect("reads"), 6);
        // A stream that is taken back, or ends, before it says what it is was never a channel.
        let (mut gone, _r6) = stream(&conn, &[0x22, 3]).await;
        gone.reset(VarInt::from_u32(1)).expect("resets");
        let (mut cut, _r7) = stream(&conn, &[0x22]).await;
        cut.finish().expect("finishes");
        let (_s8, _r8) = stream(&conn, b"!").await;
        session.accept().await.expect("accepts what follows");
        assert!(session.cause().is_none());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_on_streams_that_were_reset_are_bounded_and_checked() {
    let said = |stream: u64, preface: &[u8]| {
        record(&[&[0x17][..], &stream.to_be_bytes(), &7u64.to_be_bytes(), preface].concat())
    };
    let (conn, session, _listener, _endpoint) = raw_peer().await;
    within(async {
        let (mut control, _recv) = stream(&conn, &[0x23]).await;
        // Of streams that never come: they take the session's budget, and no more.
        for at in 0..20_000u64 {
            control.write_all(&said(4_000_000 + at * 4, &[0x22, 3, 4, 1, 1, 1, 1])).await.expect("writes");
        }
        let mut answers = Vec::new();
        for preface in [
            &b"\x22\x01\x02ab"[..],
            b"\x22\x09\x02ab",
            b"GET",
            b"\x22",
            &[&[0x22, 1, 0x7f, 0xff][..], &[1; 9000]].concat(),
        ] {
            let (mut send, recv) = stream(&conn, b"").await;
            control.write_all(&said(send.id().into(), preface)).await.expect("writes");
            send.reset(VarInt::from_u32(7)).expect("resets");
            answers.push(recv);
        }
        let mut channel = session.accept().await.expect("accepts");
        assert_eq!(&channel.label()[..], b"ab");
        assert_eq!(channel.read(&mut [0; 8]).await.expect_err("was reset").code(), Some(7));
        channel.write_all(b"heard").await.expect("writes");
        channel.close();
        let mut answers = answers.into_iter();
        let mut heard = answers.next().expect("five");
        assert_eq!(heard.read_to_end(10).await.expect("reads"), b"heard");
        for code in [codes::PROTOCOL, codes::PROTOCOL, codes::PROTOCOL, codes::LIMIT] {
            assert_eq!(reset_code(&mut answers.next().expect("five")).await, code);
        }
        assert!(session.cause().is_none());
        assert!(session.stats().budget_used <= 256 << 20);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_control_stream_ends_the_session_with_a_protocol_error() {
    let too_long = [&[0x23, 0x80][..], &u32::MAX.to_be_bytes()].concat();
    let unasked = [&[0x23][..], &record(&[0x16, 0, 0, 0, 0, 0, 0, 0, 0])].concat();
    let cut_short = [&[0x23][..], &record(&[0x11, 1])].concat();
    for bytes in [too_long, unasked, cut_short] {
        let (conn, session, _listener, _endpoint) = raw_peer().await;
        let _control = stream(&conn, &bytes).await;
        let cause = within(session.closed()).await;
        assert_eq!((cause.kind(), cause.origin()), (ErrorKind::Protocol, Origin::Peer), "{cause:?}");
        match within(conn.closed()).await {
            ConnectionError::ApplicationClosed(close) => assert_eq!(close.error_code.into_inner(), codes::PROTOCOL),
            other => panic!("expected a reason: {other}"),
        }
    }
    let (conn, session, _listener, _endpoint) = raw_peer().await;
    let _first = stream(&conn, &[0x23]).await;
    let _second = stream(&conn, &[0x23]).await;
    assert_eq!(within(session.closed()).await.kind(), ErrorKind::Protocol);
    let (conn, session, _listener, _endpoint) = raw_peer().await;
    let (mut control, _recv) = stream(&conn, &[0x23]).await;
    control.finish().expect("finishes");
    assert_eq!(within(session.closed()).await.kind(), ErrorKind::Protocol);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_whose_answers_nobody_reads_end_the_session() {
    let (conn, session, _listener, _endpoint) = raw_peer().await;
    // Our receive window of the control stream fills with answers; then they may not pile up.
    let mut control = stream(&conn, &[0x23]).await;
    let flood = record(&[0x11, 1, 2, 3, 4, 5, 6, 7, 8]).repeat(10_000);
    let flooding = tokio::spawn(async move {
        while control.0.write_all(&flood).await.is_ok() {}
        control
    });
    assert_eq!(within(session.closed()).await.kind(), ErrorKind::Protocol);
    within(flooding).await.expect("the flood has ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_without_control_stream_is_served_and_left() {
    let (conn, session, _listener, _endpoint) = raw_peer().await;
    within(async {
        let (mut send, mut recv) = stream(&conn, b"!question").await;
        send.finish().expect("finishes");
        let mut channel = session.accept().await.expect("accepts");
        let mut buf = [0; 16];
        assert_eq!(channel.read(&mut buf).await.expect("reads"), 8);
        channel.write_all(b"answer").await.expect("writes");
        channel.close();
        session.close(5, "bye").expect("closes");
        assert_eq!(recv.read_to_end(100).await.expect("reads"), b"answer");
        session.closed().await;
        match conn.closed().await {
            ConnectionError::ApplicationClosed(close) => {
                assert_eq!((close.error_code.into_inner(), &close.reason[..]), (5, &b"bye"[..]));
            }
            other => panic!("expected a reason: {other}"),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_streams_that_are_reset_at_once_is_bounded_and_harms_nobody_else() {
    let (conn, session, listener, _endpoint) = raw_peer().await;
    let flood = async {
        while let Ok((mut send, mut recv)) = conn.open_bi().await {
            let _ = send.write_all(b"!").await;
            let _ = send.reset(VarInt::from_u32(7));
            let _ = recv.stop(VarInt::from_u32(7));
        }
    };
    // It ends by itself only with the session: a peer that says nothing of its resets waits for places.
    assert!(tokio::time::timeout(Duration::from_secs(1), flood).await.is_err());
    assert!(session.stats().budget_used <= mux_api::Config::default().budget);
    assert!(session.stats().channels_open <= 128, "{} channels nobody accepts", session.stats().channels_open);
    let mut config = mux_api::Config::default();
    config.tls.insecure = true;
    let (client, _server) = tokio::join!(common::dial(listener.url(), &config), listener.accept());
    within(client.expect("dials").ping()).await.expect("another session lives");
    conn.close(VarInt::from_u32(0), b"");
    within(session.closed()).await;
    // What had arrived is still handed out.
    while let Ok(channel) = within(session.accept()).await {
        drop(channel);
    }
    common::idle(&[&session]).await;
}

/// A dialer with this linger time, and an acceptor that takes little before it reads.
async fn narrow_pair(linger: Duration) -> (mux_api::Session, mux_api::Session, mux_api::Listener) {
    let made = certificate();
    let mut config = server_config(&made);
    config.window = 4096;
    let listener = listen("quic://127.0.0.1:0", &config).await;
    let mut config = mux_api::Config::default();
    config.tls.pins = vec![made.pin];
    config.linger = linger;
    let client = common::dial(listener.url(), &config).await.expect("dials");
    let server = within(listener.accept()).await.expect("accepts");
    (client, server, listener)
}

/// The linger time is for what nobody holds any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finished_direction_waits_for_a_slow_reader_while_it_is_held() {
    let (client, server, _listener) = narrow_pair(Duration::from_millis(200)).await;
    within(async {
        for held in [true, false] {
            let mut near = client.open().await.expect("opens");
            near.write_all(&[1; 100_000]).await.expect("writes");
            near.finish().expect("finishes");
            let near = held.then_some(near);
            let mut far = server.accept().await.expect("accepts");
            tokio::time::sleep(Duration::from_millis(1500)).await;
            let mut total = 0;
            let end = loop {
                match far.read(&mut [0; 4096]).await {
                    Ok(0) => break Ok(total),
                    Ok(len) => total += len,
                    Err(error) => break Err(error.kind()),
                }
            };
            assert_eq!(end, if held { Ok(100_000) } else { Err(mux_api::ErrorKind::Reset) });
            drop(near);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_that_the_peer_does_not_read_ends_after_the_linger_time() {
    let (client, server, _listener) = narrow_pair(Duration::from_millis(300)).await;
    within(async {
        let mut near = client.open().await.expect("opens");
        near.write_all(&[1; 100_000]).await.expect("writes");
        near.close();
        let mut far = server.accept().await.expect("accepts");
        client.close(0, "").expect("closes");
        let cause = client.closed().await;
        assert!(cause.message().contains("linger"), "{cause}");
        let mut total = 0;
        let error = loop {
            match far.read(&mut [0; 4096]).await {
                Ok(0) => panic!("cut data has no end"),
                Ok(len) => total += len,
                Err(error) => break error,
            }
        };
        assert!(total < 100_000 && error.origin() == Origin::Peer, "{total} {error:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_at_any_moment_leaves_no_waiter_and_no_memory() {
    for at in 0..40u64 {
        let (client, server, listener) = common::pair("").await;
        let mut tasks = Vec::new();
        for (opener, acceptor) in [(client.clone(), server.clone()), (server.clone(), client.clone())] {
            tasks.push(tokio::spawn(async move {
                while let Ok(mut channel) = opener.open().await {
                    while channel.write_all(&[1; 9000]).await.is_ok() {
                        if channel.id() % 3 == 0 {
                            break;
                        }
                    }
                }
            }));
            tasks.push(tokio::spawn(async move {
                let mut held = Vec::new();
                while let Ok(mut channel) = acceptor.accept().await {
                    let _ = channel.read(&mut [0; 100]).await;
                    held.push(channel);
                }
            }));
        }
        tokio::time::sleep(Duration::from_millis(at)).await;
        match at % 4 {
            0 => client.abort(3).expect("aborts"),
            1 => server.close(4, "enough").expect("closes"),
            2 => {
                client.close(0, "").expect("closes");
                server.close(0, "").expect("closes");
            }
            _ => drop(listener),
        }
        if at % 4 == 3 {
            client.abort(0).expect("aborts");
        }
        within(async {
            for task in tasks {
                task.await.expect("ends");
            }
            client.closed().await;
            let cause = server.closed().await;
            if at % 4 == 0 {
                // Told even by a sender whose congestion window is full.
                assert_eq!((cause.origin(), cause.code()), (Origin::Peer, Some(3)), "{cause:?}");
            }
        })
        .await;
        common::idle(&[&client, &server]).await;
    }
    within(async {
        while mux_api::Budget::process().used() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
