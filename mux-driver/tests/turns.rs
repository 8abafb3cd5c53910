//! Many channels that write as fast as they can share the transport, whatever their tasks do.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use backend_qmux::Qmux;
use mux_api::{Capabilities, Channel, Config, Role, Session, SessionInfo};
use mux_driver::{Profile, Stream, establish};
use tokio::io::{DuplexStream, duplex, split};

const BLOCK: usize = 64 * 1024;

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("finishes in time")
}

async fn session(io: DuplexStream, role: Role) -> Session {
    let (reader, writer) = split(io);
    let stream = Stream { reader: Box::new(reader), writer: Box::new(writer), guard: None };
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
