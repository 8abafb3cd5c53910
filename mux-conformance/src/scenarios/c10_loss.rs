//! Clause 10: whatever the end, nothing that was finished is lost, and what was cut short never looks whole.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mux_api::{Capabilities, Channel, Error, Origin, Session};

use crate::context::{Cx, lock};
use crate::random::{Random, patterned};
use crate::scenario::{Needs, Scenario, scenario};
use crate::tools::{can, channel, check_pattern, read_pattern};

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario!(
        10,
        "close-loses-nothing",
        "Random writes, then finish, close or drop, then the session's close, with a slow reader: all bytes and then the \
         end, or an explicit error; never a short read and a clean end.",
        close_loses_nothing
    )
    .seeds(12, 10_000),
    scenario!(
        10,
        "drain-loses-nothing",
        "Requests that cross a drain() are either served once and answered, or fail safe to retry and are never served.",
        drain_loses_nothing
    )
    .seeds(8, 10_000),
    scenario!(
        10,
        "goodbye-is-heard",
        "The session's close, with its code, reaches an end that keeps writing to a peer who has stopped reading.",
        goodbye_is_heard
    )
    .seeds(10, 500),
    scenario!(
        10,
        "cut-anywhere",
        "A connection that breaks in the middle of transfers ends each of them with all its bytes or an error: never a \
         short read and a clean end.",
        cut_anywhere
    )
    .seeds(4, 100)
    .needs(Needs::Link),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// finish(), and the half is kept.
    Finish,
    /// close() of the channel.
    Close,
    /// Dropped unfinished.
    Drop,
    /// Neither finished nor dropped when the session is closed.
    Keep,
    /// Closed after the session.
    Late,
}

/// One channel's writer; what it wrote, and the way it ended.
async fn write_somehow(channel: Channel, mut random: Random) -> (Channel, usize, Way) {
    let mut channel = channel;
    let total = random.size(300_000) - 1;
    let mut at = 0;
    while at < total {
        let some = random.size(70_000).min(total - at);
        if channel.write_all(&patterned(at, some)).await.is_err() {
            break;
        }
        at += some;
    }
    let way = [Way::Finish, Way::Close, Way::Drop, Way::Keep, Way::Late][random.below(5)];
    (channel, at, way)
}

async fn close_loses_nothing(cx: &Cx) {
    let mut random = cx.random();
    let window = [4096, 30_000, 256 * 1024][random.below(3)];
    let pair = cx.pair(|config| config.window = window).await;
    let visible = can(&pair.client, Capabilities::RESET_VISIBLE);
    let by_client = random.chance(2) || !can(&pair.server, Capabilities::SERVER_OPEN);
    let (closer, other) = if by_client { (&pair.client, &pair.server) } else { (&pair.server, &pair.client) };
    let count = 1 + random.below(6);
    let mut readers = Vec::new();
    let mut writers = Vec::new();
    for _ in 0..count {
        let (near, mut far) = cx.step("opening", channel(closer, other)).await;
        let mut slow = cx.random();
        readers.push(tokio::spawn(async move {
            let mut buf = vec![0; 1 + slow.below(60_000)];
            let mut at = 0;
            loop {
                if slow.chance(8) {
                    tokio::time::sleep(Duration::from_micros(slow.below(3000) as u64)).await;
                }
                match far.read(&mut buf).await {
                    Ok(0) => return (at, Ok(())),
                    Ok(len) => {
                        check_pattern(at, &buf[..len]);
                        at += len;
                    }
                    Err(error) => return (at, Err(error)),
                }
            }
        }));
        writers.push(tokio::spawn(write_somehow(near, cx.random())));
    }
    let mut wrote = Vec::new();
    let (mut kept, mut late) = (Vec::new(), Vec::new());
    for writer in writers {
        let (mut channel, total, way) = cx.step("a writer", writer).await.expect("task");
        match way {
            Way::Finish => {
                channel.finish().expect("finishes");
                kept.push(channel);
            }
            Way::Close => channel.close(),
            Way::Drop => drop(channel),
            Way::Keep => kept.push(channel),
            Way::Late => late.push(channel),
        }
        wrote.push((total, way));
    }
    closer.close(77, "that was all").expect("closes");
    late.into_iter().for_each(Channel::close);
    for (reader, (total, way)) in readers.into_iter().zip(wrote) {
        let (at, end) = cx.step(format!("the reader of {total} bytes ({way:?})"), reader).await.expect("task");
        match (way, end) {
            (Way::Finish | Way::Close, Ok(())) => assert_eq!(at, total, "a clean end after part of the bytes"),
            (Way::Finish | Way::Close, Err(error)) => {
                panic!("{at} of {total} bytes came of what was finished ({way:?}) before close(): {error:?}")
            }
            (Way::Drop | Way::Keep | Way::Late, Ok(())) => {
                assert!(!visible, "a clean end ({at} of {total} bytes) of what was never finished ({way:?})");
            }
            (Way::Drop | Way::Keep | Way::Late, Err(_)) => assert!(at <= total),
        }
    }
    drop(kept);
    cx.step("the closing end", closer.closed()).await;
    cx.step("the other end", other.closed()).await;
    if !visible {
        cx.without(Capabilities::RESET_VISIBLE, "what was not finished may look like an end");
    }
}

