//! Opening costs no round trip, and no more is opened than the other side allows.

use mux_api::{Config, ErrorKind, OpenOptions, Origin, codes};
use mux_proto::{Event, Frame, LocalId, Outgoing, RemoteId, Wire};

use crate::pair::{End, Pair, Random};

const RECENT: usize = 128;

fn limited(channels: u32) -> Config {
    let mut config = Config::default();
    config.max_channels = channels;
    config
}

#[test]
fn data_and_the_end_travel_before_the_confirmation() {
    let mut pair = Pair::new(&Config::default());
    let near = pair.ends[0].open(b"x").expect("opens");
    pair.ends[0].write(near, b"early").expect("writes");
    pair.ends[0].conn.finish(near).expect("finishes");
    // Nothing of what the other side says arrives.
    pair.links[1].stalled = true;
    pair.run();
    let far = pair.ends[1].conn.accept().expect("lives").expect("arrived");
    let (data, end) = pair.ends[1].read(far);
    assert_eq!((&data[..], end.is_ok()), (&b"early"[..], true));
    assert!(!pair.ends[0].conn.is_opened(near).expect("lives"), "it is not confirmed");
    assert_eq!(pair.ends[1].write(far, b"answer").expect("writes"), 6);
    pair.ends[1].conn.finish(far).expect("finishes");
    pair.links[1].stalled = false;
    pair.run();
    assert_eq!(pair.ends[0].read(near).0, b"answer");
    pair.ends[0].release(near);
    pair.ends[1].release(far);
    pair.assert_clean();
}

#[test]
fn early_data_is_bounded_and_counts_against_the_window() {
    for window in [1024, 20_000, 1 << 20] {
        let mut config = Config::default();
        config.window = window;
        let mut pair = Pair::new(&config);
        let near = pair.ends[0].open(b"").expect("opens");
        pair.links[1].stalled = true;
        let data: Vec<u8> = (0..100_000u32).map(|at| at as u8).collect();
        let mut at = pair.ends[0].write_direct(near, &data).expect("goes out at once");
        at += pair.ends[0].write(near, &data[at..]).expect("writes");
        pair.run();
        let arrived = pair.ends[1].conn.stats().recv_buffered;
        assert_eq!(arrived, u64::from(window.min(16 * 1024)));
        pair.links[1].stalled = false;
        let far = pair.ends[1].conn.accept().expect("lives").expect("arrived");
        let mut got = Vec::new();
        while got.len() < data.len() {
            pair.run();
            got.extend(pair.ends[1].read(far).0);
            at += pair.ends[0].write(near, &data[at..]).expect("writes");
        }
        assert_eq!(got, data);
        pair.ends[0].close(near);
        pair.run();
        pair.ends[1].close(far);
        pair.assert_clean();
    }
}

#[test]
fn only_the_latest_opens_send_early_and_the_others_lose_nothing() {
    let mut pair = Pair::new(&Config::default());
    pair.links[1].stalled = true;
    let keys: Vec<_> = (0..RECENT + 50).map(|_| pair.ends[0].open(b"").expect("opens")).collect();
    for key in &keys {
        pair.ends[0].write(*key, b"12345").expect("writes");
    }
    // The backlog of the other side is as long: what is beyond is refused.
    pair.run();
    assert_eq!(pair.ends[1].conn.stats().recv_buffered, (RECENT - 50) as u64 * 5, "of those accepted and recent");
    pair.links[1].stalled = false;
    pair.run();
    assert_eq!(pair.ends[1].conn.stats().recv_buffered, RECENT as u64 * 5);
    for key in &keys[RECENT..] {
        assert_eq!(pair.ends[0].conn.is_opened(*key).expect_err("refused").kind(), ErrorKind::Refused);
    }
    for key in keys {
        pair.ends[0].drop_channel(key);
    }
    while let Some(far) = pair.ends[1].conn.accept().expect("lives") {
        pair.ends[1].drop_channel(far);
    }
    pair.assert_clean();
}

#[test]
fn a_refusal_that_crosses_early_data_says_that_it_is_safe_to_retry() {
    let mut config = Config::default();
    config.channel_backlog = 1;
    let mut pair = Pair::new(&config);
    let keys = [0, 1].map(|_| pair.ends[0].open(b"").expect("opens"));
    for key in keys {
        pair.ends[0].write(key, &[1; 3000]).expect("writes");
        pair.ends[0].conn.finish(key).expect("finishes");
    }
    pair.run();
    let error = pair.ends[0].conn.is_send_done(keys[1]).expect_err("refused");
    assert!(error.kind() == ErrorKind::Refused && error.is_retry_safe(), "{error}");
    assert_eq!(pair.ends[1].conn.stats().recv_buffered, 3000);
    assert!(pair.ends[0].conn.cause().is_none() && pair.ends[1].conn.cause().is_none());
}

