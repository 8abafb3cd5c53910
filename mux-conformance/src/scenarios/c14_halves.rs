//! Clause 14: halves are independent. And what Go's nettest asks of every connection: basic transfers, ping-pong, racing
//! reads and writes, blocked calls that a close wakes, many methods at once.

use std::sync::Arc;
use std::time::Duration;

use mux_api::{ErrorKind, Origin, Session};

use crate::context::Cx;
use crate::random::{Random, patterned};
use crate::scenario::{Scenario, scenario};
use crate::tools::{channel, read_exactly, read_failure, read_whole, write_failure, write_pattern};

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario!(
        4,
        "basic-transfer",
        "8 MiB there and back arrive whole, in writes and reads of every size.",
        basic_transfer
    )
    .seeds(1, 20),
    scenario!(4, "ping-pong", "A thousand messages go back and forth, one at a time.", ping_pong),
    scenario!(
        4,
        "many-channels-at-once",
        "Many tasks on many channels of one session, opened by both ends: every byte arrives once and in order.",
        many_channels_at_once
    )
    .seeds(4, 500),
    scenario!(
        14,
        "halves-in-threads",
        "Four threads, each with one half of one channel, move bytes in both directions at the same time.",
        halves_in_threads
    ),
    scenario!(
        14,
        "stuck-writer-beside-reader",
        "While a channel's writer waits for a peer that does not read, its reader goes on.",
        stuck_writer_beside_reader
    ),
    scenario!(
        10,
        "close-wakes-the-blocked",
        "A local close or abort wakes every call that waits: reads, writes, opens, accepts, pings.",
        close_wakes_the_blocked
    ),
    scenario!(
        14,
        "methods-at-once",
        "Any methods of a session at once, from many tasks, then its close: nobody waits for ever.",
        methods_at_once
    )
    .seeds(4, 1000),
];

async fn basic_transfer(cx: &Cx) {
    const LEN: usize = 8 << 20;
    let pair = cx.pair(|_| ()).await;
    let (near, far) = cx.step("opening", channel(&pair.client, &pair.server)).await;
    let ((mut s1, mut r1), (mut s2, mut r2)) = (near.split(), far.split());
    let mut sizes = cx.random();
    let writing = async {
        let mut at = 0;
        while at < LEN {
            let some = sizes.size(300_000).min(LEN - at);
            match sizes.below(3) {
                0 => s1.write_bytes(patterned(at, some).into()).await.expect("hands over"),
                _ => s1.write_all(&patterned(at, some)).await.expect("writes"),
            }
            at += some;
        }
        s1.finish().expect("finishes");
        s1.ended().await.expect("everything was taken");
    };
    let echoing = async {
        while let Some(bytes) = r2.read_bytes(usize::MAX).await.expect("reads") {
            s2.write_bytes(bytes).await.expect("echoes");
        }
        s2.finish().expect("finishes");
    };
    let all = async { tokio::join!(writing, echoing, read_whole(&mut r1, LEN)) };
    cx.step("8 MiB there and back", all).await;
    drop((s1, r1, s2, r2));
    cx.settled(&pair).await;
    cx.close(pair).await;
}

async fn ping_pong(cx: &Cx) {
    cx.both_ways(
        |_| (),
        async |opener, acceptor| {
            let (mut near, mut far) = cx.step("opening", channel(opener, acceptor)).await;
            for round in 0..1000u32 {
                let word = round.to_be_bytes();
                near.write_all(&word).await.expect("writes");
                cx.step("ping", read_exactly(far.recv_half(), &word)).await;
                far.write_all(&word).await.expect("writes");
                cx.step("pong", read_exactly(near.recv_half(), &word)).await;
            }
            near.close();
            far.close();
        },
    )
    .await;
}

