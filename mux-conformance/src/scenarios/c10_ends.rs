//! Clause 10: ends are explained, and lose nothing.

use std::time::Duration;

use mux_api::{Capabilities, Config, ErrorKind, Origin, Session, codes};

use crate::context::Cx;
use crate::scenario::{Scenario, scenario};
use crate::tools::{answer, can, channel, read_exactly};

pub(crate) const SCENARIOS: &[Scenario] = &[
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

async fn close_says_who_and_why(cx: &Cx) {
    let longest = "\u{2713}".repeat(Config::MAX_REASON / 3);
    let said = [
        (0, ""),
        (42, "done \u{2713}"),
        (codes::PORTABLE_MAX, longest.as_str()),
        (codes::LIBRARY_FIRST - 1, "the last of the application's codes"),
    ];
    for (at, (code, reason)) in said.into_iter().enumerate() {
        let pair = cx.pair(|_| ()).await;
        let (closer, other) = if at % 2 == 0 { (&pair.client, &pair.server) } else { (&pair.server, &pair.client) };
        assert!(closer.cause().is_none() && other.cause().is_none(), "it lives");
        let long = "x".repeat(Config::MAX_REASON + 1);
        assert_eq!(closer.close(1, &long).expect_err("too long").kind(), ErrorKind::TooBig);
        assert!(closer.cause().is_none(), "a close that was refused closes nothing");
        closer.close(code, reason).expect("closes");
        let ours = cx.step("our own end", closer.closed()).await;
        let theirs = cx.step("the peer's end", other.closed()).await;
        assert_eq!((ours.kind(), ours.origin()), (ErrorKind::Closed, Origin::Local), "{ours:?}");
        if can(other, Capabilities::GOAWAY) {
            assert_eq!((theirs.kind(), theirs.origin()), (ErrorKind::Closed, Origin::Peer), "{theirs:?}");
            assert_eq!(theirs.code().unwrap_or(codes::NO_ERROR), code, "{theirs:?}");
            assert!(reason.is_empty() || theirs.message() == reason, "{theirs:?}");
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