/// Requests served, by number.
type Served = Arc<Mutex<BTreeSet<u32>>>;

/// Reads a request to its end and answers it with itself.
async fn serve(mut channel: Channel, served: Served) {
    let (mut request, mut buf) = (Vec::new(), vec![0; 20_000]);
    loop {
        match channel.read(&mut buf).await {
            Ok(0) => break,
            Ok(len) => request.extend_from_slice(&buf[..len]),
            // It was given up before it was whole.
            Err(_) => return,
        }
    }
    let number = request.first_chunk().map(|number| u32::from_be_bytes(*number)).expect("a whole request");
    assert!(lock(&served).insert(number), "request {number} came twice");
    channel.write_all(&request).await.unwrap_or_else(|error| panic!("answering request {number}: {error:?}"));
    channel.close();
}

/// Makes a request. Whether it was answered; where not, nobody has acted on it.
async fn ask(session: Session, number: u32, size: usize) -> bool {
    let request = [&number.to_be_bytes()[..], &patterned(0, size)].concat();
    let asked = async {
        let mut channel = session.open().await?;
        channel.write_all(&request).await?;
        channel.finish()?;
        let (mut answer, mut buf) = (Vec::new(), vec![0; 20_000]);
        loop {
            match channel.read(&mut buf).await? {
                0 => return Ok::<_, Error>(answer),
                len => answer.extend_from_slice(&buf[..len]),
            }
        }
    };
    match asked.await {
        Ok(answer) => {
            assert!(answer == request, "{} of {} bytes of request {number} came back", answer.len(), request.len());
            true
        }
        Err(error) => {
            assert!(error.is_retry_safe(), "request {number}: {error:?}");
            false
        }
    }
}

async fn drain_loses_nothing(cx: &Cx) {
    let mut random = cx.random();
    let window = [4096, 256 * 1024][random.below(2)];
    let pair = cx
        .pair(|config| {
            config.window = window;
            config.channel_backlog = 1000;
        })
        .await;
    let by_dialer = !can(&pair.server, Capabilities::SERVER_OPEN) || random.chance(2);
    let (asking, serving) = if by_dialer { (&pair.client, &pair.server) } else { (&pair.server, &pair.client) };
    let drainer = if random.chance(4) { asking } else { serving };
    let served = Served::default();
    let serving = tokio::spawn({
        let (session, served) = (serving.clone(), Arc::clone(&served));
        async move {
            let mut tasks = Vec::new();
            while let Ok(channel) = session.accept().await {
                tasks.push(tokio::spawn(serve(channel, Arc::clone(&served))));
            }
            for task in tasks {
                task.await.expect("a request's task");
            }
        }
    });
    let count = 1 + random.below(40);
    let drain_at = random.below(count + 1);
    let mut asked = Vec::new();
    for at in 0..=count {
        if at == drain_at {
            drainer.drain();
        }
        if at < count {
            let size = random.size(100_000);
            asked.push(tokio::spawn(ask(asking.clone(), at as u32, size)));
        }
        match random.below(6) {
            0 => tokio::time::sleep(Duration::from_micros(random.below(1500) as u64)).await,
            1 | 2 => tokio::task::yield_now().await,
            _ => {}
        }
    }
    let mut answered = BTreeSet::new();
    for (number, ask) in asked.into_iter().enumerate() {
        if cx.step(format!("request {number} of {count}"), ask).await.expect("task") {
            answered.insert(number as u32);
        }
    }
    drainer.close(0, "drained").expect("closes");
    cx.step("the server's end", serving).await.expect("task");
    assert_eq!(*lock(&served), answered, "served, and answered");
    cx.step("the dialer's end", pair.client.closed()).await;
    cx.step("the acceptor's end", pair.server.closed()).await;
}

