//! Clause 3: the accept backlog, and a session that goes on while nobody accepts.

use mux_api::codes;

use crate::context::Cx;
use crate::scenario::{Scenario, scenario};
use crate::tools::{answer, assert_refused, channel, read_end, read_exactly};

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario!(
        3,
        "backlog",
        "An open beyond the backlog is refused, safe to retry, and succeeds once there is room again.",
        backlog
    ),
    scenario!(
        3,
        "nobody-accepts",
        "While nobody accepts and opens are refused by the hundred, the channels that exist go on in both directions.",
        nobody_accepts
    ),
];

const ROOM: u32 = 4;

async fn backlog(cx: &Cx) {
    cx.both_ways(
        |config| config.channel_backlog = ROOM,
        async |opener, acceptor| {
            let mut waiting = Vec::new();
            for _ in 0..ROOM {
                let mut near = cx.step("an open with room", opener.open()).await.expect("opens");
                cx.step("its answer", answer(opener, &mut near)).await.expect("there is room");
                waiting.push(near);
            }
            let mut refused = cx.step("an open without room", opener.open()).await.expect("opens");
            let error = cx.step("the refusal", refused.read(&mut [0])).await.expect_err("there is no room");
            assert_refused(&error, codes::REFUSED);
            let error = refused.write_all(b"x").await.expect_err("it was refused");
            assert_refused(&error, codes::REFUSED);
            drop(refused);
            for mut near in waiting {
                let mut far = cx.step("accepting", acceptor.accept()).await.expect("accepts");
                near.write_all(b"still good").await.expect("writes");
                near.close();
                cx.step("what a channel that waited carries", read_exactly(far.recv_half(), b"still good")).await;
                far.close();
            }
            assert!(acceptor.try_accept().is_err(), "what was refused is never seen");
            let (again, far) = cx.step("an open with room again", channel(opener, acceptor)).await;
            again.close();
            far.close();
        },
    )
    .await;
}

async fn nobody_accepts(cx: &Cx) {
    cx.both_ways(
        |config| {
            config.channel_backlog = ROOM;
            config.max_channels = 100;
        },
        async |opener, acceptor| {
            let (mut near, mut far) = cx.step("opening", channel(opener, acceptor)).await;
            let mut waiting = Vec::new();
            for round in 0..300u32 {
                let mut unwanted = cx.step("an open that nobody accepts", opener.open()).await.expect("opens");
                if round < ROOM {
                    waiting.push(unwanted);
                } else {
                    let error = cx.step("its refusal", unwanted.read(&mut [0])).await.expect_err("no room");
                    assert_refused(&error, codes::REFUSED);
                }
                if round % 10 == 0 {
                    let word = round.to_be_bytes();
                    near.write_all(&word).await.expect("writes");
                    cx.step("a channel beside it", read_exactly(far.recv_half(), &word)).await;
                    far.write_all(&word).await.expect("writes");
                    cx.step("its other direction", read_exactly(near.recv_half(), &word)).await;
                }
            }
            near.finish().expect("finishes");
            far.finish().expect("finishes");
            cx.step("the end", read_end(near.recv_half())).await;
            cx.step("the end", read_end(far.recv_half())).await;
            for _ in 0..waiting.len() {
                cx.step("accepting at last", acceptor.accept()).await.expect("accepts").close();
            }
        },
    )
    .await;
}