/// One end's part of a channel; how much goes in each direction stands in the seed, which is the channel's first word.
async fn play(channel: mux_api::Channel, opener: bool, seed: u64) {
    let mut random = Random::new(seed);
    let (there, back) = (random.size(200_000), random.size(200_000));
    let (mut send, mut recv) = channel.split();
    let (ours, theirs) = if opener { (there, back) } else { (back, there) };
    let writing = async {
        if opener {
            send.write_all(&seed.to_be_bytes()).await.expect("writes");
        }
        let mut random = Random::new(seed ^ u64::from(opener) ^ 7);
        let mut at = 0;
        while at < ours {
            let some = random.size(70_000).min(ours - at);
            send.write_all(&patterned(at, some)).await.expect("writes");
            at += some;
            if random.chance(10) {
                tokio::time::sleep(Duration::from_micros(random.below(800) as u64)).await;
            }
        }
        send.finish().expect("finishes");
    };
    tokio::join!(writing, read_whole(&mut recv, theirs));
}

async fn open_and_accept(session: Session, opens: u64, accepts: u64, seed: u64) {
    let mut tasks = Vec::new();
    let opening = async {
        let mut tasks = Vec::new();
        for at in 0..opens {
            let channel = session.open().await.expect("opens");
            tasks.push(tokio::spawn(play(channel, true, seed.wrapping_add(at))));
        }
        tasks
    };
    let accepting = async {
        for _ in 0..accepts {
            let mut channel = session.accept().await.expect("accepts");
            tasks.push(tokio::spawn(async move {
                let mut seed = [0; 8];
                let mut at = 0;
                while at < 8 {
                    let len = channel.read(&mut seed[at..]).await.expect("reads");
                    assert!(len > 0, "an end before the seed");
                    at += len;
                }
                play(channel, false, u64::from_be_bytes(seed)).await;
            }));
        }
    };
    let (opened, ()) = tokio::join!(opening, accepting);
    for task in opened.into_iter().chain(tasks) {
        task.await.expect("a channel's task");
    }
}

async fn many_channels_at_once(cx: &Cx) {
    let mut random = cx.random();
    let window = [4096, 20_000, 256 * 1024][random.below(3)];
    let buffer = [4096, 50_000, 256 * 1024][random.below(3)];
    let pair = cx
        .pair(|config| {
            config.window = window;
            config.send_buffer = buffer;
        })
        .await;
    let may = cx.server_may_open(&pair).await;
    let (there, back) = (1 + random.below(30) as u64, if may { random.below(30) as u64 } else { 0 });
    let (a, b) = (random.next() >> 1, random.next() >> 1);
    let all = async {
        tokio::join!(
            open_and_accept(pair.client.clone(), there, back, a),
            open_and_accept(pair.server.clone(), back, there, b)
        )
    };
    cx.step(format!("{there} + {back} channels"), all).await;
    cx.settled(&pair).await;
    cx.close(pair).await;
}

async fn halves_in_threads(cx: &Cx) {
    const LEN: usize = 4 << 20;
    let pair = cx.pair(|_| ()).await;
    let (near, far) = cx.step("opening", channel(&pair.client, &pair.server)).await;
    let runtime = tokio::runtime::Handle::current();
    let mut threads = Vec::new();
    for (mut send, mut recv) in [near.split(), far.split()] {
        let inner = runtime.clone();
        threads.push(std::thread::spawn(move || {
            inner.block_on(async {
                write_pattern(&mut send, LEN).await.expect("writes");
                send.finish().expect("finishes");
                send.ended().await.expect("taken");
            });
        }));
        let inner = runtime.clone();
        threads.push(std::thread::spawn(move || inner.block_on(read_whole(&mut recv, LEN))));
    }
    let joined = tokio::task::spawn_blocking(move || threads.into_iter().all(|thread| thread.join().is_ok()));
    assert!(cx.step("four threads", joined).await.expect("task"), "a thread panicked");
    cx.settled(&pair).await;
    cx.close(pair).await;
}

async fn stuck_writer_beside_reader(cx: &Cx) {
    const LEN: usize = 2 << 20;
    cx.both_ways(
        |config| config.window = 64 * 1024,
        async |opener, acceptor| {
            let (near, far) = cx.step("opening", channel(opener, acceptor)).await;
            let ((mut stuck, mut recv), (mut send, unread)) = (near.split(), far.split());
            let stuck = tokio::spawn(async move { write_failure(&mut stuck).await });
            let writing = async {
                write_pattern(&mut send, LEN).await.expect("writes");
                send.finish().expect("finishes");
            };
            let moving = async { tokio::join!(writing, read_whole(&mut recv, LEN)) };
            cx.step("reading beside a writer that waits", moving).await;
            assert!(!stuck.is_finished(), "nobody has read what it writes");
            drop((send, recv, unread));
            stuck.abort();
            let _ = stuck.await;
        },
    )
    .await;
}

