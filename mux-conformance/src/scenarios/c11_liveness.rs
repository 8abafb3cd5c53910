//! Clause 11: dead peers are noticed, busy ones are not taken for dead.

use std::time::Duration;

use mux_api::{Capabilities, Config, ErrorKind, Origin};

use crate::context::Cx;
use crate::scenario::{Needs, Scenario, scenario};
use crate::tools::{answer, channel, ping, read_failure, read_whole, write_failure, write_pattern};

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario!(
        11,
        "ping-measures",
        "ping() answers from both ends, while nobody accepts or reads, and the round trip stands in the statistics.",
        ping_measures
    ),
    scenario!(
        11,
        "black-hole-is-noticed",
        "A peer behind a link that swallows everything is noticed: idle, reading, and with a writer that is blocked.",
        black_hole_is_noticed
    )
    .needs(Needs::Link),
    scenario!(
        11,
        "cut-is-noticed",
        "A connection that breaks ends the session and its channels, and none of them cleanly.",
        cut_is_noticed
    )
    .needs(Needs::Link),
    scenario!(
        11,
        "no-false-alarm",
        "A slow link full of data, and a reader that does not read, are not taken for a dead peer.",
        no_false_alarm
    )
    .needs(Needs::Link),
];

fn watchful(config: &mut Config) {
    config.keepalive = Duration::from_millis(500);
    config.linger = Duration::from_secs(1);
}

async fn ping_measures(cx: &Cx) {
    let pair = cx.pair(|_| ()).await;
    let mut unread = cx.step("opening", pair.client.open()).await.expect("opens");
    unread.write_all(b"nobody accepts").await.expect("writes");
    for session in [&pair.client, &pair.server] {
        if let Some(rtt) = ping(cx, "a ping", session).await {
            assert!(!rtt.is_zero());
            assert!(session.stats().rtt.is_some(), "measured: {:?}", session.stats());
        }
    }
    drop(unread);
    while let Ok(channel) = pair.server.try_accept() {
        drop(channel);
    }
    cx.close(pair).await;
}

async fn black_hole_is_noticed(cx: &Cx) {
    let link = cx.link(256 * 1024);
    let pair = cx.pair_via(&link, watchful).await;
    let (mut near, far) = cx.step("opening", channel(&pair.client, &pair.server)).await;
    // A peer that has not answered an open yet may be waiting for its application, on some wires.
    cx.step("its answer", answer(&pair.client, &mut near)).await.expect("is open");
    let ((mut send, mut recv), (_kept, mut unread)) = (near.split(), far.split());
    link.black_hole();
    let writing = tokio::spawn(async move { write_failure(&mut send).await });
    let reading = tokio::spawn(async move { read_failure(&mut recv).await });
    for (name, session) in [("the dialer", &pair.client), ("the acceptor", &pair.server)] {
        let cause = cx.step(format!("{name} notices"), session.closed()).await;
        assert_eq!((cause.kind(), cause.origin()), (ErrorKind::Idle, Origin::Transport), "{name}: {cause:?}");
    }
    for task in [writing, reading] {
        let error = cx.step("a task that waited", task).await.expect("task");
        assert_eq!(error.kind(), ErrorKind::Idle, "{error:?}");
    }
    assert_eq!(read_failure(&mut unread).await.kind(), ErrorKind::Idle);
}

async fn cut_is_noticed(cx: &Cx) {
    let link = cx.link(64 * 1024);
    let pair = cx.pair_via(&link, watchful).await;
    let (mut near, mut far) = cx.step("opening", channel(&pair.client, &pair.server)).await;
    near.write_all(b"half").await.expect("writes");
    far.write_all(b"half").await.expect("writes");
    link.cut();
    for (name, session) in [("the dialer", &pair.client), ("the acceptor", &pair.server)] {
        let cause = cx.step(format!("{name} notices"), session.closed()).await;
        assert_ne!(cause.origin(), Origin::Local, "{name}: {cause:?}");
        // A wire without a goodbye ends like this when the peer is done, too.
        if session.capabilities().contains(Capabilities::GOAWAY) {
            assert_ne!(cause.origin(), Origin::Peer, "{name}: nobody said anything: {cause:?}");
        }
    }
    for channel in [&mut near, &mut far] {
        let error = cx.step("a reader", read_failure(channel.recv_half())).await;
        assert_ne!(error.origin(), Origin::Local, "{error:?}");
    }
}

async fn no_false_alarm(cx: &Cx) {
    let link = cx.link(4096);
    let pair = cx.pair_via(&link, watchful).await;
    let (near, far) = cx.step("opening", channel(&pair.client, &pair.server)).await;
    let (unread, _unread_far) = cx.step("opening", channel(&pair.client, &pair.server)).await;
    let ((mut s1, mut r1), (mut s2, mut r2)) = (near.split(), far.split());
    let (mut stuck, _stuck_recv) = unread.split();
    const LEN: usize = 2 << 20;
    link.throttle(200_000);
    // For more than ten times the keepalive the link is full, in both directions.
    let filling = tokio::spawn(async move { write_failure(&mut stuck).await });
    let writing = tokio::spawn(async move {
        write_pattern(&mut s1, LEN).await.expect("the session lives");
        s1.finish().expect("finishes");
        s1
    });
    let answering = tokio::spawn(async move {
        write_pattern(&mut s2, LEN).await.expect("the session lives");
        s2.finish().expect("finishes");
        s2
    });
    let reading = async { tokio::join!(read_whole(&mut r1, LEN), read_whole(&mut r2, LEN)) };
    let slow = async {
        tokio::time::sleep(Duration::from_secs(6)).await;
        link.throttle(0);
    };
    cx.step("everything passing a slow link", async { tokio::join!(reading, slow) }).await;
    assert!(pair.client.cause().is_none() && pair.server.cause().is_none(), "both are alive");
    drop((writing.await.expect("task"), answering.await.expect("task")));
    pair.client.abort(0).expect("aborts");
    cx.step("the writer that nobody read", filling).await.expect("task");
}
