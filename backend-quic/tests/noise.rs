//! Datagrams that mean nothing, or not what they seem to, harm nobody.

mod common;

use std::time::Duration;

use common::strangers::{Answers, connects, first_datagrams, send, stranger};
use common::{certificate, listen, server_config, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_and_unknown_versions_harm_nobody() {
    let made = certificate();
    let listener = listen("quic://127.0.0.1:0", &server_config(&made)).await;
    let live = connects(&listener, &made).await;
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let noise: Vec<Vec<u8>> = (0..4000)
        .map(|at| {
            let len = random() as usize % 1500;
            let mut datagram: Vec<u8> = (0..len).map(|_| random() as u8).collect();
            if let [first, v1, v2, v3, v4, ..] = &mut datagram[..] {
                // Short headers, long ones of version 1, and long ones of versions that nobody knows.
                *first = if at % 3 == 0 { *first & 0x7f } else { *first | 0xc0 };
                if at % 3 == 1 {
                    [*v1, *v2, *v3, *v4] = [0, 0, 0, 1];
                }
            }
            datagram
        })
        .collect();
    let (socket, mut answers) = (stranger(&listener), Answers::default());
    send(&socket, &noise, &mut answers).await;
    // Real first packets, damaged.
    let mut damaged = first_datagrams(500);
    for datagram in &mut damaged {
        let at = random() as usize % datagram.len();
        datagram[at] ^= 1 << (random() % 8);
        let len = random() as usize % datagram.len();
        datagram.truncate(if len.is_multiple_of(2) { len } else { usize::MAX });
    }
    send(&socket, &damaged, &mut answers).await;
    within(live.0.ping()).await.expect("the old session lives");
    // A long header of an unknown version with two connection ids is told the versions that are known.
    let mut unknown = vec![0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 7, 6, 5, 4, 3, 2, 1];
    unknown.resize(1200, 0);
    let asker = stranger(&listener);
    let answer = within(async {
        loop {
            asker.send(&unknown).expect("sends");
            tokio::time::sleep(Duration::from_millis(20)).await;
            let mut buf = [0; 2048];
            if let Ok(len) = asker.recv(&mut buf) {
                break buf[..len].to_vec();
            }
        }
    })
    .await;
    assert_eq!(&answer[1..5], [0; 4], "version negotiation");
    let (client, _server) = connects(&listener, &made).await;
    within(client.ping()).await.expect("a new session lives");
}