#[test]
fn an_open_beyond_the_credit_waits_until_a_channel_is_gone() {
    let mut pair = Pair::new(&limited(3));
    let keys: Vec<_> = (0..3).map(|_| pair.ends[0].open(b"").expect("opens")).collect();
    pair.run();
    assert!(!pair.ends[0].conn.can_open());
    assert!(pair.ends[0].conn.open(&OpenOptions::new()).expect("lives").is_none(), "it waits");
    let far = pair.ends[1].conn.accept().expect("lives").expect("arrived");
    pair.ends[0].close(keys[0]);
    pair.ends[1].close(far);
    pair.ends[0].events.clear();
    pair.run();
    assert!(pair.ends[0].events.contains(&Event::CanOpen));
    let again = pair.ends[0].open(b"").expect("opens");
    pair.run();
    assert!(pair.ends[0].conn.is_opened(again).expect("not refused"));
}

#[test]
fn open_credit_neither_leaks_nor_grows() {
    let mut config = limited(7);
    config.channel_backlog = 2;
    let mut pair = Pair::new(&config);
    let mut random = Random::new(7);
    for _ in 0..5_000 {
        let Some(near) = pair.ends[0].conn.open(&OpenOptions::new()).expect("lives") else {
            panic!("credit leaked: nothing is open");
        };
        if random.below(2) == 0 {
            pair.run();
        }
        let crowd: Vec<_> =
            (0..random.below(4)).filter_map(|_| pair.ends[0].conn.open(&OpenOptions::new()).expect("lives")).collect();
        pair.run();
        while let Some(far) = pair.ends[1].conn.accept().expect("lives") {
            pair.ends[1].drop_channel(far);
        }
        for near in crowd.into_iter().chain([near]) {
            pair.ends[0].drop_channel(near);
        }
        pair.run();
    }
    let at_once = (0..20).filter(|_| pair.ends[0].conn.open(&OpenOptions::new()).expect("lives").is_some()).count();
    assert_eq!(at_once, 7);
}

#[test]
fn a_side_that_drains_says_so_and_why() {
    let mut pair = Pair::new(&Config::default());
    let [near, far] = pair.channel();
    let crossing = pair.ends[0].open(b"").expect("opens");
    pair.ends[1].conn.drain();
    pair.ends[0].events.clear();
    pair.run();
    let refused = pair.ends[0].conn.is_opened(crossing).expect_err("refused");
    assert!(refused.is_retry_safe() && refused.code() == Some(codes::DRAINING), "{refused}");
    assert!(pair.ends[0].events.contains(&Event::CanOpen), "who waits to open is told");
    let error = pair.ends[0].conn.open(&OpenOptions::new()).expect_err("gone away");
    assert_eq!((error.kind(), error.origin(), error.code()), (ErrorKind::GoAway, Origin::Peer, Some(codes::DRAINING)));
    assert!(error.is_retry_safe());
    pair.ends[0].write(near, b"the old ones go on").expect("writes");
    pair.run();
    assert_eq!(pair.ends[1].read(far).0, b"the old ones go on");
}

#[test]
fn numbers_run_out_with_an_error_and_come_back() {
    let now = std::time::Instant::now();
    let mut end = End::with_numbers(4, now);
    say(&mut end, &[Frame::HelloRefused]);
    let keys: Vec<_> = (0..4).map(|_| end.open(b"").expect("opens")).collect();
    let error = end.open(b"").expect_err("none is left");
    assert!(error.kind() == ErrorKind::LimitExceeded && error.is_retry_safe(), "{error}");
    assert!(error.message().contains("number"), "{error}");
    say(&mut end, &[Frame::Refuse { to: RemoteId(2), code: None, reason: "" }]);
    assert!(end.open(b"").is_err(), "the application still holds it");
    end.release(keys[2]);
    end.open(b"").expect("the number is free again");
    let before = end.output().len();
    let offer = Frame::Open { from: LocalId(9), window: 1, max_frame: 9, label: b"", priority: Default::default() };
    say(&mut end, &[offer]);
    assert_eq!(&end.output()[..], [102, 0, 0, 0, 9], "refused, after {before} bytes");
}

fn say(end: &mut End, frames: &[Outgoing<'_>]) {
    let mut out = bytes::BytesMut::new();
    frames.iter().for_each(|frame| backend_qmux::Qmux.encode(frame, &mut out));
    end.receive(out.freeze());
}
