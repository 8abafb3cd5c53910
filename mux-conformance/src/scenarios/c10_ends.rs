//! Clause 10: ends are explained, and lose nothing.

use std::time::Duration;

use mux_api::{Capabilities, ErrorKind, Origin, Session};

use crate::context::Cx;
use crate::random::{Random, patterned};
use crate::scenario::{Scenario, scenario};
use crate::tools::{answer, can, channel, check_pattern, read_exactly};

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
        "close-says-who-and-why",
        "close(code, reason): the closing end sees itself as the cause, the peer sees code and reason.",
        close_says_who_and_why
    ),
    scenario!(
        10,
        "abort-is-at-once",
        "abort(code) ends both ends at once, though data is unsent and unread.",
        abort_is_at_once
    ),
    scenario!(
        10,
        "drain-finishes-the-old",
        "drain() refuses new channels, safe to retry, and lets the old ones finish.",
        drain_finishes_the_old
    ),
    scenario!(
        10,
        "accepted-after-the-end",
        "A channel that was finished before the session was closed can be accepted and read afterwards.",
        accepted_after_the_end
    ),
    scenario!(
        10,
        "nothing-goes-on-after-the-end",
        "After the session's end every call fails at once, with its cause.",
        nothing_goes_on_after_the_end
    ),
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
}

/// One channel's writer; what it wrote, and the way it ended.
async fn write_somehow(channel: mux_api::Channel, mut random: Random) -> (mux_api::Channel, usize, Way) {
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
    let way = [Way::Finish, Way::Close, Way::Drop, Way::Keep][random.below(4)];
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
    let mut kept = Vec::new();
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
        }
        wrote.push((total, way));
    }
    closer.close(77, "that was all").expect("closes");
    for (reader, (total, way)) in readers.into_iter().zip(wrote) {
        let (at, end) = cx.step(format!("the reader of {total} bytes ({way:?})"), reader).await.expect("task");
        match (way, end) {
            (Way::Finish | Way::Close, Ok(())) => assert_eq!(at, total, "a clean end after part of the bytes"),
            (Way::Finish | Way::Close, Err(error)) => {
                panic!("{at} of {total} bytes came of what was finished ({way:?}) before close(): {error:?}")
            }
            (Way::Drop | Way::Keep, Ok(())) => {
                assert!(!visible, "a clean end ({at} of {total} bytes) of what was never finished ({way:?})");
            }
            (Way::Drop | Way::Keep, Err(_)) => assert!(at <= total),
        }
    }
    drop(kept);
    cx.step("the closing end", closer.closed()).await;
    cx.step("the other end", other.closed()).await;
    if !visible {
        cx.without(Capabilities::RESET_VISIBLE, "what was not finished may look like an end");
    }
}

async fn close_says_who_and_why(cx: &Cx) {
    for client_closes in [true, false] {
        let pair = cx.pair(|_| ()).await;
        let (closer, other) = if client_closes { (&pair.client, &pair.server) } else { (&pair.server, &pair.client) };
        assert!(closer.cause().is_none() && other.cause().is_none(), "it lives");
        let long = "x".repeat(mux_api::Config::MAX_REASON + 1);
        assert_eq!(closer.close(1, &long).expect_err("too long").kind(), ErrorKind::TooBig);
        assert!(closer.cause().is_none(), "a close that was refused closes nothing");
        closer.close(42, "done \u{2713}").expect("closes");
        let ours = cx.step("our own end", closer.closed()).await;
        let theirs = cx.step("the peer's end", other.closed()).await;
        assert_eq!((ours.kind(), ours.origin()), (ErrorKind::Closed, Origin::Local), "{ours:?}");
        if can(other, Capabilities::GOAWAY) {
            let said = (theirs.kind(), theirs.origin(), theirs.code(), theirs.message());
            assert_eq!(said, (ErrorKind::Closed, Origin::Peer, Some(42), "done \u{2713}"));
        } else {
            assert_ne!(theirs.origin(), Origin::Local, "{theirs:?}");
            cx.without(Capabilities::GOAWAY, "the session's end has neither code nor reason");
        }
        closer.close(43, "again").expect("closing twice is no error");
        let again = cx.step("our own end, again", closer.closed()).await;
        assert_eq!(again.code(), ours.code(), "the first end counts");
    }
}

