//! Clause 5: reset and stop, with codes. Clause 6: dropping is aborting, closing is polite.

use mux_api::{Capabilities, ErrorKind, OpenOptions, Origin, Session, codes};

use crate::context::Cx;
use crate::scenario::{Scenario, scenario};
use crate::tools::{assert_dropped, can, channel, read_end, read_exactly, read_failure, read_pattern, write_failure};

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario!(
        5,
        "reset-codes",
        "A reset is never an end; its code arrives unchanged, from 0 to 2^32-1 and wider.",
        reset_codes
    ),
    scenario!(5, "stop-codes", "A stop fails the writer with its code, whatever it was doing.", stop_codes),
    scenario!(
        5,
        "codes-out-of-range",
        "The library's own codes are refused when an application passes them in.",
        codes_out_of_range
    ),
    scenario!(
        5,
        "reset-leaves-the-other-direction",
        "A direction that is reset leaves the other one as it was.",
        reset_leaves_the_other_direction
    ),
    scenario!(
        5,
        "reset-right-after-open",
        "A direction that is reset as soon as its channel is open keeps its label, its code, and the other direction.",
        reset_right_after_open
    ),
    scenario!(
        6,
        "drop-is-reset",
        "A writer that is dropped unfinished is seen as a reset, never as an end.",
        drop_is_reset
    ),
    scenario!(
        6,
        "abort-mid-write",
        "A task that is cancelled inside write_all is seen as a reset, never as an end.",
        abort_mid_write
    ),
    scenario!(
        6,
        "writer-learns-that-the-reader-left",
        "A writer that waits for a reader who goes away fails instead of waiting on.",
        writer_learns_that_the_reader_left
    ),
    scenario!(6, "close-is-polite", "close() of a channel delivers what was written and its end.", close_is_polite),
    scenario!(
        6,
        "session-dropped",
        "Dropping a session's last handle aborts it: the peer's channels fail, none ends cleanly.",
        session_dropped
    ),
];

const CODES: [u64; 6] = [0, 1, 255, codes::PORTABLE_MAX, 1 << 40, codes::LIBRARY_FIRST - 1];

/// Without codes a reset is possible with code 0 only, and any other is refused without effect.
async fn plain_reset(cx: &Cx, opener: &Session, acceptor: &Session) {
    let (mut near, mut far) = cx.step("opening", channel(opener, acceptor)).await;
    let refused = near.send_half().reset(7).expect_err("cannot be carried");
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused:?}");
    near.write_all(b"unchanged").await.expect("nothing has changed");
    cx.step("what was written after it", read_exactly(far.recv_half(), b"unchanged")).await;
    near.send_half().reset(0).expect("can be said");
    let (_, end) = cx.step("the end of the direction", read_pattern(far.recv_half())).await;
    if can(acceptor, Capabilities::RESET_VISIBLE) {
        assert_eq!(end.expect_err("a reset").kind(), ErrorKind::Reset);
    } else {
        cx.without(Capabilities::RESET_VISIBLE, "a reset may look like an end");
    }
    cx.without(Capabilities::RESET_CODE, "reset(7) is Unsupported and changes nothing; reset(0) is possible");
}

async fn reset_codes(cx: &Cx) {
    cx.both_ways(
        |_| (),
        async |opener, acceptor| {
            if !can(opener, Capabilities::RESET_CODE) {
                return plain_reset(cx, opener, acceptor).await;
            }
            for code in CODES {
                let (near, far) = cx.step("opening", channel(opener, acceptor)).await;
                let ((mut s1, mut r1), (mut s2, mut r2)) = (near.split(), far.split());
                for (send, recv) in [(&mut s1, &mut r2), (&mut s2, &mut r1)] {
                    send.write_all(b"partial").await.expect("writes");
                    match send.reset(code) {
                        Ok(()) => {}
                        // Codes above 32 bits: where the wire can.
                        Err(error) if code > codes::PORTABLE_MAX => {
                            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
                            cx.note("codes above 2^32-1 are Unsupported");
                            send.reset(0).expect("resets");
                            continue;
                        }
                        Err(error) => panic!("reset({code}): {error:?}"),
                    }
                    let error = cx.step("the reset", read_failure(recv)).await;
                    assert_eq!(
                        (error.kind(), error.code(), error.origin()),
                        (ErrorKind::Reset, Some(code), Origin::Peer),
                        "{error:?}"
                    );
                    let again = recv.read(&mut [0; 8]).await.expect_err("stays a reset");
                    assert_eq!(again.code(), Some(code));
                }
            }
        },
    )
    .await;
}

