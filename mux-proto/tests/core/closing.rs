//! Ends of sessions: nothing finished is lost, nothing truncated looks complete, nothing spins.

use std::time::Duration;

use mux_api::{Config, ErrorKind, Origin};

use crate::pair::{Pair, Random, seeds};

#[test]
fn a_polite_close_delivers_what_was_finished_then_says_why() {
    let mut pair = Pair::new(&Config::default());
    let [near, far] = pair.channel();
    let data = vec![3; 200_000];
    assert_eq!(pair.ends[0].write(near, &data).expect("writes"), data.len());
    pair.ends[0].close(near);
    let now = pair.now;
    pair.ends[0].conn.close(42, "done", now);
    pair.run();
    let (seen, end) = pair.ends[1].read(far);
    assert_eq!((seen.len(), end.is_ok()), (data.len(), true));
    let cause = pair.ends[1].conn.cause().expect("over").clone();
    assert_eq!((cause.origin(), cause.code(), cause.message()), (Origin::Peer, Some(42), "done"));
}

#[test]
fn a_close_waits_for_a_slow_reader_and_not_beyond_the_linger_time() {
    let mut config = Config::default();
    config.linger = Duration::from_secs(5);
    config.window = 1024;
    let mut pair = Pair::new(&config);
    let [near, far] = pair.channel();
    pair.ends[0].write(near, &[1; 5000]).expect("writes");
    pair.ends[0].close(near);
    let now = pair.now;
    pair.ends[0].conn.close(0, "", now);
    pair.run();
    assert!(pair.ends[0].conn.cause().is_none(), "the peer has not taken everything");
    let (first, _) = pair.ends[1].read(far);
    pair.run();
    pair.advance(Duration::from_secs(6));
    pair.run();
    let (rest, end) = pair.ends[1].read(far);
    assert!(first.len() + rest.len() < 5000 && end.is_err(), "cut short, and not taken for complete");
    let cause = pair.ends[0].conn.cause().expect("over");
    assert!(cause.message().contains("linger"), "{cause}");
}

#[test]
fn what_arrived_is_readable_after_the_end_and_reading_it_asks_for_nothing() {
    for by_us in [false, true] {
        let mut pair = Pair::new(&Config::default());
        let [near, far] = pair.channel();
        let sent = pair.ends[0].write(near, &[1; 200_000]).expect("writes");
        pair.run();
        pair.ends[usize::from(by_us)].conn.abort(5);
        pair.run();
        let (data, end) = pair.ends[1].read(far);
        assert_eq!(data.len(), sent);
        assert_eq!(end.expect_err("no end was sent").kind(), ErrorKind::Closed);
        assert!(!pair.ends[1].conn.has_output(), "a driver would spin on output that never comes");
        pair.ends[1].release(far);
        pair.ends[0].release(near);
        assert_eq!((pair.ends[0].budget.used(), pair.ends[1].budget.used()), (0, 0));
    }
}

#[test]
fn an_abort_is_seen_as_such_on_every_channel() {
    let mut pair = Pair::new(&Config::default());
    let [near, far] = pair.channel();
    pair.ends[0].write(near, b"half").expect("writes");
    pair.run();
    pair.ends[0].conn.abort(77);
    pair.run();
    let error = pair.ends[1].read(far).1.expect_err("aborted");
    assert_eq!((error.kind(), error.origin(), error.code()), (ErrorKind::Closed, Origin::Peer, Some(77)));
    assert_eq!(pair.ends[1].write(far, b"x").expect_err("aborted").code(), Some(77));
    assert!(pair.ends[1].conn.accept().is_err());
}

#[test]
fn the_end_of_the_transport_is_never_an_end_of_a_channel() {
    for mut pair in [Pair::new(&Config::default()), Pair::plain(&Config::default())] {
        let [near, far] = pair.channel();
        pair.ends[0].write(near, b"half").expect("writes");
        pair.run();
        pair.ends[1].conn.handle_eof();
        let (data, end) = pair.ends[1].read(far);
        assert_eq!(data, b"half");
        assert_eq!(end.expect_err("cut").origin(), Origin::Transport);
    }
}

