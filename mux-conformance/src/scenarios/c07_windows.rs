//! Clause 7: each channel has its own window. Clause 8: memory is budgeted. Clause 12: the reader never waits for the
//! application.

use std::time::Duration;

use mux_api::{Channel, Config, Error, ErrorKind, Session, codes};

use crate::context::Cx;
use crate::scenario::{Needs, Scenario, scenario};
use crate::tools::{answer, channel, fill, ping, read_whole, write_pattern};

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario!(
        7,
        "unread-channel-beside-one",
        "One channel that nobody reads, filled to the brim, stalls only itself: another one moves on.",
        async |cx| unread(cx, 1, |_| ()).await
    ),
    scenario!(7, "unread-channels-64", "64 channels that nobody reads stall only themselves.", async |cx| unread(
        cx,
        64,
        |_| ()
    )
    .await),
    scenario!(
        7,
        "unread-channels-1000",
        "1,000 channels that nobody reads stall only themselves, though their windows together exceed the budget.",
        async |cx| {
            unread(cx, 1000, |config| {
                config.max_channels = 1100;
                config.channel_backlog = 1100;
                config.budget = 64 << 20;
            })
            .await;
        }
    ),
    scenario!(
        8,
        "budget-holds",
        "However much the peer opens and sends unread, an end holds no more than its budget; what finds no room fails, \
         safe to retry, and all of it comes back.",
        budget_holds
    ),
    scenario!(
        12,
        "both-write-before-reading",
        "Both ends fill every channel's window through a 4 KiB pipe before anybody reads; all of it arrives.",
        both_write_before_reading
    )
    .needs(Needs::Link),
    scenario!(
        12,
        "close-passes-a-full-link",
        "On a link that is full of data nobody reads, resets, pings and the session's close still come through.",
        close_passes_a_full_link
    )
    .needs(Needs::Link),
];

/// Opens channels and writes as much as each takes, without anybody reading.
async fn fill_unread(cx: &Cx, opener: &Session, acceptor: &Session, count: usize) -> Vec<(Channel, Channel)> {
    let mut unread = Vec::new();
    for at in 0..count {
        let opened = cx.step(format!("opening unread channel {at}"), channel(opener, acceptor));
        let (mut near, far) = opened.await;
        fill(near.send_half()).await.expect("writes");
        unread.push((near, far));
    }
    unread
}

async fn unread(cx: &Cx, count: usize, tune: impl Fn(&mut Config)) {
    const LEN: usize = 2 << 20;
    cx.both_ways(tune, async |opener, acceptor| {
        let mut unread = fill_unread(cx, opener, acceptor, count).await;
        // What had not left when it was written leaves now.
        tokio::time::sleep(Duration::from_millis(50)).await;
        for (near, _) in &mut unread {
            fill(near.send_half()).await.expect("writes");
        }
        let (near, far) = cx.step("opening the active channel", channel(opener, acceptor)).await;
        let ((mut s1, mut r1), (mut s2, mut r2)) = (near.split(), far.split());
        let there = async {
            write_pattern(&mut s1, LEN).await.expect("writes");
            s1.finish().expect("finishes");
        };
        let back = async {
            write_pattern(&mut s2, LEN).await.expect("writes");
            s2.finish().expect("finishes");
        };
        let moving = async { tokio::join!(there, back, read_whole(&mut r2, LEN), read_whole(&mut r1, LEN)) };
        cx.step(format!("the active channel beside {count} unread ones"), moving).await;
        for (near, far) in unread {
            assert!(far.label().is_empty());
            drop((near, far));
        }
    })
    .await;
}

/// Whether an open failed for want of memory or room, and may be tried again.
fn no_room(error: &Error) {
    let kind = error.kind();
    assert!(matches!(kind, ErrorKind::LimitExceeded | ErrorKind::Refused | ErrorKind::Blocked), "{error:?}");
    assert!(error.is_retry_safe(), "{error:?}");
    if let (ErrorKind::Refused, Some(code)) = (kind, error.code()) {
        assert!(code == codes::REFUSED || code == codes::LIMIT, "{error:?}");
    }
}

