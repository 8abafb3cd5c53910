//! Who sends next.

use bytes::Bytes;
use mux_api::{Config, OpenOptions, Priority};
use mux_proto::{Decoded, Frame, Key, Wire};

use crate::pair::Pair;

/// Opens channels of these urgencies on side 0, all with window and none with data.
fn channels(pair: &mut Pair, urgencies: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    for urgency in urgencies {
        let options = OpenOptions::new().priority(Priority::new(*urgency, true).expect("in range"));
        keys.push(pair.ends[0].conn.open(&options).expect("lives").expect("may open"));
    }
    pair.run();
    keys
}

/// Which channel each data frame in `bytes` is for, by the order of opening, with its length.
fn turns(mut bytes: &[u8]) -> Vec<(u32, u32)> {
    let mut out = Vec::new();
    loop {
        match backend_qmux::Qmux.decode(bytes).expect("our own frames") {
            Decoded::Incomplete => return out,
            Decoded::Frame(frame, len) => {
                bytes = &bytes[len..];
                if let Frame::Data { to, len } = frame {
                    bytes = &bytes[len as usize..];
                    out.push((to.0, len));
                }
            }
        }
    }
}

#[test]
fn channels_of_one_urgency_take_turns_with_small_frames() {
    let mut pair = Pair::new(&Config::default());
    let keys = channels(&mut pair, &[3; 8]);
    for key in &keys {
        pair.ends[0].conn.write_bytes(*key, &mut Bytes::from(vec![0; 128 * 1024])).expect("writes");
    }
    let seen = turns(&pair.ends[0].output());
    for round in seen.chunks(8).take(4) {
        let mut order: Vec<u32> = round.iter().map(|(to, _)| *to).collect();
        assert!(round.iter().all(|(_, len)| *len <= 16 * 1024), "{round:?}");
        order.sort_unstable();
        order.dedup();
        assert_eq!(order.len(), 8, "each once a round: {round:?}");
    }
}

#[test]
fn urgent_channels_go_first_and_a_hint_can_be_changed() {
    let mut pair = Pair::new(&Config::default());
    let keys = channels(&mut pair, &[7, 0, 3]);
    for key in &keys {
        pair.ends[0].write(*key, &[0; 10_000]).expect("writes");
    }
    let seen: Vec<u32> = turns(&pair.ends[0].output()).into_iter().map(|(to, _)| to).collect();
    assert_eq!(seen, [1, 2, 0]);
    pair.ends[0].conn.set_priority(keys[0], Priority::new(0, true).expect("in range"));
    pair.ends[0].write(keys[2], &[0; 10]).expect("writes");
    pair.ends[0].write(keys[0], &[0; 10]).expect("writes");
    let seen: Vec<u32> = turns(&pair.ends[0].output()).into_iter().map(|(to, _)| to).collect();
    assert_eq!(seen, [0, 2]);
}

#[test]
fn a_late_urgent_message_waits_for_one_batch_not_for_megabytes() {
    let mut config = Config::default();
    config.window = 8 << 20;
    config.send_buffer = 4 << 20;
    let mut pair = Pair::new(&config);
    let keys = channels(&mut pair, &[5, 0]);
    pair.links[0].capacity = 64 * 1024;
    pair.ends[0].conn.write_bytes(keys[0], &mut Bytes::from(vec![1; 4 << 20])).expect("writes");
    pair.links[0].stalled = true;
    pair.send(0);
    pair.ends[0].write(keys[1], b"now").expect("writes");
    pair.links[0].stalled = false;
    let urgent = loop {
        pair.step();
        let Some(far) = pair.ends[1].conn.accept().expect("lives") else { continue };
        if far.index() == keys[1].index() {
            break far;
        }
    };
    let mut bulk = 0;
    while pair.ends[1].read(urgent).0.is_empty() {
        bulk = pair.ends[1].conn.stats().recv_buffered;
        assert!(pair.step());
    }
    assert!(bulk <= 512 * 1024, "{bulk} bytes went before it");
}
