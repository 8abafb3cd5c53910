//! What a server, or a proxy before it, answers to the opening of a channel, and what the application sees of it: the table
//! of docs/h2.md, section 8. Only the channel is concerned; the session goes on.

mod common;

use bytes::Bytes;
use common::{dial, within};
use h2::Reason;
use h2::server::SendResponse;
use http::Response;
use mux_api::{Config, Error, ErrorKind, Origin, codes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// What the server does with a request for a channel.
#[derive(Clone)]
enum Answer {
    /// A status with a page that is no record, and `mux-refused` where a code is given.
    Status(u16, Option<u64>),
    Reset(Reason),
    /// Accepts, says these records and no more.
    Records(Vec<u8>),
    /// Accepts and ends its stream with these records.
    End(Vec<u8>),
}

fn accepted() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).expect("a response")
}

fn control(kind: u8, code: u64) -> Vec<u8> {
    [&[0x80, 0, 0, 0, 9, kind][..], &code.to_be_bytes()].concat()
}

/// Answers the first request for a channel so, and accepts those that follow.
async fn serve(listener: TcpListener, answer: Answer) {
    let (tcp, _) = listener.accept().await.expect("accepts");
    let mut conn = h2::server::handshake(tcp).await.expect("shakes hands");
    // What is dropped is reset.
    let (mut answer, mut held) = (Some(answer), Vec::new());
    while let Some(Ok((request, mut respond))) = conn.accept().await {
        let send = match request.uri().path() {
            "/mux/1/park" => None,
            "/mux/1/ch" => answer_channel(answer.take(), &mut respond),
            _ => Some(respond.send_response(accepted(), false).expect("answers")),
        };
        held.push((request, respond, send));
    }
}

fn answer_channel(answer: Option<Answer>, respond: &mut SendResponse<Bytes>) -> Option<h2::SendStream<Bytes>> {
    let (records, end) = match answer {
        None => (Vec::new(), false),
        Some(Answer::Records(records)) => (records, false),
        Some(Answer::End(records)) => (records, true),
        Some(Answer::Reset(reason)) => {
            respond.send_reset(reason);
            return None;
        }
        Some(Answer::Status(status, refused)) => {
            let mut response = Response::builder().status(status);
            if let Some(code) = refused {
                response = response.header("mux-refused", code);
            }
            let mut send = respond.send_response(response.body(()).expect("a response"), false).expect("answers");
            send.send_data(Bytes::from_static(b"<html>\xff\xff\xff\xff\xff</html>"), true).expect("says");
            return Some(send);
        }
    };
    let mut send = respond.send_response(accepted(), false).expect("answers");
    send.send_data(Bytes::from(records), end).expect("says");
    Some(send)
}