async fn budget_holds(cx: &Cx) {
    const BUDGET: u64 = 1 << 20;
    let pair = cx
        .pair(|config| {
            config.budget = BUDGET;
            config.max_channels = 1000;
            config.channel_backlog = 1000;
        })
        .await;
    let within = |name: &str| {
        for (end, session) in [("the dialer", &pair.client), ("the acceptor", &pair.server)] {
            let stats = session.stats();
            assert!(stats.budget_used <= BUDGET, "{name}: {end} exceeds its budget: {stats:?}");
            assert!(stats.recv_buffered <= BUDGET, "{name}: {end} holds more than its budget: {stats:?}");
        }
    };
    let mut unread = Vec::new();
    for at in 0..1000 {
        let mut near = match pair.client.try_open(&mux_api::OpenOptions::new()) {
            Ok(near) => near,
            Err(error) => {
                no_room(&error);
                break;
            }
        };
        let confirmed = cx.step(format!("the answer to open {at}"), answer(&pair.client, &mut near)).await;
        if let Err(error) = confirmed {
            no_room(&error);
            break;
        }
        if let Err(error) = fill(near.send_half()).await {
            no_room(&error);
            break;
        }
        unread.push(near);
        within("while channels are filled");
    }
    assert!(!unread.is_empty(), "not even one channel fits a budget of 1 MiB");
    tokio::time::sleep(Duration::from_millis(50)).await;
    within("when all are filled");
    drop(unread);
    while let Ok(Ok(channel)) = tokio::time::timeout(Duration::from_millis(50), pair.server.accept()).await {
        drop(channel);
    }
    cx.settled(&pair).await;
    let (mut near, mut far) = cx.step("opening when all is given back", channel(&pair.client, &pair.server)).await;
    let writing = async {
        write_pattern(near.send_half(), 300_000).await.expect("writes");
        near.finish().expect("finishes");
    };
    cx.step("using it", async { tokio::join!(writing, read_whole(far.recv_half(), 300_000)) }).await;
    near.close();
    far.close();
    cx.settled(&pair).await;
    cx.close(pair).await;
}

async fn both_write_before_reading(cx: &Cx) {
    const WINDOW: usize = 64 * 1024;
    // A first window may be smaller than configured when many channels share the budget.
    const LEN: usize = WINDOW / 2;
    const EACH: usize = 6;
    let link = cx.link(4096);
    let pair = cx.pair_via(&link, |config| config.window = WINDOW as u32).await;
    let ends = [(&pair.client, &pair.server), (&pair.server, &pair.client)];
    let mut channels = Vec::new();
    for (opener, acceptor) in ends {
        if opener.info().role == mux_api::Role::Server && !cx.server_may_open(&pair).await {
            continue;
        }
        for _ in 0..EACH {
            channels.push(cx.step("opening", channel(opener, acceptor)).await);
        }
    }
    let mut halves = Vec::new();
    let writing = async {
        for (near, far) in channels {
            for (channel, other) in [near.split(), far.split()].map(|(send, recv)| (send, Some(recv))) {
                halves.push((channel, other));
            }
        }
        for (send, _) in &mut halves {
            write_pattern(send, LEN).await.expect("fits the window");
            send.finish().expect("finishes");
        }
        for (send, _) in &mut halves {
            send.flush().await.expect("the transport takes what the windows allow");
        }
    };
    cx.step("both ends write, nobody reads", writing).await;
    ping(cx, "a ping", &pair.client).await;
    for (_, recv) in &mut halves {
        let Some(mut recv) = recv.take() else { continue };
        cx.step("reading it all", read_whole(&mut recv, LEN)).await;
    }
    drop(halves);
    cx.settled(&pair).await;
    cx.close(pair).await;
}

async fn close_passes_a_full_link(cx: &Cx) {
    let link = cx.link(4096);
    let pair = cx.pair_via(&link, |config| config.window = 16 * 1024).await;
    let (mut near, mut far) = cx.step("opening", channel(&pair.client, &pair.server)).await;
    let unread = fill_unread(cx, &pair.client, &pair.server, 8).await;
    let mut answering = Vec::new();
    for (mut unread, mut other) in unread {
        fill(other.send_half()).await.expect("writes");
        fill(unread.send_half()).await.expect("writes");
        answering.push((unread, other));
    }
    ping(cx, "a ping of the dialer's", &pair.client).await;
    ping(cx, "a ping of the acceptor's", &pair.server).await;
    near.write_all(b"through").await.expect("writes");
    cx.step("a message beside them", crate::tools::read_exactly(far.recv_half(), b"through")).await;
    drop(answering);
    near.close();
    far.close();
    cx.settled(&pair).await;
    cx.close(pair).await;
}
