//! Sessions over a byte stream that the application brought.

use std::time::Duration;

use libmux::backend::ByteStream;
use libmux::{Config, ErrorKind, Role, Session};
use tokio::time::timeout;

async fn pair(scheme: &str) -> (Session, Session) {
    let (near, far) = tokio::io::duplex(4096);
    let [near, far] = [near, far].map(|stream| {
        let (reader, writer) = tokio::io::split(stream);
        ByteStream::new(reader, writer)
    });
    let config = Config::default();
    let client = libmux::adopt(scheme, near, Role::Client, &config);
    let server = libmux::adopt(scheme, far, Role::Server, &config);
    let (client, server) = tokio::join!(client, server);
    (client.expect(scheme), server.expect(scheme))
}

#[tokio::test]
async fn a_session_runs_on_a_stream_of_ones_own() {
    for scheme in ["qmux", "h2c"] {
        let (client, server) = pair(scheme).await;
        for (opener, acceptor) in [(&client, &server), (&server, &client)] {
            let exchange = async {
                let mut near = opener.open().await.expect("opens");
                near.write_all(&[7; 100_000]).await.expect("writes");
                near.finish().expect("finishes");
                near
            };
            let answer = async {
                let mut far = acceptor.accept().await.expect("accepts");
                let mut total = 0;
                let mut buf = [0; 8192];
                loop {
                    match far.read(&mut buf).await.expect("reads") {
                        0 => break total,
                        n => total += n,
                    }
                }
            };
            let both = async { tokio::join!(exchange, answer) };
            let (_near, total) = timeout(Duration::from_secs(30), both).await.expect("finishes in time");
            assert_eq!(total, 100_000, "{scheme}");
        }
        client.close(3, "done").expect("a code of the application");
        let cause = timeout(Duration::from_secs(30), server.closed()).await.expect("ends in time");
        assert_eq!((cause.kind(), cause.code()), (ErrorKind::Closed, Some(3)), "{scheme}: {cause}");
    }
}

#[tokio::test]
async fn a_stream_that_ends_at_once_is_an_error() {
    let config = Config::default();
    for scheme in ["qmux", "h2c"] {
        for role in [Role::Client, Role::Server] {
            let (near, far) = tokio::io::duplex(64);
            drop(far);
            let (reader, writer) = tokio::io::split(near);
            let adopted = libmux::adopt(scheme, ByteStream::new(reader, writer), role, &config);
            let error = timeout(Duration::from_secs(30), adopted).await.expect("answers in time").expect_err(scheme);
            assert!(!error.to_string().is_empty(), "{scheme}");
        }
    }
}

#[tokio::test]
async fn a_wire_that_needs_packets_says_so() {
    let (near, _far) = tokio::io::duplex(64);
    let (reader, writer) = tokio::io::split(near);
    let error = libmux::adopt("quic", ByteStream::new(reader, writer), Role::Client, &Config::default()).await;
    assert_eq!(error.expect_err("QUIC has no byte stream").kind(), ErrorKind::Unsupported);
}