async fn abort_is_at_once(cx: &Cx) {
    for client_aborts in [true, false] {
        let pair = cx.pair(|config| config.window = 64 * 1024).await;
        let (aborter, other) = if client_aborts { (&pair.client, &pair.server) } else { (&pair.server, &pair.client) };
        // Opened by the dialer, who always may.
        let (a, b) = cx.step("opening", channel(&pair.client, &pair.server)).await;
        let (mut near, mut far) = if client_aborts { (a, b) } else { (b, a) };
        let stuck = tokio::spawn(async move {
            let error = near.write_all(&vec![1; 32 << 20]).await.expect_err("nobody reads");
            (near, error)
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        aborter.abort(9).expect("aborts");
        let (near, error) = cx.step("a write that was under way", stuck).await.expect("task");
        assert_eq!(error.origin(), Origin::Local, "{error:?}");
        let ours = cx.step("our own end", aborter.closed()).await;
        assert_eq!((ours.origin(), ours.code()), (Origin::Local, Some(9)), "{ours:?}");
        let theirs = cx.step("the peer's end", other.closed()).await;
        if can(other, Capabilities::GOAWAY) {
            assert_eq!((theirs.origin(), theirs.code()), (Origin::Peer, Some(9)), "{theirs:?}");
        } else {
            assert_ne!(theirs.origin(), Origin::Local, "{theirs:?}");
        }
        let error = cx.step("what was not finished", crate::tools::read_failure(far.recv_half())).await;
        assert_ne!(error.origin(), Origin::Local, "{error:?}");
        drop(near);
    }
}

async fn drain_finishes_the_old(cx: &Cx) {
    for client_drains in [true, false] {
        let pair = cx.pair(|_| ()).await;
        let (drainer, other): (&Session, &Session) =
            if client_drains { (&pair.client, &pair.server) } else { (&pair.server, &pair.client) };
        // Opened by the dialer, who always may.
        let (mut near, mut far) = cx.step("opening", channel(&pair.client, &pair.server)).await;
        drainer.drain();
        let error = cx.step("our own open", drainer.open()).await.expect_err("drains");
        if can(drainer, Capabilities::SERVER_OPEN) || client_drains {
            assert_eq!(error.kind(), ErrorKind::GoAway, "{error:?}");
        }
        if can(other, Capabilities::SERVER_OPEN) || !client_drains {
            let refused = async {
                loop {
                    match other.open().await {
                        Ok(mut raced) => {
                            if let Err(error) = answer(other, &mut raced).await {
                                return error;
                            }
                        }
                        Err(error) => return error,
                    }
                }
            };
            let error = cx.step("the peer's open", refused).await;
            assert!(error.is_retry_safe(), "{error:?}");
            // Refused by itself, or because the end was announced.
            assert!(matches!(error.kind(), ErrorKind::Refused | ErrorKind::GoAway), "{error:?}");
            assert_eq!(error.origin(), Origin::Peer, "{error:?}");
        }
        near.write_all(b"still").await.expect("writes");
        cx.step("a channel that is older", read_exactly(far.recv_half(), b"still")).await;
        far.write_all(b"good").await.expect("writes");
        cx.step("its other direction", read_exactly(near.recv_half(), b"good")).await;
        near.close();
        far.close();
        cx.settled(&pair).await;
        cx.close(pair).await;
    }
}

async fn accepted_after_the_end(cx: &Cx) {
    const COUNT: u8 = 20;
    let pair = cx.pair(|_| ()).await;
    for at in 0..COUNT {
        let mut near = cx.step("opening", pair.client.open()).await.expect("opens");
        near.write_all(&[at; 100]).await.expect("writes");
        near.close();
    }
    pair.client.close(0, "").expect("closes");
    for at in 0..COUNT {
        let mut far = cx.step("accepting", pair.server.accept()).await.expect("accepts what was finished");
        cx.step("what was finished", read_exactly(far.recv_half(), &[at; 100])).await;
        cx.step("its end", crate::tools::read_end(far.recv_half())).await;
        far.close();
    }
    cx.step("the dialer's end", pair.client.closed()).await;
    cx.step("the acceptor's end", pair.server.closed()).await;
    assert!(pair.server.accept().await.is_err(), "nothing more");
}

async fn nothing_goes_on_after_the_end(cx: &Cx) {
    let pair = cx.pair(|_| ()).await;
    let (mut near, mut far) = cx.step("opening", channel(&pair.client, &pair.server)).await;
    pair.client.close(5, "over").expect("closes");
    cx.step("the dialer's end", pair.client.closed()).await;
    cx.step("the acceptor's end", pair.server.closed()).await;
    for (session, channel) in [(&pair.client, &mut near), (&pair.server, &mut far)] {
        let cause = session.cause().expect("it is over");
        let failures = [
            cx.step("open", session.open()).await.expect_err("over"),
            session.try_open(&mux_api::OpenOptions::new()).expect_err("over"),
            cx.step("accept", session.accept()).await.expect_err("over"),
            session.try_accept().expect_err("over"),
            cx.step("write", channel.write_all(b"x")).await.expect_err("over"),
        ];
        for error in &failures {
            assert_ne!(error.kind(), ErrorKind::Blocked, "{error:?}");
        }
        assert_eq!(failures[0].origin(), cause.origin(), "{:?} / {cause:?}", failures[0]);
        assert!(cx.step("ping", session.ping()).await.is_err());
        assert!(cx.step("flush", session.flush()).await.is_err());
        session.drain();
        session.abort(1).expect("harmless");
        assert_eq!(session.cause().expect("it is over").code(), cause.code(), "the first cause stays");
    }
}