async fn close_wakes_the_blocked(cx: &Cx) {
    for abort in [false, true] {
        let pair = cx.pair(|config| config.max_channels = 2).await;
        let session = &pair.client;
        let (reads, _a) = cx.step("opening", channel(session, &pair.server)).await;
        let (writes, _b) = cx.step("opening", channel(session, &pair.server)).await;
        let (_send, mut recv) = reads.split();
        let (mut send, _recv) = writes.split();
        let (one, two, three) = (session.clone(), session.clone(), session.clone());
        let blocked = [
            ("a read", tokio::spawn(async move { read_failure(&mut recv).await })),
            ("a write", tokio::spawn(async move { write_failure(&mut send).await })),
            ("an accept", tokio::spawn(async move { one.accept().await.expect_err("nobody opens") })),
            (
                "an open",
                tokio::spawn(async move {
                    loop {
                        // Where there is no open credit, opens are refused until the session ends.
                        match two.open().await {
                            Ok(mut refused) => drop(refused.read(&mut [0]).await),
                            Err(error) => return error,
                        }
                    }
                }),
            ),
            ("the end", tokio::spawn(async move { three.closed().await })),
        ];
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert!(blocked.iter().all(|(_, task)| !task.is_finished()), "all of them wait");
        if abort {
            session.abort(3).expect("aborts");
        } else {
            session.close(3, "").expect("closes");
        }
        for (name, task) in blocked {
            let error = cx.step(format!("{name} that waited"), task).await.expect("task");
            assert_eq!(error.origin(), Origin::Local, "{name}: {error:?}");
            assert!(!matches!(error.kind(), ErrorKind::Internal | ErrorKind::Blocked), "{name}: {error:?}");
        }
        cx.step("the peer's end", pair.server.closed()).await;
    }
}

async fn methods_at_once(cx: &Cx) {
    let mut random = cx.random();
    let pair = cx.pair(|config| config.max_channels = 16).await;
    let ends = [Arc::new(pair.client.clone()), Arc::new(pair.server.clone())];
    let mut tasks = Vec::new();
    for at in 0..12 {
        let session = Arc::clone(&ends[at % 2]);
        let mut random = cx.random();
        tasks.push(tokio::spawn(async move {
            let mut kept = Vec::new();
            // Every call may fail once the session is over, and none may hang or panic.
            while session.cause().is_none() {
                match random.below(9) {
                    0 | 1 => kept.extend(session.try_open(&mux_api::OpenOptions::new())),
                    2 | 3 => kept.extend(session.try_accept()),
                    4 => drop(session.ping().await),
                    5 => drop(session.flush().await),
                    6 => drop((session.stats(), session.capabilities(), session.info().role)),
                    7 => {
                        let _ = tokio::time::timeout(Duration::from_micros(200), session.accept()).await;
                    }
                    _ => {
                        for channel in &mut kept {
                            let _ = crate::tools::once(channel.write_all(b"some bytes")).await;
                            let _ = crate::tools::once(channel.read(&mut [0; 64])).await;
                        }
                    }
                }
                if kept.len() > 3 {
                    let at = random.below(kept.len());
                    let channel = kept.swap_remove(at);
                    match random.below(3) {
                        0 => channel.close(),
                        1 => drop(channel),
                        _ => drop(channel.abort(5)),
                    }
                }
                tokio::task::yield_now().await;
            }
        }));
    }
    tokio::time::sleep(Duration::from_millis(20 + random.below(60) as u64)).await;
    let closer = &ends[random.below(2)];
    if random.chance(2) {
        closer.close(1, "enough").expect("closes");
    } else {
        closer.abort(1).expect("aborts");
    }
    for (at, task) in tasks.into_iter().enumerate() {
        cx.step(format!("task {at} after the close"), task).await.expect("a task panicked");
    }
    for session in &ends {
        cx.step("an end", session.closed()).await;
    }
}
