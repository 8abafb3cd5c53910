//! Clause 13: cancel-safety. Every async method is polled once and dropped, again and again, and nothing is lost.

use std::time::Duration;

use mux_api::{Channel, ErrorKind, OpenOptions, Session, codes};

use crate::context::Cx;
use crate::random::patterned;
use crate::scenario::{Needs, Scenario, scenario};
use crate::tools::{answer, assert_refused, channel, check_pattern, once, ping, read_end, read_exactly, read_whole};

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario!(
        2,
        "opens-cancelled",
        "Opens that wait for room and are dropped leave nothing: 2,000 (100,000 in a full run).",
        opens_cancelled
    ),
    scenario!(
        2,
        "opens-given-up",
        "Channels that are dropped as soon as they are open leave nothing: 300 (10,000 in a full run).",
        opens_given_up
    ),
    scenario!(13, "accept-cancelled", "Dropped accepts lose no channel, and none is seen twice.", accept_cancelled),
    scenario!(
        13,
        "reads-and-writes-cancelled",
        "Dropped read, read_bytes and write futures lose and repeat no byte.",
        reads_and_writes_cancelled
    )
    .seeds(4, 1000),
    scenario!(
        13,
        "waits-cancelled",
        "Dropped flush, ended, opened, ping and closed futures change nothing.",
        waits_cancelled
    ),
    scenario!(
        13,
        "deadlines",
        "A deadline in the past, present or future on a read or an accept loses nothing.",
        deadlines
    ),
    scenario!(13, "dial-cancelled", "A dial that is dropped at a random moment leaves nothing.", dial_cancelled)
        .seeds(6, 2000)
        .needs(Needs::Listener),
];

