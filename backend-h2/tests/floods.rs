//! Peers that flood the listener with HTTP/2 itself: it lives, and an honest client is served.

mod common;

use std::time::Duration;

use common::{dial, listen, within};
use http::{Method, Request};
use mux_api::{Config, Listener};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;

async fn connect(listener: &Listener) -> TcpStream {
    TcpStream::connect(listener.url().split_once("://").expect("scheme").1).await.expect("connects")
}

fn frame(kind: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, 0]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(body);
    bytes
}

async fn serves_others(listener: &Listener) {
    let config = Config::default();
    let dialed = dial(listener.url(), &config);
    let (client, server) = tokio::join!(dialed, listener.accept());
    let (client, server) = (client.expect("dials"), server.expect("accepts"));
    let mut near = client.open().await.expect("opens");
    let mut far = server.accept().await.expect("accepts");
    near.write_all(b"hello").await.expect("writes");
    assert_eq!(far.read(&mut [0; 8]).await.expect("reads"), 5);
}

/// Whether the server ends the connection before it has taken so many of these.
async fn is_cut_off(peer: &mut TcpStream, bytes: &[u8], most: usize) -> bool {
    for _ in 0..most {
        if peer.write_all(bytes).await.is_err() {
            return true;
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_without_end_are_cut_off() {
    let listener = listen("h2c://127.0.0.1:0", &Config::default()).await.expect("listens");
    within(async {
        let mut peer = connect(&listener).await;
        peer.write_all(&[PREFACE, &frame(SETTINGS, 0, &[]), &frame(HEADERS, 1, &[0x83])].concat())
            .await
            .expect("writes");
        assert!(is_cut_off(&mut peer, &frame(CONTINUATION, 1, &[0x82; 8192]), usize::MAX).await);
        serves_others(&listener).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_whose_answers_are_not_taken_stall_their_sender_only() {
    let listener = listen("h2c://127.0.0.1:0", &Config::default()).await.expect("listens");
    within(async {
        let mut peer = connect(&listener).await;
        peer.write_all(PREFACE).await.expect("writes");
        let many = frame(SETTINGS, 0, &[]).repeat(10_000);
        let flood = is_cut_off(&mut peer, &many, 1_000);
        // Either is right: the kernel's buffers fill, or the server ends it.
        let ended = tokio::time::timeout(Duration::from_secs(2), flood).await;
        assert!(ended != Ok(false), "the server took 10,000,000 of them");
        serves_others(&listener).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_reset_at_once_harm_nobody_else() {
    let listener = listen("h2c://127.0.0.1:0", &Config::default()).await.expect("listens");
    within(async {
        let (mut requests, conn) = h2::client::handshake(connect(&listener).await).await.expect("handshake");
        let conn = tokio::spawn(conn);
        for _ in 0..20_000 {
            let Ok(ready) = requests.ready().await else { break };
            requests = ready;
            let mut request = Request::new(());
            *request.method_mut() = Method::POST;
            *request.uri_mut() = http::Uri::from_static("http://localhost/none");
            // Dropped at once, which resets the stream.
            if requests.send_request(request, false).is_err() {
                break;
            }
        }
        serves_others(&listener).await;
        conn.abort();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_http2_is_hung_up_on() {
    let listener = listen("h2c://127.0.0.1:0", &Config::default()).await.expect("listens");
    within(async {
        let mut peer = connect(&listener).await;
        peer.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("writes");
        let _ = peer.read_to_end(&mut Vec::new()).await;
        serves_others(&listener).await;
    })
    .await;
}