/// How the channel failed whose opening was answered so; another one is opened after it.
async fn failure(answer: Answer) -> Error {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("h2c://{}", listener.local_addr().expect("address"));
    let serving = tokio::spawn(serve(listener, answer));
    let error = within(async {
        let session = dial(&url, &Config::default()).await.expect("dials");
        let mut channel = session.open().await.expect("opens");
        let error = loop {
            match channel.read(&mut [0; 8]).await {
                Ok(0) => panic!("a clean end"),
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        let mut next = session.open().await.expect("opens");
        next.opened().await.expect("the session goes on");
        assert!(session.cause().is_none());
        error
    })
    .await;
    serving.abort();
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_told_as_the_table_says() {
    use Answer::{End, Records, Reset, Status};
    use ErrorKind as Kind;
    let truncated = [&[0, 0, 0, 0, 9][..], b"half"].concat();
    let cases = [
        (Records(control(2, 77)), Kind::Reset, Origin::Peer, Some(77), 0, false),
        (Status(503, Some(codes::REFUSED)), Kind::Refused, Origin::Peer, Some(codes::REFUSED), 0, true),
        (Status(503, Some(codes::DRAINING)), Kind::Refused, Origin::Peer, Some(codes::DRAINING), 0, true),
        (Status(429, None), Kind::Refused, Origin::Peer, None, 429, true),
        (Reset(Reason::REFUSED_STREAM), Kind::Refused, Origin::Peer, None, 7, true),
        (Reset(Reason::INTERNAL_ERROR), Kind::Closed, Origin::Transport, None, 2, false),
        (Reset(Reason::CANCEL), Kind::Closed, Origin::Transport, None, 8, false),
        (End(Vec::new()), Kind::Closed, Origin::Transport, None, 0, false),
        (End(truncated), Kind::Closed, Origin::Transport, None, 0, false),
        (Status(404, None), Kind::Protocol, Origin::Peer, None, 404, false),
        (Status(405, None), Kind::Protocol, Origin::Peer, None, 405, false),
        (Status(415, None), Kind::Protocol, Origin::Peer, None, 415, false),
        (Status(200, None), Kind::Protocol, Origin::Peer, None, 415, false),
        (Status(409, None), Kind::Protocol, Origin::Peer, None, 409, false),
        (Status(421, None), Kind::Protocol, Origin::Peer, None, 421, false),
        (Status(502, None), Kind::Closed, Origin::Transport, None, 502, false),
        (Status(503, None), Kind::Closed, Origin::Transport, None, 503, false),
        (Status(504, None), Kind::Closed, Origin::Transport, None, 504, false),
    ];
    let mut wrong = Vec::new();
    for (at, (answer, kind, origin, code, detail, retry)) in cases.into_iter().enumerate() {
        let error = failure(answer).await;
        let found = (error.kind(), error.origin(), error.code(), error.detail(), error.is_retry_safe());
        if found != (kind, origin, code, detail, retry) {
            wrong.push(format!("{at}: {found:?} instead of {:?}", (kind, origin, code, detail, retry)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_is_told_to_the_writer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("h2c://{}", listener.local_addr().expect("address"));
    let serving = tokio::spawn(serve(listener, Answer::Records(control(3, 78))));
    within(async {
        let session = dial(&url, &Config::default()).await.expect("dials");
        let mut channel = session.open().await.expect("opens");
        let error = loop {
            match channel.write_all(b"x").await {
                Ok(()) => tokio::task::yield_now().await,
                Err(error) => break error,
            }
        };
        assert_eq!((error.kind(), error.code()), (ErrorKind::Stopped, Some(78)), "{error:?}");
    })
    .await;
    serving.abort();
}

/// Frame by frame: the library for HTTP/2 counts a stream as processed as soon as it has come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lies_beyond_a_goaway_was_seen_by_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("h2c://{}", listener.local_addr().expect("address"));
    let serving = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.expect("accepts");
        tcp.read_exact(&mut [0; 24]).await.expect("the preface");
        tcp.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.expect("settings");
        let mut requests = 0;
        loop {
            let mut head = [0; 9];
            if tcp.read_exact(&mut head).await.is_err() {
                return;
            }
            let mut body = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            tcp.read_exact(&mut body).await.expect("a body");
            requests += usize::from(head[3] == 1);
            // The control stream is accepted: 200 and the content type. Eight requests are parked; the next is the channel's.
            let said: &[u8] = match (head[3], requests) {
                (4, _) if head[4] == 0 => &[0, 0, 0, 4, 1, 0, 0, 0, 0],
                (1, 1) => b"\0\0\x14\x01\x04\0\0\0\x01\x88\x0f\x10\x10application/grpc",
                (1, 10) => &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0],
                _ => &[],
            };
            tcp.write_all(said).await.expect("says");
        }
    });
    within(async {
        let session = dial(&url, &Config::default()).await.expect("dials");
        let mut channel = session.open().await.expect("opens");
        let error = channel.read(&mut [0; 8]).await.expect_err("fails");
        assert_eq!((error.kind(), error.is_retry_safe()), (ErrorKind::Refused, true), "{error:?}");
    })
    .await;
    serving.abort();
}
