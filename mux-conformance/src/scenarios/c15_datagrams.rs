//! Clause 15: capabilities are asked, never guessed; what a session cannot do is an error. Datagrams are the ability that
//! few wires have.

use std::time::Duration;

use bytes::Bytes;
use mux_api::{Capabilities, ErrorKind, Session};

use crate::context::Cx;
use crate::scenario::{Scenario, scenario};
use crate::tools::{can, channel, once, ping, read_exactly};

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario!(
        15,
        "both-ends-agree",
        "Both ends of a session name the same abilities, and they do not change while it lives.",
        both_ends_agree
    ),
    scenario!(
        15,
        "datagrams",
        "Datagrams arrive whole or not at all, never hold anything up, and end with the session; without them every call \
         says so.",
        datagrams
    ),
];

async fn both_ends_agree(cx: &Cx) {
    let pair = cx.pair(|_| ()).await;
    let ours = pair.client.capabilities();
    assert_eq!(ours, pair.server.capabilities());
    let (near, far) = cx.step("opening", channel(&pair.client, &pair.server)).await;
    near.close();
    far.close();
    cx.settled(&pair).await;
    assert_eq!((ours, ours), (pair.client.capabilities(), pair.server.capabilities()));
    cx.close(pair).await;
}

async fn datagrams(cx: &Cx) {
    let pair = cx.pair(|_| ()).await;
    for (from, to) in [(&pair.client, &pair.server), (&pair.server, &pair.client)] {
        if can(from, Capabilities::DATAGRAM) {
            one_way(cx, from, to).await;
        } else {
            assert_eq!(from.max_datagram(), None);
            let failures = [
                from.send_datagram(&b"x"[..]).expect_err("cannot be sent"),
                cx.step("receiving where there are none", from.recv_datagram()).await.expect_err("never comes"),
            ];
            for error in failures {
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
            }
            cx.without(Capabilities::DATAGRAM, "max_datagram() is None, sending and receiving are Unsupported");
        }
    }
    let waiting = pair.server.clone();
    let waiting = tokio::spawn(async move { while waiting.recv_datagram().await.is_ok() {} });
    pair.client.close(3, "").expect("closes");
    cx.step("one that waits for a datagram", waiting).await.expect("task");
    for session in [&pair.client, &pair.server] {
        cx.step("the session's end", session.closed()).await;
        let error = session.send_datagram(&b"x"[..]).expect_err("it is over");
        assert!(error.kind() != ErrorKind::Unsupported || !can(session, Capabilities::DATAGRAM), "{error:?}");
        while cx.step("what had arrived", session.recv_datagram()).await.is_ok() {}
    }
}

async fn one_way(cx: &Cx, from: &Session, to: &Session) {
    let most = from.max_datagram().expect("has datagrams");
    for len in [1, most / 2, most] {
        // A receiver that is dropped takes nothing with it.
        let _ = once(to.recv_datagram()).await;
        let sent = Bytes::from(vec![len as u8; len]);
        // Any may be lost, so it is sent until one arrives; what arrives is one that was sent.
        let arriving = async {
            loop {
                from.send_datagram(sent.clone()).expect("sends");
                let waited = tokio::time::timeout(Duration::from_millis(100), to.recv_datagram()).await;
                match waited.map(|got| got.expect("receives")) {
                    Ok(got) if got == sent => return,
                    Ok(other) => assert!(other.iter().all(|byte| *byte == other[0]), "parts of two datagrams"),
                    Err(_) => {}
                }
            }
        };
        cx.step(format!("a datagram of {len} bytes"), arriving).await;
    }
    let error = from.send_datagram(vec![0; most + 70_000]).expect_err("too big");
    assert_eq!(error.kind(), ErrorKind::TooBig, "{error:?}");
    // Nobody takes them: they give way to each other, and to nothing else.
    for _ in 0..5_000 {
        from.send_datagram(vec![9; 1_000.min(most)]).expect("never waits");
    }
    let (mut near, mut far) = cx.step("opening beside them", channel(from, to)).await;
    near.write_all(b"through").await.expect("writes");
    cx.step("a channel beside them", read_exactly(far.recv_half(), b"through")).await;
    ping(cx, "a ping beside them", from).await;
    near.close();
    far.close();
}
