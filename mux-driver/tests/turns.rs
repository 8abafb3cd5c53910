//! Many channels that write as fast as they can share the transport, whatever their tasks do.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use backend_qmux::Qmux;
use mux_api::{Capabilities, Channel, Config, Role, Session, SessionInfo, WriteFlags};
use mux_driver::{Profile, Stream, establish};
use tokio::io::{AsyncWrite, DuplexStream, duplex, split};

const BLOCK: usize = 64 * 1024;

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("finishes in time")
}

async fn session(io: DuplexStream, role: Role) -> Session {
    let (reader, writer) = split(io);
    over(Stream { reader: Box::new(reader), writer: Box::new(writer), guard: None }, role).await
}

async fn over(stream: Stream, role: Role) -> Session {
    let profile = Profile { wire: Qmux, extension: Some(true), capabilities: |_| Capabilities::none() };
    establish(stream, profile, SessionInfo::new(role, "test"), &Config::default()).await.expect("is established")
}

/// So many open channels on a narrow transport; what the far end reads of each is counted from the moment it is told to.
async fn channels(count: usize) -> (Session, Vec<Channel>, Arc<Vec<AtomicUsize>>, tokio::sync::watch::Sender<bool>) {
    let (near, far) = duplex(BLOCK);
    let (near, far) = tokio::join!(session(near, Role::Client), session(far, Role::Server));
    let read: Arc<Vec<AtomicUsize>> = Arc::new((0..count).map(|_| AtomicUsize::new(0)).collect());
    let (go, told) = tokio::sync::watch::channel(false);
    let counts = Arc::clone(&read);
    let opened = Arc::new(tokio::sync::Semaphore::new(0));
    let accepted = Arc::clone(&opened);
    tokio::spawn(async move {
        let mut tasks = tokio::task::JoinSet::new();
        for at in 0..count {
            let mut channel = far.accept().await.expect("accepts");
            accepted.add_permits(1);
            let (counts, mut told) = (Arc::clone(&counts), told.clone());
            tasks.spawn(async move {
                let mut buf = vec![0; BLOCK];
                if told.wait_for(|go| *go).await.is_ok() {
                    while let Ok(len @ 1..) = channel.read(&mut buf).await {
                        counts[at].fetch_add(len, Ordering::Relaxed);
                    }
                }
            });
        }
        while tasks.join_next().await.is_some() {}
    });
    let mut channels = Vec::new();
    for _ in 0..count {
        let mut channel = near.open().await.expect("opens");
        channel.opened().await.expect("is confirmed");
        channels.push(channel);
    }
    opened.acquire_many(count as u32).await.expect("accepts").forget();
    (near, channels, read, go)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_write_as_fast_as_they_can_get_equal_shares() {
    const CHANNELS: usize = 8;
    const EACH: usize = 4 << 20;
    within(async {
        let (_session, channels, read, go) = channels(CHANNELS).await;
        go.send(true).expect("the far end listens");
        let mut tasks = tokio::task::JoinSet::new();
        for mut channel in channels {
            tasks.spawn(async move {
                let data = vec![7; BLOCK];
                while channel.write_all(&data).await.is_ok() {}
            });
        }
        loop {
            let sums: Vec<usize> = read.iter().map(|count| count.load(Ordering::Relaxed)).collect();
            if sums.iter().sum::<usize>() >= CHANNELS * EACH {
                assert!(sums.iter().all(|sum| *sum >= EACH / 4), "{sums:?}");
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_was_woken_to_write_and_does_not_come_holds_nobody_up() {
    within(async {
        let (_session, mut channels, read, go) = channels(8).await;
        let data = vec![7; BLOCK];
        // Nobody reads: the transport is full, and all but the last wait with a waker that does nothing.
        let mut cx = Context::from_waker(Waker::noop());
        let last = channels.pop().expect("eight");
        for channel in &mut channels {
            while pin!(channel.write_all(&data)).poll(&mut cx).is_ready() {}
        }
        let writing = tokio::spawn(async move {
            let mut last = last;
            for _ in 0..64 {
                last.write_all(&data).await.expect("writes");
            }
            last
        });
        go.send(true).expect("the far end listens");
        let _last = writing.await.expect("writes");
        while read[7].load(Ordering::Relaxed) < 64 * BLOCK {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Counts the writes.
struct Counted<W>(W, Arc<AtomicUsize>);

impl<W: AsyncWrite + Unpin> AsyncWrite for Counted<W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

async fn counted(io: DuplexStream, role: Role) -> (Session, Arc<AtomicUsize>) {
    let (reader, writer) = split(io);
    let writes = Arc::new(AtomicUsize::new(0));
    let writer = Box::new(Counted(writer, Arc::clone(&writes)));
    (over(Stream { reader: Box::new(reader), writer, guard: None }, role).await, writes)
}

#[tokio::test]
async fn an_exchange_on_a_new_channel_is_one_write_of_each_end() {
    const EXCHANGES: usize = 100;
    within(async {
        let (near, far) = duplex(BLOCK);
        let ((near, asked), (far, answered)) = tokio::join!(counted(near, Role::Client), counted(far, Role::Server));
        tokio::spawn(async move {
            while let Ok(channel) = far.accept().await {
                tokio::spawn(async move {
                    let (mut send, mut recv) = channel.split();
                    let mut buf = [0; 1024];
                    while let len @ 1.. = recv.read(&mut buf).await.expect("reads") {
                        send.write_all(&buf[..len]).await.expect("writes");
                    }
                    send.write_all_with(&[], WriteFlags::FIN).await.expect("finishes");
                });
            }
        });
        // What both sides say once is over.
        near.ping().await.expect("pings");
        let before = [&asked, &answered].map(|writes| writes.load(Ordering::Relaxed));
        for _ in 0..EXCHANGES {
            let (mut send, mut recv) = near.open().await.expect("opens").split();
            send.write_all_with(&[7; 64], WriteFlags::FIN).await.expect("writes");
            let mut buf = [0; 100];
            let mut len = 0;
            while let more @ 1.. = recv.read(&mut buf[len..]).await.expect("reads") {
                len += more;
            }
            assert_eq!(buf[..len], [7; 64]);
        }
        let after = [&asked, &answered].map(|writes| writes.load(Ordering::Relaxed));
        for (before, after) in before.into_iter().zip(after) {
            assert!((EXCHANGES..=EXCHANGES + 5).contains(&(after - before)), "{} writes", after - before);
        }
    })
    .await;
}

#[tokio::test]
async fn one_that_was_woken_to_read_and_does_not_come_back_holds_no_answer_up() {
    within(async {
        let (near, far) = duplex(BLOCK);
        let (near, far) = tokio::join!(session(near, Role::Client), session(far, Role::Server));
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok(channel) = far.accept().await {
                held.push(channel);
            }
        });
        for _ in 0..100 {
            let mut channel = near.open().await.expect("opens");
            channel.write_all(&[7; 64]).await.expect("writes");
            // Who accepted it does nothing with what there is to read.
            channel.opened().await.expect("is confirmed");
        }
    })
    .await;
}