#[test]
fn a_plain_peer_that_leaves_in_the_middle_of_a_message_did_not_close() {
    let mut pair = Pair::plain(&Config::default());
    pair.ends[1].receive(bytes::Bytes::from_static(&[100, 0, 0]));
    pair.ends[1].conn.handle_eof();
    assert_eq!(pair.ends[1].conn.cause().expect("over").origin(), Origin::Transport);
}

#[test]
fn close_loses_nothing_over_many_seeds() {
    for seed in 0..seeds(2000) {
        let run = std::panic::catch_unwind(|| one_close(seed));
        assert!(run.is_ok(), "seed {seed}");
    }
}

/// Random writes, then finish, close of the channel or polite close of the session, with a slow reader: all bytes and
/// then the end, or an explicit error.
fn one_close(seed: u64) {
    let mut random = Random::new(seed);
    let mut config = Config::default();
    config.window = [1024, 4096, 65_536][random.below(3)];
    config.send_buffer = [4096, 65_536][random.below(2)];
    let plain = random.below(4) == 0;
    let mut pair = if plain { Pair::plain(&config) } else { Pair::new(&config) };
    for link in &mut pair.links {
        link.capacity = [1, 7, 100, 4096, 65_536][random.below(5)];
        link.chunk = [1, 13, 1000, usize::MAX][random.below(4)];
    }
    let [near, far] = pair.channel();
    let (mut written, mut seen) = (0usize, 0usize);
    // Few bytes where each takes a step of its own.
    let narrow = pair.links[0].capacity.min(pair.links[0].chunk);
    let goal = random.below(20_000.min(narrow.saturating_mul(200)));
    while written < goal {
        let len = random.below(3000).min(goal - written) + 1;
        let data: Vec<u8> = (written..written + len).map(pattern).collect();
        let direct = if random.below(2) == 0 { pair.ends[0].write_direct(near, &data) } else { None };
        let taken = match direct {
            Some(taken) => taken,
            None => pair.ends[0].write(near, &data).expect("writes"),
        };
        written += taken;
        if taken == 0 || random.below(3) == 0 {
            pair.step();
            seen = read_some(&mut pair, far, seen).0;
        }
    }
    let how = random.below(3);
    match how {
        0 => pair.ends[0].conn.finish(near).expect("finishes"),
        _ => pair.ends[0].close(near),
    }
    if how == 2 {
        let now = pair.now;
        pair.ends[0].conn.close(1, "", now);
    }
    for _ in 0..1_000_000 {
        pair.step();
        if random.below(3) > 0 {
            let (so_far, end) = read_some(&mut pair, far, seen);
            seen = so_far;
            if end {
                assert_eq!(seen, written, "a clean end after too few bytes");
                return;
            }
        }
    }
    panic!("the end never came");
}

fn read_some(pair: &mut Pair, key: mux_proto::Key, mut seen: usize) -> (usize, bool) {
    let (data, end) = pair.ends[1].read(key);
    for byte in data {
        assert_eq!(byte, pattern(seen));
        seen += 1;
    }
    match end {
        Ok(()) => (seen, true),
        Err(error) if error.kind() == ErrorKind::Blocked => (seen, false),
        Err(error) => panic!("after {seen} bytes: {error}"),
    }
}

fn pattern(at: usize) -> u8 {
    (at.wrapping_mul(2_654_435_761) >> 9) as u8
}

#[test]
fn a_reader_that_stopped_is_told_so_even_after_the_peers_end() {
    let mut pair = Pair::new(&Config::default());
    let [near, far] = pair.channel();
    pair.ends[0].write(near, b"all of it").expect("writes");
    pair.ends[0].conn.finish(near).expect("finishes");
    pair.run();
    pair.ends[1].conn.stop(far, 4).expect("stops");
    let (data, end) = pair.ends[1].read(far);
    assert_eq!((data.len(), end.expect_err("not the end of what was read").kind()), (0, ErrorKind::Finished));
    pair.ends[1].drop_channel(far);
    pair.ends[0].drop_channel(near);
    pair.assert_clean();
}
