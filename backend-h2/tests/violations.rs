//! What RFC 9113 forbids, byte by byte: each ends the connection or the stream with an error, and the listener lives. The
//! codes are those of the library h2, which says PROTOCOL_ERROR in some cases where the RFC has a narrower one.

mod common;

use common::{dial, listen, within};
use mux_api::{Config, Listener};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

const PROTOCOL: u32 = 1;
const FLOW_CONTROL: u32 = 3;
const FRAME_SIZE: u32 = 6;
const CALM: u32 = 11;

/// A POST to the path of raw channels, compressed without a table.
const POST: &[u8] = b"\x83\x86\x44\x09/mux/1/ch\x41\x01x";

fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(body);
    bytes
}

async fn connect(listener: &Listener) -> TcpStream {
    let address = listener.url().split_once("://").expect("scheme").1;
    let mut peer = TcpStream::connect(address).await.expect("connects");
    peer.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.expect("writes");
    peer
}

/// The first GOAWAY with an error or RST_STREAM: its type and code; `None` at the end of the connection.
async fn verdict(peer: &mut (impl AsyncReadExt + Unpin)) -> Option<(u8, u32)> {
    loop {
        let mut head = [0; 9];
        peer.read_exact(&mut head).await.ok()?;
        let mut body = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        peer.read_exact(&mut body).await.ok()?;
        let code = |at: usize| u32::from_be_bytes([body[at], body[at + 1], body[at + 2], body[at + 3]]);
        match head[3] {
            GOAWAY if code(4) != 0 => return Some((GOAWAY, code(4))),
            RST_STREAM => return Some((RST_STREAM, code(0))),
            _ => {}
        }
    }
}

async fn serves_others(listener: &Listener) {
    let config = Config::default();
    let client = dial(listener.url(), &config).await.expect("dials");
    // Raw sessions of those before may wait too.
    let server = loop {
        let session = listener.accept().await.expect("accepts");
        if session.capabilities() == client.capabilities() {
            break session;
        }
    };
    let mut near = client.open().await.expect("opens");
    let mut far = server.accept().await.expect("accepts");
    near.write_all(b"hello").await.expect("writes");
    assert_eq!(far.read(&mut [0; 8]).await.expect("reads"), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_ends_with_its_error() {
    let post = frame(HEADERS, END_HEADERS, 1, POST);
    let most = frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes());
    let upper = [POST, b"\x00\x01X\x01y"].concat();
    let smuggled = [POST, b"\x00\x0aconnection\x05close"].concat();
    let flood = frame(DATA, 0, 1, &[0; 16_384]).repeat(21);
    let cases: Vec<(&str, Vec<u8>, u8, u32)> = vec![
        ("DATA on stream 0", frame(DATA, 0, 0, b"x"), GOAWAY, PROTOCOL),
        ("DATA on an idle stream", frame(DATA, 0, 1, b"x"), GOAWAY, PROTOCOL),
        ("HEADERS on stream 0", frame(HEADERS, END_HEADERS, 0, POST), GOAWAY, PROTOCOL),
        ("HEADERS on an even stream", frame(HEADERS, END_HEADERS, 2, POST), GOAWAY, PROTOCOL),
        ("SETTINGS on a stream", frame(SETTINGS, 0, 1, &[]), GOAWAY, PROTOCOL),
        ("SETTINGS of 5 bytes", frame(SETTINGS, 0, 0, &[0; 5]), GOAWAY, PROTOCOL),
        ("PING of 7 bytes", frame(PING, 0, 0, &[0; 7]), GOAWAY, PROTOCOL),
        ("a frame of 100,000 bytes", frame(DATA, 0, 1, &[0; 100_000]), GOAWAY, FRAME_SIZE),
        ("a window raised by 0", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), GOAWAY, PROTOCOL),
        ("a window above 2^31-1", [most.clone(), most].concat(), GOAWAY, FLOW_CONTROL),
        ("CONTINUATION of nothing", frame(CONTINUATION, END_HEADERS, 1, POST), GOAWAY, PROTOCOL),
        ("PUSH_PROMISE of a client", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]), GOAWAY, PROTOCOL),
        ("fields that cannot be decompressed", frame(HEADERS, END_HEADERS, 1, &[0x80]), GOAWAY, PROTOCOL),
        ("a field in upper case", frame(HEADERS, END_HEADERS, 1, &upper), GOAWAY, PROTOCOL),
        ("a field of HTTP/1", frame(HEADERS, END_HEADERS, 1, &smuggled), RST_STREAM, PROTOCOL),
        ("more data than the window", [post, flood].concat(), GOAWAY, FLOW_CONTROL),
    ];
    let listener = listen("h2c://127.0.0.1:0", &Config::default()).await.expect("listens");
    let mut wrong = Vec::new();
    for (name, bytes, kind, code) in cases {
        let found = within(async {
            let (mut read, mut write) = connect(&listener).await.into_split();
            // The server may end it before all is written.
            let writing = tokio::spawn(async move { (write.write_all(&bytes).await, write) });
            let found = verdict(&mut read).await;
            writing.abort();
            found
        })
        .await;
        // Either is right for a stream's own window (RFC 9113, 6.9.1), and which one comes is a matter of what h2 looks at first.
        let found = found.map(|(found, code)| if code == FLOW_CONTROL { (GOAWAY, code) } else { (found, code) });
        if found != Some((kind, code)) {
            wrong.push(format!("{name}: {found:?} instead of {:?}", (kind, code)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    within(serves_others(&listener)).await;
}

/// Opens streams and has the server reset them (MadeYouReset), or sends frames that carry nothing: both are counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_the_server_is_made_to_reset_and_empty_frames_are_counted() {
    let made_you_reset = (0..5_000).flat_map(|at| {
        let stream = 1 + 2 * at;
        [frame(HEADERS, END_HEADERS, stream, POST), frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes())]
            .concat()
    });
    let empty = [frame(HEADERS, END_HEADERS, 1, POST), frame(DATA, 0, 1, &[]).repeat(5_000)].concat();
    let listener = listen("h2c://127.0.0.1:0", &Config::default()).await.expect("listens");
    for (name, bytes) in [("resets", made_you_reset.collect()), ("empty frames", empty)] {
        let found = within(async {
            let (mut read, mut write) = connect(&listener).await.into_split();
            let writing = tokio::spawn(async move { (write.write_all(&bytes).await, write) });
            let found = loop {
                match verdict(&mut read).await {
                    Some((RST_STREAM, _)) => {}
                    found => break found,
                }
            };
            writing.abort();
            found
        })
        .await;
        assert_eq!(found, Some((GOAWAY, CALM)), "{name}");
    }
    within(serves_others(&listener)).await;
}
