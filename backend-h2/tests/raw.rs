//! Plain HTTP/2 clients: a raw body is a channel, END_STREAM its end.

mod common;

use std::process::Stdio;

use bytes::Bytes;
use common::{listen, within};
use http::{Request, StatusCode};
use mux_api::{Capabilities, Config, ErrorKind, Listener};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Echoes every channel of every session.
fn echo(listener: Listener) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let session = listener.accept().await.expect("accepts");
            tokio::spawn(async move {
                while let Ok(channel) = session.accept().await {
                    tokio::spawn(async move {
                        let (mut send, mut recv) = channel.split();
                        while let Ok(Some(bytes)) = recv.read_bytes(usize::MAX).await {
                            if send.write_bytes(bytes).await.is_err() {
                                return;
                            }
                        }
                        send.close();
                    });
                }
            });
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_opens_a_channel_by_hand() {
    // "-" reads its input to the end of each piece before it looks for output, "." looks at both.
    for input in ["-", "."] {
        curl_echo(input).await;
    }
}

async fn curl_echo(from: &str) {
    let listener = listen("h2c://127.0.0.1:0", &Config::default()).await.expect("listens");
    let url = format!("{}/mux/1/ch", listener.url().replace("h2c:", "http:"));
    let serving = echo(listener);
    let curl = tokio::process::Command::new("curl")
        .args(["--silent", "--show-error", "--http2-prior-knowledge", "--no-buffer", "-X", "POST", "-T", from, &url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut curl = match curl {
        Ok(curl) => curl,
        Err(error) => {
            eprintln!("SKIPPED: curl cannot be run ({error})");
            return;
        }
    };
    within(async {
        let (mut input, mut output) = (curl.stdin.take().expect("stdin"), curl.stdout.take().expect("stdout"));
        let mut buf = [0; 64];
        input.write_all(b"hello ").await.expect("writes");
        let mut echoed = Vec::new();
        if from == "." {
            let len = output.read(&mut buf).await.expect("the echo comes before the end");
            echoed.extend_from_slice(&buf[..len]);
            assert_eq!(echoed, b"hello ");
        }
        input.write_all(b"world\n").await.expect("writes");
        drop(input);
        output.read_to_end(&mut echoed).await.expect("reads");
        assert_eq!(echoed, b"hello world\n");
        let done = curl.wait_with_output().await.expect("ends");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    })
    .await;
    serving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nghttp_opens_a_channel_by_hand() {
    let listener = listen("h2c://127.0.0.1:0", &Config::default()).await.expect("listens");
    let url = format!("{}/mux/1/ch", listener.url().replace("h2c:", "http:"));
    let serving = echo(listener);
    let file = std::env::temp_dir().join(format!("mux-nghttp-{}", std::process::id()));
    std::fs::write(&file, "hello world\n").expect("a file");
    let nghttp = tokio::process::Command::new("nghttp")
        .args(["-H", ":method: POST", "-d"])
        .arg(&file)
        .arg(&url)
        .kill_on_drop(true)
        .output();
    let done = within(nghttp).await;
    std::fs::remove_file(&file).expect("is removed");
    serving.abort();
    match done {
        Ok(done) => {
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            assert_eq!(String::from_utf8_lossy(&done.stdout), "hello world\n");
        }
        Err(error) => eprintln!("SKIPPED: nghttp cannot be run ({error})"),
    }
}

async fn connect(listener: &Listener) -> h2::client::SendRequest<Bytes> {
    let address = listener.url().strip_prefix("h2c://").expect("scheme").to_owned();
    let tcp = TcpStream::connect(address).await.expect("connects");
    let (requests, conn) = h2::client::handshake(tcp).await.expect("shakes hands");
    tokio::spawn(async move {
        let _ = conn.await;
    });
    requests
}

fn request() -> Request<()> {
    Request::post("http://localhost/mux/1/ch").body(()).expect("a request")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_and_codes_of_raw_streams() {
    let listener = listen("h2c://127.0.0.1:0", &Config::default()).await.expect("listens");
    within(async {
        let mut requests = connect(&listener).await;
        let (response, mut body) = requests.send_request(request(), false).expect("requests");
        let response = response.await.expect("answers");
        assert_eq!(response.status(), StatusCode::OK);
        let session = listener.accept().await.expect("accepts");
        assert!(!session.capabilities().contains(Capabilities::SERVER_OPEN));
        assert_eq!(session.open().await.expect_err("impossible").kind(), ErrorKind::Unsupported);
        assert_eq!(session.ping().await.expect_err("impossible").kind(), ErrorKind::Unsupported);
        let mut channel = session.accept().await.expect("accepts");
        body.send_data(Bytes::from_static(b"abc"), false).expect("sends");
        let mut buf = [0; 8];
        assert_eq!(channel.read(&mut buf).await.expect("reads"), 3);
        assert_eq!(channel.recv_half().stop(1).expect_err("impossible").kind(), ErrorKind::Unsupported);

        // The client's reset, with a code above HTTP/2's own.
        body.send_reset(h2::Reason::from(0x100 + 7));
        let error = channel.read(&mut buf).await.expect_err("reset");
        assert_eq!((error.kind(), error.code()), (ErrorKind::Reset, Some(7)));
        drop(channel);

        // The server's.
        let (response, _body) = requests.send_request(request(), false).expect("requests");
        let mut response = response.await.expect("answers").into_body();
        let mut channel = session.accept().await.expect("accepts");
        channel.send_half().reset(9).expect("resets");
        let error = response.data().await.expect("an item").expect_err("reset");
        assert_eq!(error.reason(), Some(h2::Reason::from(0x100 + 9)));
        drop(channel);

        // The response's end first, the request goes on.
        let (response, mut body) = requests.send_request(request(), false).expect("requests");
        let mut response = response.await.expect("answers").into_body();
        let mut channel = session.accept().await.expect("accepts");
        channel.write_all(b"bye").await.expect("writes");
        channel.finish().expect("finishes");
        assert_eq!(response.data().await.expect("data").expect("data"), Bytes::from_static(b"bye"));
        while let Some(end) = response.data().await {
            assert!(end.expect("a clean end").is_empty());
        }
        body.send_data(Bytes::from_static(b"late"), true).expect("sends");
        assert_eq!(channel.read(&mut buf).await.expect("reads"), 4);
        assert_eq!(channel.read(&mut buf).await.expect("ends"), 0);
        drop(channel);
        while session.stats().channels_open > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(session.stats().budget_used, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unread_raw_body_waits_in_the_window() {
    let listener = listen("h2c://127.0.0.1:0", &Config::default()).await.expect("listens");
    within(async {
        let mut requests = connect(&listener).await;
        let (response, mut body) = requests.send_request(request(), false).expect("requests");
        let _response = response.await.expect("answers");
        let session = listener.accept().await.expect("accepts");
        let mut channel = session.accept().await.expect("accepts");
        let total = 2 << 20;
        let mut sent = 0;
        let sending = tokio::spawn(async move {
            while sent < total {
                body.reserve_capacity(16_384);
                let room = std::future::poll_fn(|cx| body.poll_capacity(cx)).await.expect("open").expect("open");
                let len = room.min(total - sent);
                body.send_data(Bytes::from(vec![1; len]), sent + len == total).expect("sends");
                sent += len;
            }
        });
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let stats = session.stats();
        // The stream window of docs/h2.md, section 10, which the budget has paid for.
        assert!(stats.recv_buffered <= 1632 * 1024 && stats.recv_buffered <= stats.budget_used, "{stats:?}");
        let (mut read, mut buf) = (0, vec![0; 30_000]);
        loop {
            match channel.read(&mut buf).await.expect("reads") {
                0 => break,
                len => read += len,
            }
        }
        assert_eq!(read, total);
        sending.await.expect("sender");
    })
    .await;
}
