//! Sessions over transports that behave badly: tiny, slow, failing, short.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use backend_qmux::Qmux;
use mux_api::{Capabilities, Config, ErrorKind, Role, Session, SessionInfo};
use mux_driver::{Profile, Stream, establish};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex, split};

async fn session(io: impl AsyncRead + AsyncWrite + Send + 'static, role: Role) -> mux_api::Result<Session> {
    let (reader, writer) = split(io);
    let stream = Stream { reader: Box::new(reader), writer: Box::new(writer), guard: None };
    let capabilities = |_| Capabilities::none();
    let profile = Profile { wire: Qmux, extension: Some(false), capabilities };
    establish(stream, profile, SessionInfo::new(role, "test"), &Config::default()).await
}

async fn pair(capacity: usize) -> (Session, Session) {
    let (near, far) = duplex(capacity);
    let (near, far) = tokio::join!(session(near, Role::Client), session(far, Role::Server));
    (near.expect("near"), far.expect("far"))
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("finishes in time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transport_of_any_size_carries_everything() {
    // A turn of both tasks for each filling of the smallest ones: a busy machine takes a millisecond for each.
    for (capacity, len) in [(1, 10_100), (7, 100_000), (4096, 480_000), (1 << 20, 480_000)] {
        let (near, far) = pair(capacity).await;
        let data: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        let expected = data.clone();
        let reading = tokio::spawn(async move {
            let mut channel = far.accept().await.expect("accepts");
            let mut seen = Vec::new();
            let mut buf = [0; 3000];
            loop {
                match channel.read(&mut buf).await.expect("reads") {
                    0 => break,
                    len => seen.extend_from_slice(&buf[..len]),
                }
            }
            (seen, far)
        });
        within(async {
            let mut channel = near.open().await.expect("opens");
            for chunk in data.chunks(10_007) {
                channel.write_all(chunk).await.expect("writes");
            }
            channel.finish().expect("finishes");
            let (seen, _far) = reading.await.expect("reader");
            assert_eq!(seen, expected, "capacity {capacity}");
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_write_before_they_read_through_a_narrow_pipe() {
    const CHANNELS: usize = 16;
    const LEN: usize = 200_000;
    let (near, far) = pair(4096).await;
    let side = |session: Session, opens: bool| {
        tokio::spawn(async move {
            let mut tasks = Vec::new();
            for _ in 0..CHANNELS {
                let channel = if opens { session.open().await } else { session.accept().await };
                let (mut send, mut recv) = channel.expect("a channel").split();
                tasks.push(tokio::spawn(async move {
                    send.write_all(&vec![7; LEN]).await.expect("writes");
                    send.finish().expect("finishes");
                    let (mut total, mut buf) = (0, vec![0; 65536]);
                    loop {
                        match recv.read(&mut buf).await.expect("reads") {
                            0 => break,
                            len => total += len,
                        }
                    }
                    assert_eq!(total, LEN);
                }));
            }
            for task in tasks {
                task.await.expect("a channel's task");
            }
            session
        })
    };
    within(async {
        let (a, b) = (side(near, true), side(far, false));
        // Both sessions live until both sides have read everything: dropping one aborts it.
        let _sessions = (a.await.expect("near"), b.await.expect("far"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transport_that_ends_in_mid_transfer_is_never_a_clean_end() {
    for cut in [0, 1, 13, 14, 40, 5_000, 100_000] {
        let (near, far) = duplex(8192);
        let far = Cut { io: far, left: 13 + cut };
        let (near, far) = tokio::join!(session(near, Role::Client), session(far, Role::Server));
        let (Ok(near), Ok(far)) = (near, far) else { continue };
        let writing = tokio::spawn(async move {
            if let Ok(mut channel) = near.open().await {
                let _ = channel.write_all(&vec![1; 500_000]).await;
                let _ = channel.finish();
            }
            near.closed().await
        });
        within(async {
            if let Ok(mut channel) = far.accept().await {
                let (mut total, mut buf) = (0, [0; 5000]);
                let error = loop {
                    match channel.read(&mut buf).await {
                        Ok(0) => panic!("cut at {cut}: {total} bytes taken for all"),
                        Ok(len) => total += len,
                        Err(error) => break error,
                    }
                };
                assert_eq!(error.kind(), ErrorKind::Closed, "cut at {cut}: {error}");
            }
            drop(far);
            writing.await.expect("writer");
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transport_that_fails_ends_the_session_with_its_reason() {
    for fault in [Fault::Error, Fault::WriteZero] {
        let (near, far) = duplex(1 << 20);
        let near = Faulty { io: near, fault, after: 3 };
        let (near, far) = tokio::join!(session(near, Role::Client), session(far, Role::Server));
        let (near, _far) = (near.expect("near"), far.expect("far"));
        within(async {
            let mut channel = near.open().await.expect("opens");
            while channel.write_all(&[1; 9000]).await.is_ok() {}
            let cause = near.closed().await;
            assert_eq!(near.cause().map(|cause| cause.to_string()), Some(cause.to_string()));
            assert!(cause.message().contains("connection failed"), "{cause}");
            assert!(near.open().await.is_err() && near.accept().await.is_err());
        })
        .await;
    }
}

/// Ends after so many bytes were read beyond the announcement, without which there is no session to cut.
struct Cut {
    io: DuplexStream,
    left: usize,
}

impl AsyncRead for Cut {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Ok(()));
        }
        let most = self.left.min(buf.remaining());
        let mut part = vec![0; most];
        let mut part = ReadBuf::new(&mut part);
        std::task::ready!(Pin::new(&mut self.io).poll_read(cx, &mut part))?;
        buf.put_slice(part.filled());
        self.left -= part.filled().len();
        Poll::Ready(Ok(()))
    }
}

/// How a transport fails.
#[derive(Clone, Copy)]
enum Fault {
    Error,
    WriteZero,
}

/// Fails after so many writes.
struct Faulty {
    io: DuplexStream,
    fault: Fault,
    after: usize,
}

impl AsyncRead for Faulty {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Cut {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl AsyncWrite for Faulty {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.after > 0 {
            self.after -= 1;
            return Pin::new(&mut self.io).poll_write(cx, buf);
        }
        match self.fault {
            Fault::Error => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Fault::WriteZero => Poll::Ready(Ok(0)),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
