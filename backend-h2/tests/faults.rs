//! Connections that are cut, and peers that break the rules: a clear error, no hang, never a clean end of cut data.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::{SCHEMES, dial, ends, listen, within};
use h2::client::SendRequest;
use http::{HeaderValue, Request, StatusCode};
use mux_api::{Config, ErrorKind, Listener, Origin, Session};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A relay that cuts both connections once so many bytes went from the server to the client.
async fn cutting_relay(target: SocketAddr, after: usize, abruptly: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move {
        let (near, _) = listener.accept().await.expect("accepts");
        let far = TcpStream::connect(target).await.expect("connects");
        if abruptly {
            near.set_zero_linger().expect("linger");
            far.set_zero_linger().expect("linger");
        }
        let ((mut near_read, mut near_write), (mut far_read, mut far_write)) = (near.into_split(), far.into_split());
        let up = async {
            let mut buf = [0; 8192];
            while let Ok(len @ 1..) = near_read.read(&mut buf).await {
                if far_write.write_all(&buf[..len]).await.is_err() {
                    break;
                }
            }
        };
        let count = Arc::new(AtomicUsize::new(0));
        let down = async {
            let mut buf = [0; 1777];
            while let Ok(len @ 1..) = far_read.read(&mut buf).await {
                let before = count.fetch_add(len, Ordering::Relaxed);
                let len = len.min(after.saturating_sub(before));
                if near_write.write_all(&buf[..len]).await.is_err() || before + len >= after {
                    break;
                }
            }
        };
        tokio::select! { () = up => {}, () = down => {} }
    });
    address
}

fn address(listener: &Listener) -> SocketAddr {
    let authority = listener.url().split("://").nth(1).and_then(|rest| rest.split('/').next());
    authority.and_then(|authority| authority.parse().ok()).expect("an address")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_cut_at_any_point_is_never_a_clean_end() {
    for scheme in SCHEMES {
        cut_at_any_point(scheme).await;
    }
}

async fn cut_at_any_point(scheme: &str) {
    const LEN: usize = 400_000;
    let (listening, dialing) = ends(scheme, &Config::default());
    let listener = listen(&format!("{scheme}://127.0.0.1:0"), &listening).await.expect("listens");
    let target = address(&listener);
    let serving = tokio::spawn(async move {
        loop {
            let session = listener.accept().await.expect("accepts");
            tokio::spawn(async move {
                while let Ok(mut channel) = session.accept().await {
                    let _ = channel.write_all(&vec![3; LEN]).await;
                    channel.close();
                }
            });
        }
    });
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut cut = 0;
    for round in 0..100 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let after = (state >> 33) as usize % (LEN + 2_000) + 1;
        let relay = cutting_relay(target, after, round % 2 == 0).await;
        within(async {
            let session = match dial(&format!("{scheme}://{relay}"), &dialing).await {
                Ok(session) => session,
                Err(error) => {
                    assert_ne!(error.kind(), ErrorKind::TimedOut, "{error:?}");
                    cut += 1;
                    return;
                }
            };
            let (total, end) = read_all(&session).await;
            match end {
                Ok(()) => assert_eq!(total, LEN, "cut after {after}"),
                Err(error) => {
                    assert!(!error.message().is_empty());
                    assert!(!error.is_retry_safe() || total == 0, "{error:?}");
                    cut += 1;
                }
            }
            let cause = if total < LEN { session.closed().await } else { return };
            assert!(matches!(cause.origin(), Origin::Transport | Origin::Os), "{cause:?}");
        })
        .await;
    }
    assert!(cut > 50, "most were cut: {cut}");
    serving.abort();
}

async fn read_all(session: &Session) -> (usize, Result<(), mux_api::Error>) {
    let mut channel = match session.open().await {
        Ok(channel) => channel,
        Err(error) => return (0, Err(error)),
    };
    let (mut total, mut buf) = (0, vec![0; 10_000]);
    loop {
        match channel.read(&mut buf).await {
            Ok(0) => return (total, Ok(())),
            Ok(len) => total += len,
            Err(error) => return (total, Err(error)),
        }
    }
}