async fn stop_codes(cx: &Cx) {
    cx.both_ways(
        |_| (),
        async |opener, acceptor| {
            if !can(opener, Capabilities::STOP) {
                let (mut near, mut far) = cx.step("opening", channel(opener, acceptor)).await;
                let refused = near.recv_half().stop(7).expect_err("cannot be said");
                assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused:?}");
                far.write_all(b"unchanged").await.expect("nothing has changed");
                cx.step("what was written after it", read_exactly(near.recv_half(), b"unchanged")).await;
                cx.without(Capabilities::STOP, "stop() is Unsupported and changes nothing");
                near.close();
                far.close();
                return;
            }
            for code in CODES {
                if code > codes::PORTABLE_MAX && !wide(opener, acceptor).await {
                    cx.note("codes above 2^32-1 are Unsupported");
                    continue;
                }
                let (near, far) = cx.step("opening", channel(opener, acceptor)).await;
                let ((mut s1, mut r1), (mut s2, mut r2)) = (near.split(), far.split());
                // One writer is busy, one waits for window, one waits for the end.
                r2.stop(code).expect("stops");
                let error = cx.step("a writer that learns of the stop", write_failure(&mut s1)).await;
                assert_eq!(
                    (error.kind(), error.code(), error.origin()),
                    (ErrorKind::Stopped, Some(code), Origin::Peer)
                );
                assert_eq!(r2.read(&mut [0; 8]).await.expect_err("we stopped").kind(), ErrorKind::Finished);
                let waiting = tokio::spawn(async move {
                    let error = write_failure(&mut s2).await;
                    (error, s2.ended().await.expect_err("stopped"))
                });
                r1.stop(code).expect("stops");
                let (error, ended) = cx.step("the other direction's writer", waiting).await.expect("task");
                for error in [error, ended] {
                    assert_eq!((error.kind(), error.code()), (ErrorKind::Stopped, Some(code)), "{error:?}");
                }
            }
        },
    )
    .await;
}

/// Whether codes above 2^32-1 can be carried.
async fn wide(opener: &Session, acceptor: &Session) -> bool {
    let (mut near, far) = channel(opener, acceptor).await;
    let wide = near.recv_half().stop(1 << 40).is_ok();
    far.close();
    wide
}

async fn codes_out_of_range(cx: &Cx) {
    cx.both_ways(
        |_| (),
        async |opener, acceptor| {
            for code in [codes::LIBRARY_FIRST, codes::MAX, codes::MAX + 1, u64::MAX] {
                let (mut near, mut far) = cx.step("opening", channel(opener, acceptor)).await;
                assert_eq!(near.send_half().reset(code).expect_err("reserved").kind(), ErrorKind::InvalidInput);
                assert_eq!(near.recv_half().stop(code).expect_err("reserved").kind(), ErrorKind::InvalidInput);
                assert_eq!(opener.close(code, "").expect_err("reserved").kind(), ErrorKind::InvalidInput);
                assert_eq!(opener.abort(code).expect_err("reserved").kind(), ErrorKind::InvalidInput);
                near.write_all(b"unharmed").await.expect("writes");
                cx.step("the channel afterwards", read_exactly(far.recv_half(), b"unharmed")).await;
                assert_eq!(near.abort(code).expect_err("reserved").kind(), ErrorKind::InvalidInput);
                far.close();
            }
        },
    )
    .await;
}

