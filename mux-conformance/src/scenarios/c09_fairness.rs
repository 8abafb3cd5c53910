//! Clause 9: fair and prioritised. Progress and order only: shares and latencies are measured by the benchmark.

use mux_api::{Channel, OpenOptions, Priority};

use crate::context::Cx;
use crate::scenario::{Needs, Scenario, scenario};
use crate::tools::{channel, read_exactly, read_whole, write_pattern};

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario!(
        9,
        "turns",
        "Eight bulk channels on a slow link take turns: none waits for the others to be done, and a ping-pong beside \
         them goes on.",
        turns
    )
    .needs(Needs::Link),
    scenario!(
        9,
        "urgent-first",
        "What is urgent leaves before bulk that was written earlier and still waits.",
        urgent_first
    )
    .needs(Needs::Link),
    scenario!(
        9,
        "urgency-is-a-hint",
        "Any urgency from 0 to 7 is accepted, also later; above 7 is an error.",
        urgency_is_a_hint
    ),
];

async fn turns(cx: &Cx) {
    const LEN: usize = 256 * 1024;
    let link = cx.link(16 * 1024);
    let pair = cx.pair_via(&link, |_| ()).await;
    let (near, far) = cx.step("opening", channel(&pair.client, &pair.server)).await;
    let ((mut s1, mut r1), (mut s2, mut r2)) = (near.split(), far.split());
    let mut readers = Vec::new();
    let mut writers = Vec::new();
    for _ in 0..8 {
        let (near, mut far) = cx.step("opening", channel(&pair.client, &pair.server)).await;
        let (mut send, kept) = near.split();
        writers.push(tokio::spawn(async move {
            write_pattern(&mut send, LEN).await.expect("writes");
            send.finish().expect("finishes");
            (send, kept)
        }));
        readers.push(tokio::spawn(async move {
            read_whole(far.recv_half(), LEN).await;
            far
        }));
    }
    link.throttle(2 << 20);
    let ping_pong = async {
        for round in 0..20u32 {
            let word = round.to_be_bytes();
            s1.write_all(&word).await.expect("writes");
            read_exactly(&mut r2, &word).await;
            s2.write_all(&word).await.expect("writes");
            read_exactly(&mut r1, &word).await;
        }
    };
    cx.step("a ping-pong beside bulk", ping_pong).await;
    link.throttle(0);
    for (reader, writer) in readers.into_iter().zip(writers) {
        cx.step("a bulk channel", reader).await.expect("task").close();
        drop(writer.await.expect("task"));
    }
    drop(((s1, r1), (s2, r2)));
    cx.settled(&pair).await;
    cx.close(pair).await;
}

async fn urgent_first(cx: &Cx) {
    // Together more than the buffers of two sockets hold; each more than a wire may have handed over for good.
    const BULK: usize = 64;
    const LEN: usize = 256 * 1024;
    let link = cx.link(4096);
    let pair = cx.pair_via(&link, |config| config.window = 512 * 1024).await;
    let of = |urgency| OpenOptions::new().priority(Priority::new(urgency, true).expect("in range"));
    let mut bulk: Vec<(Channel, Channel)> = Vec::new();
    for _ in 0..BULK {
        let near = cx.step("opening", pair.client.open_with(&of(7))).await.expect("opens");
        bulk.push((near, cx.step("accepting", pair.server.accept()).await.expect("accepts")));
    }
    let near = cx.step("opening", pair.client.open_with(&of(0))).await.expect("opens");
    let mut far = cx.step("accepting", pair.server.accept()).await.expect("accepts");
    // Nothing leaves but what the system's buffers take; all of the bulk is written before anything urgent.
    link.pause();
    let mut waiting = Vec::new();
    for (near, far) in bulk {
        let (mut send, kept) = near.split();
        let writing = tokio::spawn(async move {
            let wrote = write_pattern(&mut send, LEN).await;
            (send, wrote)
        });
        waiting.push((writing, kept, far));
    }
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let (mut urgent, kept) = near.split();
    let writing = tokio::spawn(async move {
        write_pattern(&mut urgent, LEN).await.expect("writes");
        urgent.finish().expect("finishes");
        urgent
    });
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    link.throttle(16 << 20);
    link.resume();
    cx.step("what is urgent", read_whole(far.recv_half(), LEN)).await;
    let late = waiting.iter_mut().map(|(.., far)| far.recv_half().buffered() < LEN).filter(|late| *late).count();
    assert!(late >= BULK / 4, "{} of {BULK} bulk channels were served before what is urgent", BULK - late);
    link.throttle(0);
    for (writing, ..) in &mut waiting {
        cx.step("a bulk writer", writing).await.expect("task").1.expect("writes");
    }
    drop((cx.step("the urgent writer", writing).await.expect("task"), kept, far, waiting));
    cx.settled(&pair).await;
    cx.close(pair).await;
}

async fn urgency_is_a_hint(cx: &Cx) {
    assert!(Priority::new(8, true).is_err());
    cx.both_ways(
        |_| (),
        async |opener, acceptor| {
            for urgency in 0..=7 {
                let priority = Priority::new(urgency, urgency % 2 == 0).expect("in range");
                let options = OpenOptions::new().priority(priority);
                let mut near = cx.step("opening", opener.open_with(&options)).await.expect("accepted as a hint");
                let mut far = cx.step("accepting", acceptor.accept()).await.expect("accepts");
                near.send_half().set_priority(Priority::new(7 - urgency, true).expect("in range"));
                far.send_half().set_priority(priority);
                near.write_all(b"data").await.expect("writes");
                cx.step("the data", read_exactly(far.recv_half(), b"data")).await;
                near.close();
                far.close();
            }
        },
    )
    .await;
}