/// A client that speaks HTTP/2 by hand.
async fn by_hand(listener: &Listener) -> SendRequest<Bytes> {
    let tcp = TcpStream::connect(address(listener)).await.expect("connects");
    let (requests, conn) = h2::client::handshake(tcp).await.expect("shakes hands");
    tokio::spawn(async move {
        let _ = conn.await;
    });
    requests
}

fn request(path: &str, session: Option<&str>) -> Request<()> {
    let mut request = Request::post(format!("http://localhost/mux/1{path}"));
    if let Some(session) = session {
        request = request.header("mux-session", session).header("content-type", "application/grpc");
    }
    request.header("mux-credit", "65536").body(()).expect("a request")
}

const ID: &str = "000102030405060708090a0b0c0d0e0f";

/// A session opened by hand, and the stream of a channel on it.
async fn channel_by_hand(
    listener: &Listener,
) -> (SendRequest<Bytes>, h2::SendStream<Bytes>, h2::SendStream<Bytes>, Session, mux_api::Channel) {
    let mut requests = by_hand(listener).await;
    let (response, control) = requests.send_request(request("/ctl", Some(ID)), false).expect("requests");
    assert_eq!(response.await.expect("answers").status(), StatusCode::OK);
    let (response, channel) = requests.send_request(request("/ch", Some(ID)), false).expect("requests");
    assert_eq!(response.await.expect("answers").status(), StatusCode::OK);
    let session = listener.accept().await.expect("accepts");
    let accepted = session.accept().await.expect("accepts");
    (requests, control, channel, session, accepted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_for_us_is_answered_properly() {
    let listener = listen("h2c://127.0.0.1:0", &Config::default()).await.expect("listens");
    within(async {
        let mut requests = by_hand(&listener).await;
        let get = Request::get("http://localhost/mux/1/ch").body(()).expect("a request");
        let elsewhere = Request::post("http://localhost/").body(()).expect("a request");
        let malformed = request("/ctl", Some("xyz"));
        let unknown = request("/ch", Some(ID));
        let nameless = request("/ctl", None);
        let mut plain = request("/ctl", Some(ID));
        plain.headers_mut().insert("content-type", HeaderValue::from_static("text/plain"));
        for (request, status) in [
            (get, StatusCode::METHOD_NOT_ALLOWED),
            (elsewhere, StatusCode::NOT_FOUND),
            (malformed, StatusCode::BAD_REQUEST),
            (unknown, StatusCode::CONFLICT),
            (nameless, StatusCode::BAD_REQUEST),
            (plain, StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ] {
            let (response, _body) = requests.send_request(request, true).expect("requests");
            let response = response.await.expect("answers");
            assert_eq!(response.status(), status);
            let text = response.into_body().data().await.expect("a text").expect("for people");
            assert!(!text.is_empty());
        }
    })
    .await;
    assert!(listener.try_accept().is_err(), "none of it made a session");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_has_one_control_stream() {
    let listener = listen("h2c://127.0.0.1:0", &Config::default()).await.expect("listens");
    within(async {
        let (_requests, _control, _channel, _session, _accepted) = channel_by_hand(&listener).await;
        let mut second = by_hand(&listener).await;
        let (response, _body) = second.send_request(request("/ctl", Some(ID)), false).expect("requests");
        assert_eq!(response.await.expect("answers").status(), StatusCode::CONFLICT);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_its_id_whichever_connections_carry_it() {
    let listener = listen("h2c://127.0.0.1:0", &Config::default()).await.expect("listens");
    within(async {
        // Connections overtake each other: a channel comes before the control stream.
        let mut early = by_hand(&listener).await;
        let (first, mut one) = early.send_request(request("/ch", Some(ID)), false).expect("requests");
        one.send_data(Bytes::from_static(b"\x00\x00\x00\x00\x05early"), false).expect("sends");
        let mut middle = by_hand(&listener).await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let (control, _control) = middle.send_request(request("/ctl", Some(ID)), false).expect("requests");
        assert_eq!(control.await.expect("answers").status(), StatusCode::OK);
        assert_eq!(first.await.expect("answers").status(), StatusCode::OK);
        let session = listener.accept().await.expect("accepts");
        let mut channel = session.accept().await.expect("accepts");
        let mut buf = [0; 16];
        assert_eq!(channel.read(&mut buf).await.expect("reads"), 5);
        // A request parked on a third connection carries a channel of the server's.
        let mut late = by_hand(&listener).await;
        let (parked, _slot) = late.send_request(request("/park", Some(ID)), false).expect("requests");
        let mut opened = session.open().await.expect("opens");
        opened.write_all(b"hello").await.expect("writes");
        let mut body = parked.await.expect("answers").into_body();
        assert_eq!(&body.data().await.expect("data").expect("data")[..], b"\0\0\0\0\x05hello");
        // Another session begins on the first connection; it outlives the first, whose control stream is elsewhere.
        let other = "ffffffffffffffffffffffffffffffff";
        let (second, _kept) = early.send_request(request("/ctl", Some(other)), false).expect("requests");
        assert_eq!(second.await.expect("answers").status(), StatusCode::OK);
        let neighbour = listener.accept().await.expect("accepts");
        let (answer, _kept) = middle.send_request(request("/ch", Some(other)), false).expect("requests");
        assert_eq!(answer.await.expect("answers").status(), StatusCode::OK);
        let mut theirs = neighbour.accept().await.expect("accepts");
        session.abort(1).expect("aborts");
        session.closed().await;
        drop((session, channel, opened));
        theirs.write_all(b"alive").await.expect("writes");
        theirs.send_half().flush().await.expect("flushes");
        assert!(neighbour.cause().is_none());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_whose_session_never_begins_are_turned_away() {
    let listener = listen("h2c://127.0.0.1:0", &Config::default()).await.expect("listens");
    within(async {
        let mut requests = by_hand(&listener).await;
        let mut waiting = Vec::new();
        for path in ["/ch", "/park"] {
            waiting.push(requests.send_request(request(path, Some(ID)), false).expect("requests"));
        }
        for (response, _body) in waiting {
            assert_eq!(response.await.expect("answers").status(), StatusCode::CONFLICT);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_on_a_parked_request_is_a_violation() {
    let listener = listen("h2c://127.0.0.1:0", &Config::default()).await.expect("listens");
    within(async {
        let (mut requests, _control, _channel, session, _accepted) = channel_by_hand(&listener).await;
        let (_parked, mut slot) = requests.send_request(request("/park", Some(ID)), false).expect("requests");
        slot.send_data(Bytes::from_static(b"\0\0\0\0\x01x"), false).expect("sends");
        let cause = session.closed().await;
        assert_eq!((cause.kind(), cause.origin()), (ErrorKind::Protocol, Origin::Peer), "{cause:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_name_are_answered_as_the_url_says() {
    let url = "h2c://127.0.0.1:0/here?health=/healthz&authority=mux.example";
    let listener = listen(url, &Config::default()).await.expect("listens");
    within(async {
        let mut requests = by_hand(&listener).await;
        for (method, uri, status) in [
            ("GET", "http://mux.example/healthz", StatusCode::OK),
            ("HEAD", "http://mux.example:8080/healthz", StatusCode::OK),
            ("POST", "http://mux.example/healthz", StatusCode::METHOD_NOT_ALLOWED),
            ("GET", "http://mux.example/here/ch", StatusCode::METHOD_NOT_ALLOWED),
            ("GET", "http://mux.example/", StatusCode::NOT_FOUND),
            ("POST", "http://mux.example/mux/1/ch", StatusCode::NOT_FOUND),
            ("GET", "http://other.example/healthz", StatusCode::MISDIRECTED_REQUEST),
        ] {
            let request = Request::builder().method(method).uri(uri).body(()).expect("a request");
            let (response, _body) = requests.send_request(request, true).expect("requests");
            let response = response.await.expect("answers");
            assert_eq!(response.status(), status, "{method} {uri}");
            assert_eq!(response.headers().contains_key("allow"), status == StatusCode::METHOD_NOT_ALLOWED);
        }
        let at = address(&listener);
        let dialed = format!("h2c://{at}/here?authority=mux.example");
        dial(&dialed, &Config::default()).await.expect("is served beside it");
        let error = dial(&format!("h2c://{at}/here"), &Config::default()).await.expect_err("another name");
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    })
    .await;
    for bad in ["health=x", "health=/mux/1/ch", "authority=a b"] {
        assert!(listen(&format!("h2c://127.0.0.1:0?{bad}"), &Config::default()).await.is_err(), "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_the_stream_alone_is_not_the_end_of_the_channel() {
    let listener = listen("h2c://127.0.0.1:0", &Config::default()).await.expect("listens");
    within(async {
        let (_requests, _control, mut channel, session, mut accepted) = channel_by_hand(&listener).await;
        channel.send_data(Bytes::from_static(b"\x00\x00\x00\x00\x05hello"), true).expect("sends");
        let mut buf = [0; 16];
        assert_eq!(accepted.read(&mut buf).await.expect("what came is read"), 5);
        let error = accepted.read(&mut buf).await.expect_err("truncated");
        assert_eq!((error.kind(), error.origin()), (ErrorKind::Closed, Origin::Transport));
        assert!(session.cause().is_none(), "only the channel is lost");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_stream_without_a_record_is_an_error() {
    let listener = listen("h2c://127.0.0.1:0", &Config::default()).await.expect("listens");
    within(async {
        let (_requests, _control, mut channel, session, mut accepted) = channel_by_hand(&listener).await;
        channel.send_reset(h2::Reason::INTERNAL_ERROR);
        let error = accepted.read(&mut [0; 16]).await.expect_err("lost");
        assert_eq!((error.kind(), error.detail()), (ErrorKind::Closed, 2), "{error:?}");
        assert!(accepted.write_all(b"x").await.is_err());
        assert!(session.cause().is_none(), "only the channel is lost");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_breaks_the_rules_loses_the_session() {
    let over_credit = {
        let mut bytes = vec![0, 0, 8, 0, 0];
        bytes.resize(5 + 512 * 1024, 1);
        bytes
    };
    let cases: [(&str, Vec<u8>); 5] = [
        ("flags", vec![7, 0, 0, 0, 1, 1]),
        ("length", vec![0, 0xff, 0, 0, 0]),
        ("short", vec![0x80, 0, 0, 0, 2, 2, 0]),
        ("second end", vec![0x80, 0, 0, 0, 1, 1, 0x80, 0, 0, 0, 1, 1]),
        ("credit", over_credit),
    ];
    for (name, bytes) in cases {
        let listener = listen("h2c://127.0.0.1:0", &Config::default()).await.expect("listens");
        within(async {
            let (_requests, _control, mut channel, session, _accepted) = channel_by_hand(&listener).await;
            channel.reserve_capacity(bytes.len());
            channel.send_data(Bytes::from(bytes), false).expect("sends");
            let cause = session.closed().await;
            assert_eq!((cause.kind(), cause.origin()), (ErrorKind::Protocol, Origin::Peer), "{name}: {cause:?}");
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_pings_and_takes_no_answers_is_cut_off() {
    let listener = listen("h2c://127.0.0.1:0", &Config::default()).await.expect("listens");
    within(async {
        let (_requests, mut control, _channel, session, _accepted) = channel_by_hand(&listener).await;
        let mut pings = Vec::new();
        for number in 0..30_000u64 {
            pings.extend_from_slice(&[0x80, 0, 0, 0, 9, 0x11]);
            pings.extend_from_slice(&number.to_be_bytes());
        }
        control.reserve_capacity(pings.len());
        control.send_data(Bytes::from(pings), false).expect("sends");
        let cause = session.closed().await;
        assert_eq!((cause.kind(), cause.origin()), (ErrorKind::Protocol, Origin::Peer), "{cause:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_peer_is_noticed_and_a_living_one_is_not_accused() {
    let mut config = Config::default();
    config.keepalive = Duration::from_millis(150);
    let listener = listen("h2c://127.0.0.1:0", &config).await.expect("listens");
    within(async {
        let client = dial(listener.url(), &config).await.expect("dials");
        let server = listener.accept().await.expect("accepts");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(client.cause().is_none() && server.cause().is_none());
        // Opened by hand, this peer answers no ping.
        let (_requests, _control, _channel, session, mut accepted) = channel_by_hand(&listener).await;
        let cause = session.closed().await;
        assert_eq!((cause.kind(), cause.origin()), (ErrorKind::Idle, Origin::Transport), "{cause:?}");
        assert_eq!(accepted.read(&mut [0; 1]).await.expect_err("lost").kind(), ErrorKind::Idle);
    })
    .await;
}

/// Proxies end a stream on which nothing passes, whatever others of its connection do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_streams_are_kept_alive_beside_a_busy_one() {
    let mut config = Config::default();
    config.keepalive = Duration::from_millis(200);
    let listener = listen("h2c://127.0.0.1:0", &config).await.expect("listens");
    within(async {
        let mut requests = by_hand(&listener).await;
        let (mut bodies, mut sends) = (Vec::new(), Vec::new());
        for path in ["/ctl", "/ch", "/ch"] {
            let (response, send) = requests.send_request(request(path, Some(ID)), false).expect("requests");
            bodies.push(response.await.expect("answers").into_body());
            sends.push(send);
        }
        let session = listener.accept().await.expect("accepts");
        let (_silent, busy) = (session.accept().await.expect("accepts"), session.accept().await.expect("accepts"));
        let busy_stream = sends.pop().expect("a stream");
        let _busy = tokio::spawn(async move {
            let (mut busy, mut stream) = (busy, busy_stream);
            loop {
                // So much is heard and said that nobody needs to ask whether the other lives.
                stream.send_data(Bytes::from_static(b"\0\0\0\0\x01x"), false).expect("sends");
                busy.write_all(b"x").await.expect("writes");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        for body in &mut bodies[..2] {
            for _ in 0..2 {
                assert_eq!(&body.data().await.expect("goes on").expect("a record")[..], [0; 5]);
            }
        }
        assert!(session.cause().is_none());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unused_session_ends_after_its_idle_time() {
    let config = Config::default();
    let listener = listen("h2c://127.0.0.1:0", &config).await.expect("listens");
    let mut short = config.clone();
    short.idle = Duration::from_millis(300);
    within(async {
        let client = dial(listener.url(), &short).await.expect("dials");
        let server = listener.accept().await.expect("accepts");
        assert_eq!(client.closed().await.kind(), ErrorKind::Idle);
        assert_eq!(server.closed().await.origin(), Origin::Peer);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_none_of_ours_is_told_apart() {
    let config = Config::default();
    let listener = listen("h2c://127.0.0.1:0/other", &config).await.expect("listens");
    let wrong = listener.url().replace("/other", "/wrong");
    let error = within(dial(&wrong, &config)).await.expect_err("no endpoint");
    assert_eq!((error.kind(), error.detail()), (ErrorKind::Protocol, 404), "{error:?}");
    assert!(error.message().contains("path"), "{error}");
    within(dial(listener.url(), &config)).await.expect("the right path");

    // Something that speaks another protocol, something that closes at once, nobody.
    let tcp = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = tcp.local_addr().expect("address");
    let others: [&[u8]; 3] =
        [b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", &[100, 255, 255, 255, 255], b""];
    tokio::spawn(async move {
        for said in others {
            let (mut one, _) = tcp.accept().await.expect("accepts");
            one.write_all(said).await.expect("writes");
            let mut rest = Vec::new();
            if said.is_empty() {
                one.shutdown().await.expect("ends");
            }
            let _ = one.read_to_end(&mut rest).await;
        }
    });
    for (said, kind) in others.into_iter().zip([ErrorKind::Protocol, ErrorKind::Protocol, ErrorKind::Closed]) {
        let error = within(dial(&format!("h2c://{address}"), &config)).await.expect_err("not HTTP/2");
        assert_eq!((error.kind(), error.origin()), (kind, Origin::Peer), "{said:?}: {error:?}");
        assert!(error.message().contains("scheme"), "{error}");
    }
    let error = within(dial("h2c://127.0.0.1:1", &config)).await.expect_err("nobody");
    assert_eq!((error.kind(), error.is_retry_safe()), (ErrorKind::Refused, true));
}