async fn reset_leaves_the_other_direction(cx: &Cx) {
    cx.both_ways(
        |_| (),
        async |opener, acceptor| {
            if !can(opener, Capabilities::RESET_CODE) {
                cx.without(Capabilities::RESET_CODE, "a reset ends both directions");
                return;
            }
            let (mut near, mut far) = cx.step("opening", channel(opener, acceptor)).await;
            near.write_all(b"half").await.expect("writes");
            near.send_half().reset(3).expect("resets");
            let error = cx.step("the reset", read_failure(far.recv_half())).await;
            assert_eq!(error.code(), Some(3));
            far.write_all(b"all of it").await.expect("writes");
            far.finish().expect("finishes");
            cx.step("the other direction", read_exactly(near.recv_half(), b"all of it")).await;
            cx.step("its end", read_end(near.recv_half())).await;
        },
    )
    .await;
}

async fn reset_right_after_open(cx: &Cx) {
    const COUNT: usize = 120;
    let needed = Capabilities::RESET_CODE | Capabilities::LABEL;
    cx.both_ways(
        |config| config.channel_backlog = COUNT as u32,
        async |opener, acceptor| {
            if !can(opener, needed) {
                cx.without(needed, "reset(7) of a channel without label that was just opened is Unsupported");
                let (mut near, mut far) = cx.step("opening", channel(opener, acceptor)).await;
                let refused = near.send_half().reset(7).expect_err("cannot be carried");
                assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused:?}");
                near.write_all(b"unchanged").await.expect("nothing has changed");
                cx.step("what was written after it", read_exactly(far.recv_half(), b"unchanged")).await;
                return;
            }
            let label = |at: usize| vec![at as u8; [0, 5, 1024][at % 3]];
            let answering = async {
                for _ in 0..COUNT {
                    let mut far = acceptor.accept().await.expect("accepts");
                    let label = far.label().clone();
                    let error = read_failure(far.recv_half()).await;
                    assert_eq!(error.kind(), ErrorKind::Reset, "{error:?}");
                    let code = error.code().expect("has a code").to_be_bytes();
                    far.write_all(&[&code, &label[..]].concat()).await.expect("the other direction is as it was");
                    far.close();
                }
            };
            let asking = async {
                let mut opened = Vec::new();
                for at in 0..COUNT {
                    let options = OpenOptions::new().label(label(at));
                    let mut near = opener.open_with(&options).await.expect("opens");
                    // With and without bytes of its own.
                    if at % 2 == 0 {
                        near.write_all(&vec![1; at]).await.expect("writes");
                    }
                    near.send_half().reset(at as u64).expect("resets");
                    opened.push(near);
                }
                for (at, near) in opened.iter_mut().enumerate() {
                    let expected = [&(at as u64).to_be_bytes(), &label(at)[..]].concat();
                    cx.step(format!("the answer on channel {at}"), read_exactly(near.recv_half(), &expected)).await;
                    cx.step("its end", read_end(near.recv_half())).await;
                }
            };
            cx.step("resets against accepts", async { tokio::join!(answering, asking) }).await;
        },
    )
    .await;
}

async fn drop_is_reset(cx: &Cx) {
    cx.both_ways(
        |_| (),
        async |opener, acceptor| {
            let (mut near, mut far) = cx.step("opening", channel(opener, acceptor)).await;
            near.write_all(b"half").await.expect("writes");
            cx.step("the half", read_exactly(far.recv_half(), b"half")).await;
            drop(near);
            if !can(acceptor, Capabilities::RESET_VISIBLE) {
                let (_, end) = cx.step("the end of the direction", read_pattern(far.recv_half())).await;
                end.expect("looks like an end");
                cx.without(Capabilities::RESET_VISIBLE, "a dropped writer looks like an end");
                return;
            }
            assert_dropped(&cx.step("the reset", read_failure(far.recv_half())).await);
            if can(acceptor, Capabilities::STOP) {
                let error = cx.step("the dropped reader", write_failure(far.send_half())).await;
                assert_eq!((error.kind(), error.code()), (ErrorKind::Stopped, Some(codes::DROPPED)), "{error:?}");
            }
        },
    )
    .await;
}

