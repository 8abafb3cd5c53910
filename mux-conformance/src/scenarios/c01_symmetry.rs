//! Clause 1: both ends open and accept. Clause 2: an open is immediate and announced.

use mux_api::{Capabilities, ErrorKind, Initiator, OpenOptions};

use crate::context::Cx;
use crate::scenario::{Scenario, scenario};
use crate::tools::{assert_refused, can, channel, read_end, read_exactly};

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario!(
        1,
        "both-ends-open",
        "Both ends open and accept; either end's channels carry bytes in both directions.",
        both_ends_open
    ),
    scenario!(
        1,
        "both-ends-open-at-once",
        "Both ends open at the same time, many channels, and neither disturbs the other.",
        both_ends_open_at_once
    ),
    scenario!(
        2,
        "acceptor-speaks-first",
        "The peer sees a channel whose opener never writes, and may speak first on it.",
        acceptor_speaks_first
    ),
    scenario!(
        2,
        "written-at-once",
        "A channel can be written as soon as open() returns; confirmations come where the wire has them.",
        written_at_once
    ),
    scenario!(
        2,
        "open-beyond-the-credit",
        "Beyond the peer's limit an open waits, cancel-safe, and try_open() is Blocked; or it is refused, safe to retry.",
        open_beyond_the_credit
    ),
];

async fn both_ends_open(cx: &Cx) {
    cx.both_ways(
        |_| (),
        async |opener, acceptor| {
            let (mut near, mut far) = cx.step("opening", channel(opener, acceptor)).await;
            assert_eq!((near.initiator(), far.initiator()), (Initiator::Local, Initiator::Peer));
            near.write_all(b"hello").await.expect("writes");
            near.finish().expect("finishes");
            cx.step("the request", read_exactly(far.recv_half(), b"hello")).await;
            cx.step("its end", read_end(far.recv_half())).await;
            far.write_all(b"world").await.expect("writes");
            far.finish().expect("finishes");
            cx.step("the answer", read_exactly(near.recv_half(), b"world")).await;
            cx.step("its end", read_end(near.recv_half())).await;
        },
    )
    .await;
}

async fn both_ends_open_at_once(cx: &Cx) {
    const EACH: u8 = 50;
    let pair = cx.pair(|_| ()).await;
    if !cx.server_may_open(&pair).await {
        return;
    }
    let one_end = async |session: &mux_api::Session| {
        let open = async {
            let mut opened = Vec::new();
            for at in 0..EACH {
                let mut channel = session.open().await.expect("opens");
                channel.write_all(&[at]).await.expect("writes");
                opened.push(channel);
            }
            opened
        };
        let accept = async {
            let mut seen = Vec::new();
            for _ in 0..EACH {
                let mut channel = session.accept().await.expect("accepts");
                let mut byte = [0];
                assert_eq!(channel.read(&mut byte).await.expect("reads"), 1);
                seen.push(byte[0]);
                channel.close();
            }
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..EACH), "each channel once");
        };
        let (opened, ()) = tokio::join!(open, accept);
        for mut channel in opened {
            read_end(channel.recv_half()).await;
            channel.close();
        }
    };
    cx.step("both ends open and accept", async { tokio::join!(one_end(&pair.client), one_end(&pair.server)) }).await;
    cx.settled(&pair).await;
    cx.close(pair).await;
}

async fn acceptor_speaks_first(cx: &Cx) {
    cx.both_ways(
        |_| (),
        async |opener, acceptor| {
            let mut near = opener.open().await.expect("opens");
            let mut far =
                cx.step("seeing a channel on which nothing was written", acceptor.accept()).await.expect("sees");
            far.write_all(b"first").await.expect("writes");
            cx.step("what the acceptor said", read_exactly(near.recv_half(), b"first")).await;
            near.close();
            far.close();
        },
    )
    .await;
}

async fn written_at_once(cx: &Cx) {
    cx.both_ways(
        |_| (),
        async |opener, acceptor| {
            let mut near = opener.try_open(&OpenOptions::new()).expect("opens without waiting");
            // Nobody has accepted it, and the peer may not even know: the buffer takes it.
            cx.step("writing at once", near.write_all(&[5; 1000])).await.expect("writes");
            near.finish().expect("finishes");
            let mut far = cx.step("accepting", acceptor.accept()).await.expect("accepts");
            cx.step("what was written at once", read_exactly(far.recv_half(), &[5; 1000])).await;
            if can(opener, Capabilities::OPENED) {
                cx.step("the confirmation", near.opened()).await.expect("is confirmed");
            } else {
                assert_eq!(near.opened().await.expect_err("cannot").kind(), ErrorKind::Unsupported);
                cx.without(Capabilities::OPENED, "opened() of the opening side is Unsupported");
            }
            cx.step("a channel that was accepted", far.opened()).await.expect("is open");
            read_end(far.recv_half()).await;
            far.close();
            near.close();
        },
    )
    .await;
}

async fn open_beyond_the_credit(cx: &Cx) {
    const MOST: usize = 20;
    cx.both_ways(
        |config| {
            config.max_channels = MOST as u32;
            config.channel_backlog = 2 * MOST as u32;
        },
        async |opener, acceptor| {
            let (mut near, mut far) = (Vec::new(), Vec::new());
            for _ in 0..MOST {
                near.push(cx.step("an open within the limit", opener.open()).await.expect("opens"));
                far.push(cx.step("accepting", acceptor.accept()).await.expect("accepts"));
            }
            match opener.try_open(&OpenOptions::new()) {
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Blocked, "{error:?}");
                    assert!(error.is_retry_safe());
                    for _ in 0..100 {
                        let waiting = tokio::time::timeout(std::time::Duration::ZERO, opener.open());
                        assert!(waiting.await.is_err(), "an open beyond the limit waits");
                    }
                    for round in 0..20 {
                        let waiting = opener.clone();
                        let waiting = tokio::spawn(async move { waiting.open().await });
                        // Any channel may be the one that ends, and in any way.
                        let (ours, theirs) = (near.remove(round % MOST), far.remove(round % MOST));
                        if round % 2 == 0 {
                            ours.close();
                            theirs.close();
                        } else {
                            drop((theirs, ours));
                        }
                        let opened = cx.soon("an open once there is room again", waiting).await.expect("task");
                        near.push(opened.expect("opens once there is room"));
                        far.push(cx.step("accepting it", acceptor.accept()).await.expect("accepts"));
                        let full = opener.try_open(&OpenOptions::new()).expect_err("full again");
                        assert_eq!(full.kind(), ErrorKind::Blocked, "{full:?}");
                    }
                }
                Ok(mut refused) => {
                    let error = cx.step("the refusal", refused.read(&mut [0])).await.expect_err("beyond the limit");
                    assert_refused(&error, mux_api::codes::REFUSED);
                    assert!(acceptor.try_accept().is_err(), "what was refused is never seen");
                    cx.note("no open credit on this wire: an open beyond the peer's limit is refused, safe to retry");
                }
            }
        },
    )
    .await;
}