async fn goodbye_is_heard(cx: &Cx) {
    let mut random = cx.random();
    let pair = cx.pair(|_| ()).await;
    let (mut near, far) = cx.step("opening", channel(&pair.client, &pair.server)).await;
    let size = random.size(30_000);
    let writing = tokio::spawn(async move { while near.write_all(&vec![1; size]).await.is_ok() {} });
    tokio::time::sleep(Duration::from_micros(random.below(500) as u64)).await;
    pair.server.close(5, "enough").expect("closes");
    let cause = cx.step("the end of the one that writes", pair.client.closed()).await;
    if can(&pair.client, Capabilities::GOAWAY) {
        assert_eq!((cause.origin(), cause.code(), cause.message()), (Origin::Peer, Some(5), "enough"), "{cause:?}");
    } else {
        assert_ne!(cause.origin(), Origin::Local, "{cause:?}");
        cx.without(Capabilities::GOAWAY, "the session's end has neither code nor reason");
    }
    cx.step("the writer", writing).await.expect("task");
    cx.step("the closing end", pair.server.closed()).await;
    drop(far);
}

async fn cut_anywhere(cx: &Cx) {
    const MOST: usize = 1 << 20;
    let mut random = cx.random();
    let link = cx.link(32 * 1024);
    let pair = cx
        .pair_via(&link, |config| {
            config.keepalive = Duration::from_millis(500);
            config.linger = Duration::from_secs(1);
        })
        .await;
    let (mut writers, mut readers) = (Vec::new(), Vec::new());
    for at in 0..4 {
        let (near, far) = cx.step("opening", channel(&pair.client, &pair.server)).await;
        for (mut send, mut recv, len) in [near.split(), far.split()]
            .into_iter()
            .map(|(send, recv)| (send, recv, random.size(MOST) + at * 100_000))
            .collect::<Vec<_>>()
        {
            writers.push(tokio::spawn(async move {
                // Some of it may never be taken.
                if crate::tools::write_pattern(&mut send, len).await.is_ok() {
                    let _ = send.finish();
                    let _ = send.ended().await;
                }
                len
            }));
            readers.push(tokio::spawn(async move { read_pattern(&mut recv).await }));
        }
    }
    // A fast link is through within some milliseconds.
    link.throttle(if random.chance(3) { 0 } else { 20 << 20 });
    tokio::time::sleep(Duration::from_micros(random.below(60_000) as u64)).await;
    link.cut();
    for (name, session) in [("the dialer", &pair.client), ("the acceptor", &pair.server)] {
        let cause = cx.step(format!("{name} notices"), session.closed()).await;
        assert_ne!(cause.origin(), Origin::Local, "{name}: {cause:?}");
    }
    let mut lens = Vec::new();
    for writer in writers {
        lens.push(cx.step("a writer", writer).await.expect("task"));
    }
    for (at, reader) in readers.into_iter().enumerate() {
        let (got, end) = cx.step("a reader", reader).await.expect("task");
        // Each end's writer stands beside its own reader, who reads what the other one writes.
        let sent = lens[at ^ 1];
        match end {
            Ok(()) => assert_eq!(got, sent, "a clean end after part of the bytes"),
            Err(_) => assert!(got <= sent),
        }
    }
}