async fn abort_mid_write(cx: &Cx) {
    cx.both_ways(
        |config| config.window = 64 * 1024,
        async |opener, acceptor| {
            let (near, far) = cx.step("opening", channel(opener, acceptor)).await;
            let (mut send, _kept) = near.split();
            let (_other, mut recv) = far.split();
            // More than any window or buffer: it cannot be over.
            let writing = tokio::spawn(async move { send.write_all(&vec![9; 64 << 20]).await });
            let mut first = [0; 1000];
            let len = cx.step("the first bytes", recv.read(&mut first)).await.expect("reads");
            assert!(len > 0);
            writing.abort();
            assert!(cx.step("the writer's cancellation", writing).await.is_err(), "it was cancelled");
            if !can(acceptor, Capabilities::RESET_VISIBLE) {
                while cx.step("the end", recv.read(&mut first)).await.expect("looks like an end") > 0 {}
                cx.without(Capabilities::RESET_VISIBLE, "a cancelled writer looks like an end");
                return;
            }
            assert_dropped(&cx.step("the reset", read_failure(&mut recv)).await);
        },
    )
    .await;
}

async fn writer_learns_that_the_reader_left(cx: &Cx) {
    cx.both_ways(
        |config| config.window = 64 * 1024,
        async |opener, acceptor| {
            for polite in [false, true] {
                let (near, far) = cx.step("opening", channel(opener, acceptor)).await;
                let (mut send, mut kept) = near.split();
                let (other, mut recv) = far.split();
                let writing = tokio::spawn(async move { write_failure(&mut send).await });
                // Give it time to run out of window: it then sleeps, and must be woken.
                tokio::time::sleep(std::time::Duration::from_millis(30)).await;
                assert!(!writing.is_finished(), "nobody reads, so the writer waits");
                if !can(opener, Capabilities::STOP) {
                    // What nobody reads is discarded; the writer learns of the end when the channel is over.
                    drop((recv, other));
                    cx.without(Capabilities::STOP, "a reader that left is noticed when the channel is over");
                    let error = cx.step("the writer's failure", writing).await.expect("task");
                    assert_eq!(error.origin(), Origin::Peer, "{error:?}");
                    let _ = kept.read(&mut [0; 8]).await;
                    continue;
                }
                let code = if polite {
                    recv.close();
                    codes::NO_ERROR
                } else {
                    drop(recv);
                    codes::DROPPED
                };
                let error = cx.step("the writer's failure", writing).await.expect("task");
                assert_eq!((error.kind(), error.code()), (ErrorKind::Stopped, Some(code)), "{error:?}");
            }
        },
    )
    .await;
}

async fn close_is_polite(cx: &Cx) {
    cx.both_ways(
        |_| (),
        async |opener, acceptor| {
            let (mut near, mut far) = cx.step("opening", channel(opener, acceptor)).await;
            near.write_all(b"to the end").await.expect("writes");
            near.close();
            cx.step("what was written", read_exactly(far.recv_half(), b"to the end")).await;
            cx.step("the end", read_end(far.recv_half())).await;
            far.close();
        },
    )
    .await;
}

async fn session_dropped(cx: &Cx) {
    for client_drops in [true, false] {
        let pair = cx.pair(|_| ()).await;
        let (dropped, kept) = if client_drops { (pair.client, pair.server) } else { (pair.server, pair.client) };
        let (mut near, mut far) = if client_drops {
            cx.step("opening", channel(&dropped, &kept)).await
        } else {
            let (near, far) = cx.step("opening", channel(&kept, &dropped)).await;
            (far, near)
        };
        near.write_all(b"half").await.expect("writes");
        cx.step("the half", read_exactly(far.recv_half(), b"half")).await;
        drop(dropped);
        let cause = cx.step("the end of the session", kept.closed()).await;
        if can(&kept, Capabilities::GOAWAY) {
            assert_eq!((cause.origin(), cause.code()), (Origin::Peer, Some(codes::DROPPED)), "{cause:?}");
        } else {
            assert_ne!(cause.origin(), Origin::Local, "{cause:?}");
            cx.without(Capabilities::GOAWAY, "the session's end has neither code nor reason");
        }
        let error = cx.step("its channels' failure", read_failure(far.recv_half())).await;
        assert_ne!(error.origin(), Origin::Local, "{error:?}");
        assert!(cx.step("a write", far.write_all(b"x")).await.is_err());
        assert!(near.write_all(b"x").await.is_err(), "our own end is over too");
        assert!(cx.step("an open", kept.open()).await.is_err());
        assert!(cx.step("an accept", kept.accept()).await.is_err());
    }
}