async fn opens_cancelled(cx: &Cx) {
    const MOST: u32 = 4;
    let pair = cx.pair(|config| config.max_channels = MOST).await;
    let mut open = Vec::new();
    for _ in 0..MOST {
        open.push(cx.step("opening", channel(&pair.client, &pair.server)).await);
    }
    let rounds = if cx.full { 100_000 } else { 2_000 };
    for _ in 0..rounds {
        match once(pair.client.open()).await {
            None => {}
            Some(Ok(refused)) => {
                // No open credit on this wire: the open is refused, and given up before that is known.
                drop(refused);
                tokio::task::yield_now().await;
            }
            Some(Err(error)) => panic!("an open beyond the limit: {error:?}"),
        }
    }
    let left = tokio::time::timeout(Duration::from_secs(20), async {
        while pair.client.stats().channels_open > u64::from(MOST) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(left.await.is_ok(), "{rounds} opens that were dropped left {:?}", pair.client.stats());
    assert!(pair.server.try_accept().is_err(), "what was dropped before it was open is never seen");
    drop(open);
    cx.settled(&pair).await;
    let (near, far) = cx.step("an open afterwards", channel(&pair.client, &pair.server)).await;
    near.close();
    far.close();
    cx.settled(&pair).await;
    cx.close(pair).await;
}

async fn opens_given_up(cx: &Cx) {
    let rounds = if cx.full { 10_000 } else { 300 };
    cx.both_ways(
        |_| (),
        async |opener, acceptor| {
            for _ in 0..rounds {
                drop(cx.step("opening", opener.open()).await.expect("opens"));
                // What was announced before it was given up may be seen, and fails or is empty.
                while let Ok(mut seen) = acceptor.try_accept() {
                    let read = cx.step("reading what was given up", seen.read(&mut [0; 8])).await;
                    assert!(!matches!(read, Ok(1..)), "bytes that nobody wrote");
                }
                tokio::task::yield_now().await;
            }
            let mut near = cx.step("an open afterwards", open_when_there_is_room(opener, acceptor)).await;
            near.write_all(b"last").await.expect("writes");
            near.finish().expect("finishes");
            loop {
                let mut far = cx.step("accepting", acceptor.accept()).await.expect("accepts");
                let mut buf = [0; 8];
                if let Ok(4) = cx.step("reading", far.read(&mut buf)).await {
                    break;
                }
            }
            // On a wire without order between channels, what was given up earlier may come later.
            while let Ok(Ok(late)) = tokio::time::timeout(Duration::from_millis(100), acceptor.accept()).await {
                drop(late);
            }
        },
    )
    .await;
}

/// Opens a channel although the backlog may still be full of channels that were given up.
async fn open_when_there_is_room(opener: &Session, acceptor: &Session) -> Channel {
    loop {
        let mut near = opener.open().await.expect("opens");
        match answer(opener, &mut near).await {
            Ok(()) => return near,
            Err(error) => assert_refused(&error, codes::REFUSED),
        }
        while let Ok(given_up) = acceptor.try_accept() {
            drop(given_up);
        }
        tokio::task::yield_now().await;
    }
}

async fn accept_cancelled(cx: &Cx) {
    const COUNT: u32 = 100;
    cx.both_ways(
        |_| (),
        async |opener, acceptor| {
            let opening = async {
                let mut opened = Vec::new();
                for at in 0..COUNT {
                    let mut near = opener.open().await.expect("opens");
                    near.write_all(&at.to_be_bytes()).await.expect("writes");
                    opened.push(near);
                    tokio::task::yield_now().await;
                }
                opened
            };
            let accepting = async {
                let mut seen = Vec::new();
                while seen.len() < COUNT as usize {
                    let Some(accepted) = once(acceptor.accept()).await else {
                        tokio::task::yield_now().await;
                        continue;
                    };
                    let mut word = [0; 4];
                    let mut far = accepted.expect("accepts");
                    assert_eq!(far.read(&mut word).await.expect("reads"), 4);
                    seen.push(u32::from_be_bytes(word));
                    far.close();
                }
                seen.sort_unstable();
                assert!(seen.into_iter().eq(0..COUNT), "each once");
            };
            let both = async { tokio::join!(opening, accepting) };
            drop(cx.step("opens against accepts that are dropped", both).await);
        },
    )
    .await;
}

async fn reads_and_writes_cancelled(cx: &Cx) {
    const LEN: usize = 400_000;
    let mut random = cx.random();
    let window = [4096, 50_000, 256 * 1024][random.below(3)];
    let pair = cx.pair(|config| config.window = window).await;
    let (near, far) = cx.step("opening", channel(&pair.client, &pair.server)).await;
    let ((mut send, _kept), (_other, mut recv)) = (near.split(), far.split());
    let mut sizes = cx.random();
    let writing = async {
        let mut at = 0;
        while at < LEN {
            let some = sizes.size(60_000).min(LEN - at);
            let data = patterned(at, some);
            match once(send.write(&data)).await {
                // Nothing was taken.
                None => tokio::task::yield_now().await,
                Some(taken) => at += taken.expect("writes"),
            }
        }
        send.finish().expect("finishes");
    };
    let mut sizes = cx.random();
    let reading = async {
        let mut buf = vec![0; 60_000];
        let mut at = 0;
        loop {
            let some = sizes.size(60_000);
            let got = if sizes.chance(2) {
                once(recv.read_bytes(some)).await.map(|got| got.expect("reads").unwrap_or_default())
            } else {
                let got = once(recv.read(&mut buf[..some])).await;
                got.map(|got| bytes::Bytes::copy_from_slice(&buf[..got.expect("reads")]))
            };
            let Some(got) = got else {
                tokio::task::yield_now().await;
                continue;
            };
            if got.is_empty() {
                assert_eq!(at, LEN, "a clean end after part of the bytes");
                return;
            }
            check_pattern(at, &got);
            at += got.len();
        }
    };
    cx.step("reads and writes that are dropped", async { tokio::join!(writing, reading) }).await;
    drop((send, recv, _kept, _other));
    cx.settled(&pair).await;
    cx.close(pair).await;
}

async fn waits_cancelled(cx: &Cx) {
    let pair = cx.pair(|config| config.window = 16 * 1024).await;
    let (near, far) = cx.step("opening", channel(&pair.client, &pair.server)).await;
    let ((mut send, mut recv), (mut other, mut far)) = (near.split(), far.split());
    for round in 0..200usize {
        send.write_all(&patterned(round * 100, 100)).await.expect("writes");
        let _ = once(send.flush()).await;
        let _ = once(send.opened()).await;
        assert!(once(send.ended()).await.is_none(), "it is not over");
        let _ = once(pair.client.flush()).await;
        let _ = once(pair.client.ping()).await;
        let _ = once(pair.server.ping()).await;
        assert!(once(pair.client.closed()).await.is_none(), "it lives");
        assert!(once(pair.server.accept()).await.is_none(), "nobody opens");
        let mut buf = [0; 100];
        let mut got = 0;
        while got < 100 {
            got += cx.step("the bytes", far.read(&mut buf[got..])).await.expect("reads");
        }
        check_pattern(round * 100, &buf);
    }
    cx.step("a flush", send.flush()).await.expect("flushes");
    cx.step("a flush of the session", pair.client.flush()).await.expect("flushes");
    ping(cx, "a ping", &pair.client).await;
    send.finish().expect("finishes");
    let _ = once(send.ended()).await;
    cx.step("the end", read_end(&mut far)).await;
    cx.step("knowing that all was taken", send.ended()).await.expect("taken");
    other.finish().expect("finishes");
    cx.step("the other end", read_end(&mut recv)).await;
    drop((send, recv, other, far));
    cx.settled(&pair).await;
    cx.close(pair).await;
}

async fn deadlines(cx: &Cx) {
    let pair = cx.pair(|config| config.window = 16 * 1024).await;
    let (mut near, mut far) = cx.step("opening", channel(&pair.client, &pair.server)).await;
    let past = tokio::time::Instant::now() - Duration::from_millis(1);
    let mut buf = [0; 16];
    for _ in 0..3 {
        assert!(tokio::time::timeout_at(past, far.read(&mut buf)).await.is_err(), "nothing was written");
        assert!(tokio::time::timeout(Duration::ZERO, far.read(&mut buf)).await.is_err(), "nothing was written");
        let soon = tokio::time::timeout(Duration::from_millis(20), far.read(&mut buf));
        assert!(soon.await.is_err(), "nothing was written");
        let soon = tokio::time::timeout(Duration::from_millis(5), pair.server.accept());
        assert!(soon.await.is_err(), "nothing was opened");
        near.write_all(b"still here").await.expect("writes");
        cx.step("what came after the deadline", read_exactly(far.recv_half(), b"still here")).await;
    }
    // A write that misses its deadline has taken nothing, and the half goes on from there.
    let mut taken = crate::tools::fill(near.send_half()).await.expect("writes");
    if let Ok(late) = tokio::time::timeout(Duration::from_millis(20), near.send_half().write(b"late")).await {
        taken += late.expect("writes");
    }
    let mut rest = vec![0; taken];
    let mut at = 0;
    while at < taken {
        at += cx.step("what was taken", far.read(&mut rest[at..])).await.expect("reads");
    }
    near.write_all(b"end").await.expect("writes");
    near.finish().expect("finishes");
    cx.step("what was written afterwards", read_exactly(far.recv_half(), b"end")).await;
    cx.step("the end", read_end(far.recv_half())).await;
    near.close();
    far.close();
    cx.settled(&pair).await;
    cx.close(pair).await;
}

async fn dial_cancelled(cx: &Cx) {
    let mut random = cx.random();
    // The listener's end of a dial that vanished may wait for as long as these say.
    let (client, server) = cx.subject.configs(|config| {
        config.connect_timeout = Duration::from_secs(10);
        config.keepalive = Duration::from_secs(1);
    });
    let listener = cx.subject.listen(&server).await.expect("listens");
    for _ in 0..3 {
        let after = Duration::from_micros(random.below(4000) as u64);
        let dialing = cx.subject.dial(listener.url(), &client, None);
        if let Ok(session) = tokio::time::timeout(after, dialing).await {
            cx.watch("a dialed session", &session.expect("dials"));
        }
    }
    // The listener goes on; what was given up is refused or ends.
    let dialing = async {
        let session = cx.subject.dial(listener.url(), &client, None).await.expect("dials");
        cx.watch("the dialer's session", &session);
        let mut near = session.open_with(&OpenOptions::new()).await.expect("opens");
        near.write_all(b"it works").await.expect("writes");
        near.finish().expect("finishes");
        read_whole(near.recv_half(), 3).await;
        session
    };
    let accepting = async {
        loop {
            let session = listener.accept().await.expect("accepts");
            cx.watch("an accepted session", &session);
            // One whose dial was dropped ends without a channel.
            let Ok(mut far) = session.accept().await else { continue };
            read_exactly(far.recv_half(), b"it works").await;
            crate::tools::write_pattern(far.send_half(), 3).await.expect("writes");
            far.finish().expect("finishes");
            break session;
        }
    };
    let both = async { tokio::join!(dialing, accepting) };
    let (dialed, accepted) = cx.step("a dial beside those that were dropped", both).await;
    dialed.close(0, "").expect("closes");
    cx.step("the dialer's end", dialed.closed()).await;
    let cause = cx.step("the acceptor's end", accepted.closed()).await;
    assert_ne!(cause.kind(), ErrorKind::Internal, "{cause:?}");
}
