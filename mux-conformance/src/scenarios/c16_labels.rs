//! Clause 16: labels.

use mux_api::{Capabilities, ErrorKind, OpenOptions, Priority};

use crate::context::Cx;
use crate::scenario::{Scenario, scenario};
use crate::tools::{can, channel, read_exactly};

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario!(
        16,
        "labels",
        "A label of 0 to 1,024 arbitrary bytes is seen by the accepting side before any data; a longer one is TooBig.",
        labels
    ),
    scenario!(
        16,
        "label-above-the-peers-limit",
        "A label that only the peer finds too long is refused, and the session goes on.",
        label_above_the_peers_limit
    ),
];

async fn labels(cx: &Cx) {
    cx.both_ways(
        |_| (),
        async |opener, acceptor| {
            let long = OpenOptions::new().label(vec![1; 1025]);
            if !can(opener, Capabilities::LABEL) {
                let labelled = OpenOptions::new().label("rpc");
                let error = opener.open_with(&labelled).await.expect_err("cannot be carried");
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
                cx.without(Capabilities::LABEL, "an open with a label is Unsupported, and nothing is opened");
                let (near, far) = cx.step("opening", channel(opener, acceptor)).await;
                assert!(far.label().is_empty());
                near.close();
                far.close();
                return;
            }
            let error = opener.open_with(&long).await.expect_err("too long");
            assert_eq!(error.kind(), ErrorKind::TooBig, "{error:?}");
            for len in [0usize, 1, 63, 64, 255, 256, 1024] {
                let label: Vec<u8> = (0..len).map(|at| (at * 7) as u8).collect();
                for priority in [Priority::default(), Priority::new(0, false).expect("in range")] {
                    let options = OpenOptions::new().label(label.clone()).priority(priority);
                    let mut near = cx.step("opening with a label", opener.open_with(&options)).await.expect("opens");
                    assert_eq!(&near.label()[..], &label[..]);
                    let mut far = cx.step("accepting", acceptor.accept()).await.expect("accepts");
                    assert_eq!(&far.label()[..], &label[..], "seen before any data");
                    near.write_all(b"data").await.expect("writes");
                    cx.step("the data", read_exactly(far.recv_half(), b"data")).await;
                    near.close();
                    far.close();
                }
            }
        },
    )
    .await;
}

async fn label_above_the_peers_limit(cx: &Cx) {
    let (client, mut server) = cx.subject.configs(|_| ());
    server.max_label = 10;
    let pair = cx.pair_of(&client, &server, None).await;
    if !can(&pair.client, Capabilities::LABEL) {
        cx.without(Capabilities::LABEL, "an open with a label is Unsupported, and nothing is opened");
        return;
    }
    let options = OpenOptions::new().label(vec![1; 11]);
    let mut refused = cx.step("opening", pair.client.open_with(&options)).await.expect("opens");
    let error = cx.step("the refusal", refused.read(&mut [0])).await.expect_err("too long for the peer");
    assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
    drop(refused);
    let (near, far) = cx.step("a channel afterwards", channel(&pair.client, &pair.server)).await;
    near.close();
    far.close();
    cx.settled(&pair).await;
    cx.close(pair).await;
}
