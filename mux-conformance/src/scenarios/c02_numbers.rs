//! Clause 2, at its limits: numbers for channels that run out. Clause 8: many channels open at once.

use mux_api::{Channel, Error, ErrorKind, Session};

use crate::context::{Cx, Pair};
use crate::scenario::{Scenario, scenario};
use crate::tools::{answer, channel, read_end, read_exactly};

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario!(
        2,
        "numbers-run-out",
        "When a wire has no number left for another channel, opens fail, safe to retry, at both ends; the channels that \
         exist go on to their end.",
        numbers_run_out
    ),
    scenario!(
        8,
        "2000-channels-at-once",
        "2,000 channels of either end's are open at once, each carries its bytes, and all their memory comes back.",
        two_thousand_channels
    ),
];

/// Numbers that a session has for its channels: those that a wire needs for itself, and some.
const LEFT: u32 = 40;

async fn numbers_run_out(cx: &Cx) {
    let Some((client, server)) = cx.subject.with_few_numbers(LEFT) else {
        return numbers_do_not_run_out(cx).await;
    };
    for dialer_opens in [true, false] {
        let pair = cx.pair_of(&client, &server, None).await;
        let (opener, acceptor) = if dialer_opens { (&pair.client, &pair.server) } else { (&pair.server, &pair.client) };
        if !dialer_opens && !cx.server_may_open(&pair).await {
            continue;
        }
        let mut kept = Vec::new();
        let error = open_until_it_fails(cx, opener, acceptor, &mut kept).await;
        used_up(&error);
        assert!(!kept.is_empty(), "not one of {LEFT} numbers could be used: {error:?}");
        let again = cx.step("another open", one_more(cx, opener, acceptor)).await.expect_err("none has come back");
        used_up(&again);
        for (near, far) in &mut kept {
            near.write_all(b"old").await.expect("writes");
            cx.step("a channel that exists", read_exactly(far.recv_half(), b"old")).await;
        }
        let (mut near, mut far) = kept.pop().expect("one is left");
        near.finish().expect("finishes");
        far.finish().expect("finishes");
        cx.step("its end", read_end(far.recv_half())).await;
        cx.step("its other end", read_end(near.recv_half())).await;
        let open = opener.stats().channels_open;
        drop((near, far));
        if error.kind() == ErrorKind::GoAway {
            // The wire never uses a number again: its session is draining, at both ends.
            cx.note("numbers are not used again: the session is draining once they have run out");
            let mut others = Vec::new();
            let theirs = open_until_it_fails(cx, acceptor, opener, &mut others).await;
            used_up(&theirs);
            kept.extend(others);
        } else {
            // Its number is free again, once both ends have let go of it.
            let reused = async {
                while opener.stats().channels_open >= open || acceptor.stats().channels_open >= open {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
                one_more(cx, opener, acceptor).await
            };
            kept.push(cx.soon("an open once a number is free", reused).await.expect("opens"));
        }
        kept.into_iter().for_each(|(near, far)| {
            near.close();
            far.close();
        });
        finish(cx, pair).await;
    }
}

async fn finish(cx: &Cx, pair: Pair) {
    cx.settled(&pair).await;
    cx.close(pair).await;
}

async fn open_until_it_fails(
    cx: &Cx,
    opener: &Session,
    acceptor: &Session,
    kept: &mut Vec<(Channel, Channel)>,
) -> Error {
    for at in 0..10 * LEFT {
        match cx.step(format!("open {at}"), one_more(cx, opener, acceptor)).await {
            Ok(pair) => kept.push(pair),
            Err(error) => return error,
        }
    }
    panic!("{} channels are open, with {LEFT} numbers", kept.len());
}

/// A channel that both ends have, or why there is none.
async fn one_more(cx: &Cx, opener: &Session, acceptor: &Session) -> Result<(Channel, Channel), Error> {
    let mut near = opener.open().await?;
    cx.step("the answer to an open", answer(opener, &mut near)).await?;
    let far = cx.step("accepting", acceptor.accept()).await.unwrap_or_else(|error| panic!("accept: {error:?}"));
    Ok((near, far))
}

fn used_up(error: &Error) {
    let kind = error.kind();
    assert!(matches!(kind, ErrorKind::LimitExceeded | ErrorKind::GoAway | ErrorKind::Refused), "{error:?}");
    assert!(error.is_retry_safe(), "nobody has acted on it: {error:?}");
}

/// Where nothing brings the numbers near their end, they must be as good as endless.
async fn numbers_do_not_run_out(cx: &Cx) {
    const COUNT: usize = 3_000;
    cx.both_ways(
        |_| (),
        async |opener, acceptor| {
            for _ in 0..COUNT {
                let (near, far) = cx.step("one channel after the other", channel(opener, acceptor)).await;
                near.close();
                far.close();
            }
        },
    )
    .await;
    cx.note(
        "nothing brings the wire's numbers near their end: thousands of channels one after the other are no trouble",
    );
}

async fn two_thousand_channels(cx: &Cx) {
    const COUNT: u32 = 2_000;
    cx.both_ways(
        |config| {
            config.max_channels = COUNT + 100;
            config.channel_backlog = COUNT + 100;
        },
        async |opener, acceptor| {
            let opening = async {
                let mut opened = Vec::new();
                for at in 0..COUNT {
                    let mut near = opener.open().await.expect("opens");
                    near.write_all(&at.to_be_bytes()).await.expect("writes");
                    opened.push(near);
                }
                opened
            };
            let accepting = async {
                let mut accepted = Vec::new();
                for _ in 0..COUNT {
                    accepted.push(acceptor.accept().await.expect("accepts"));
                }
                accepted
            };
            let (mut opened, mut accepted) =
                cx.step("opening and accepting", async { tokio::join!(opening, accepting) }).await;
            assert!(opener.stats().channels_open >= u64::from(COUNT), "all are open at once");
            let echoing = async {
                for far in &mut accepted {
                    let mut word = [0; 4];
                    let mut at = 0;
                    while at < 4 {
                        at += far.read(&mut word[at..]).await.expect("reads");
                    }
                    far.write_all(&word).await.expect("writes");
                    far.finish().expect("finishes");
                }
            };
            let checking = async {
                for (at, near) in (0..COUNT).zip(&mut opened) {
                    near.finish().expect("finishes");
                    read_exactly(near.recv_half(), &at.to_be_bytes()).await;
                    read_end(near.recv_half()).await;
                }
            };
            cx.step("each channel's echo", async { tokio::join!(echoing, checking) }).await;
            for mut far in accepted {
                cx.step("each channel's end", read_end(far.recv_half())).await;
            }
        },
    )
    .await;
}
