//! Clause 4: ordered bytes, half-close, an end that stays the end.

use std::time::Duration;

use mux_api::{Capabilities, ErrorKind, WriteFlags};

use crate::context::Cx;
use crate::scenario::{Needs, Scenario, scenario};
use crate::tools::{channel, read_end, read_exactly, read_whole, write_pattern};

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario!(
        4,
        "half-close",
        "After finish() the other direction goes on: 10 MiB come back behind a finished request.",
        half_close
    ),
    scenario!(
        4,
        "end-once-and-for-ever",
        "The end is seen after the last byte, and stays the end.",
        end_once_and_for_ever
    ),
    scenario!(
        4,
        "nothing-after-the-end",
        "After finish() writing and finishing again are errors, and nothing more is sent.",
        nothing_after_the_end
    ),
    scenario!(
        4,
        "end-known-after-a-pause",
        "Whoever waits until a direction is over learns of it although the link stood still meanwhile.",
        end_known_after_a_pause
    )
    .needs(Needs::Link),
    scenario!(
        4,
        "small-writes",
        "A hundred thousand writes of four bytes arrive in order; a lone one at once, and a flush leaves nothing behind.",
        small_writes
    ),
];

const ANSWER: usize = 10 << 20;

async fn half_close(cx: &Cx) {
    cx.both_ways(
        |_| (),
        async |opener, acceptor| {
            if !opener.capabilities().contains(Capabilities::HALF_CLOSE) {
                cx.without(Capabilities::HALF_CLOSE, "finish() ends both directions");
                return;
            }
            let (near, far) = cx.step("opening", channel(opener, acceptor)).await;
            let ((mut request, mut answer), (mut send, mut recv)) = (near.split(), far.split());
            request.write_all(b"GET").await.expect("writes");
            request.finish().expect("finishes");
            cx.step("the request", read_exactly(&mut recv, b"GET")).await;
            cx.step("its end", read_end(&mut recv)).await;
            cx.step("all of the request is known to be taken", request.ended()).await.expect("taken");
            drop((request, recv));
            let writing = cx.step("writing the answer", async {
                write_pattern(&mut send, ANSWER).await.expect("writes");
                send.finish().expect("finishes");
            });
            tokio::join!(writing, cx.step("reading the answer", read_whole(&mut answer, ANSWER)));
        },
    )
    .await;
}

async fn end_once_and_for_ever(cx: &Cx) {
    cx.both_ways(
        |_| (),
        async |opener, acceptor| {
            for with_data in [false, true] {
                let (mut near, mut far) = cx.step("opening", channel(opener, acceptor)).await;
                if with_data {
                    near.send_half().write_all_with(b"last", WriteFlags::FIN).await.expect("writes and ends");
                    cx.step("the last bytes", read_exactly(far.recv_half(), b"last")).await;
                } else {
                    near.finish().expect("finishes");
                }
                for _ in 0..3 {
                    cx.step("the end", read_end(far.recv_half())).await;
                    assert!(far.recv_half().read_bytes(100).await.expect("stays the end").is_none());
                }
                near.close();
                cx.step("the end stays when the channel is over", read_end(far.recv_half())).await;
                far.close();
            }
        },
    )
    .await;
}

async fn nothing_after_the_end(cx: &Cx) {
    cx.both_ways(
        |_| (),
        async |opener, acceptor| {
            let (mut near, mut far) = cx.step("opening", channel(opener, acceptor)).await;
            near.write_all(b"all").await.expect("writes");
            near.finish().expect("finishes");
            assert_eq!(near.finish().expect_err("twice").kind(), ErrorKind::Finished);
            assert_eq!(near.write_all(b"more").await.expect_err("after the end").kind(), ErrorKind::Finished);
            assert_eq!(near.write_all(b"more").await.expect_err("still").kind(), ErrorKind::Finished);
            cx.step("what was written", read_exactly(far.recv_half(), b"all")).await;
            cx.step("the end", read_end(far.recv_half())).await;
            far.close();
        },
    )
    .await;
}

async fn end_known_after_a_pause(cx: &Cx) {
    const LEN: usize = 10_000;
    let link = cx.link(16 * 1024);
    let pair = cx.pair_via(&link, |_| ()).await;
    let (near, mut far) = cx.step("opening", channel(&pair.client, &pair.server)).await;
    let (mut send, kept) = near.split();
    link.pause();
    cx.step("writing what the buffers take", write_pattern(&mut send, LEN)).await.expect("writes");
    send.finish().expect("finishes");
    let waiting = tokio::spawn(async move {
        let ended = send.ended().await;
        (send, ended)
    });
    // Longer than a backend may leave it before it looks again.
    tokio::time::sleep(Duration::from_millis(1_600)).await;
    link.resume();
    cx.step("what was written", read_whole(far.recv_half(), LEN)).await;
    let (send, ended) = cx.soon("knowing that it was taken", waiting).await.expect("task");
    ended.expect("was taken");
    drop((send, kept, far));
    cx.settled(&pair).await;
    cx.close(pair).await;
}

async fn small_writes(cx: &Cx) {
    const COUNT: u32 = 100_000;
    cx.both_ways(
        |_| (),
        async |opener, acceptor| {
            let (near, far) = cx.step("opening", channel(opener, acceptor)).await;
            let ((mut send, _kept), (_other, mut recv)) = (near.split(), far.split());
            send.write_all(b"lone").await.expect("writes");
            cx.step("a lone write", read_exactly(&mut recv, b"lone")).await;
            let writing = async {
                for at in 0..COUNT {
                    send.write_all(&at.to_be_bytes()).await.expect("writes");
                }
                send.flush().await.expect("flushes");
                assert_eq!(send.buffered(), 0, "the transport has it all");
                opener.flush().await.expect("flushes");
                send.finish().expect("finishes");
            };
            let reading = async {
                let mut seen = Vec::new();
                loop {
                    // Five bytes at once at least, but for the last ones.
                    std::future::poll_fn(|cx| recv.poll_readable(cx, 5)).await;
                    let there = recv.buffered();
                    match recv.read_bytes(1_000).await.expect("reads") {
                        Some(bytes) => seen.extend_from_slice(&bytes),
                        None => break,
                    }
                    assert!(there >= 5 || seen.len() + 5 > 4 * COUNT as usize, "ready with {there} bytes");
                }
                let sent: Vec<u8> = (0..COUNT).flat_map(u32::to_be_bytes).collect();
                assert!(seen == sent, "{} of {} bytes, or in another order", seen.len(), sent.len());
            };
            cx.step("a hundred thousand small writes", async { tokio::join!(writing, reading) }).await;
        },
    )
    .await;
}
