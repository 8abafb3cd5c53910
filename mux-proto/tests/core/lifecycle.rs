//! How channels begin and end.

use mux_api::{Config, ErrorKind, Origin, codes};
use mux_proto::Event;

use crate::pair::Pair;

#[test]
fn an_open_is_announced_without_data_and_both_sides_speak_first() {
    for mut pair in [Pair::new(&Config::default()), Pair::plain(&Config::default())] {
        for opener in 0..2 {
            let near = pair.ends[opener].open(b"").expect("opens");
            pair.run();
            assert!(pair.ends[1 - opener].events.contains(&Event::Acceptable));
            let far = pair.ends[1 - opener].conn.accept().expect("lives").expect("is announced");
            assert_eq!(pair.ends[1 - opener].write(far, b"server first").expect("writes"), 12);
            pair.run();
            assert_eq!(pair.ends[opener].read(near).0, b"server first");
            pair.ends[opener].close(near);
            pair.run();
            pair.ends[1 - opener].close(far);
        }
        pair.assert_clean();
    }
}

#[test]
fn writes_before_the_confirmation_are_kept_and_sent_after_it() {
    let mut pair = Pair::new(&Config::default());
    let near = pair.ends[0].open(b"x").expect("opens");
    assert_eq!(pair.ends[0].write(near, b"early").expect("writes"), 5);
    pair.ends[0].conn.finish(near).expect("finishes");
    pair.run();
    let far = pair.ends[1].conn.accept().expect("lives").expect("arrived");
    let (data, end) = pair.ends[1].read(far);
    assert_eq!((&data[..], end.is_ok()), (&b"early"[..], true));
}

#[test]
fn one_direction_ends_while_the_other_goes_on() {
    for mut pair in [Pair::new(&Config::default()), Pair::plain(&Config::default())] {
        let [near, far] = pair.channel();
        pair.ends[0].conn.finish(near).expect("finishes");
        pair.run();
        let mut seen = 0;
        assert!(pair.ends[1].read(far).1.is_ok(), "the end");
        assert!(pair.ends[1].read(far).1.is_ok(), "stays the end");
        let data = vec![7; 1 << 20];
        let mut at = 0;
        while at < data.len() {
            at += pair.ends[1].write(far, &data[at..]).expect("the other direction goes on");
            pair.run();
            seen += pair.ends[0].read(near).0.len();
        }
        pair.ends[1].conn.finish(far).expect("finishes");
        pair.run();
        let (rest, end) = pair.ends[0].read(near);
        assert_eq!((seen + rest.len(), end.is_ok()), (1 << 20, true));
        pair.ends[0].release(near);
        pair.ends[1].release(far);
        pair.assert_clean();
    }
}

/// What the writer does to its direction, what the reader's side does to it, and what each then sees.
#[test]
fn reset_and_stop_matrix() {
    for confirmed in [false, true] {
        for (reset, stop) in [(Some(7), None), (None, Some(9)), (Some(7), Some(9)), (Some(0), Some(0))] {
            let mut pair = Pair::new(&Config::default());
            let near = pair.ends[0].open(b"").expect("opens");
            if confirmed {
                pair.run();
            }
            pair.ends[0].write(near, b"partial").expect("writes");
            if let Some(code) = reset {
                pair.ends[0].conn.reset(near, code).expect("resets");
                assert_eq!(pair.ends[0].write(near, b"x").expect_err("over").kind(), ErrorKind::Finished);
            }
            if let Some(code) = stop {
                pair.ends[0].conn.stop(near, code).expect("stops");
                assert_eq!(pair.ends[0].read(near).1.expect_err("over").kind(), ErrorKind::Finished);
            }
            pair.run();
            if let (Some(_), Some(_)) = (reset, stop) {
                assert!(pair.ends[1].conn.accept().expect("lives").is_none(), "given up before anyone saw it");
                pair.ends[0].release(near);
                pair.assert_clean();
                continue;
            }
            let far = pair.ends[1].conn.accept().expect("lives").expect("arrived");
            if let Some(code) = reset {
                let error = pair.ends[1].read(far).1.expect_err("a reset is never an end");
                assert_eq!((error.kind(), error.code(), error.origin()), (ErrorKind::Reset, Some(code), Origin::Peer));
            }
            if let Some(code) = stop {
                let error = pair.ends[1].write(far, b"x").expect_err("stopped");
                assert_eq!((error.kind(), error.code()), (ErrorKind::Stopped, Some(code)));
            }
            pair.ends[1].drop_channel(far);
            pair.run();
            pair.ends[0].drop_channel(near);
            pair.assert_clean();
        }
    }
}

#[test]
fn reset_and_stop_may_cross_each_other_and_the_end() {
    // Each side acts before it hears of the other.
    for (near_does, far_does) in [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)] {
        let mut pair = Pair::new(&Config::default());
        let keys = pair.channel();
        for (side, does) in [near_does, far_does].into_iter().enumerate() {
            let (end, key) = (&mut pair.ends[side], keys[side]);
            end.write(key, b"data").expect("writes");
            match does {
                0 => drop(end.conn.reset(key, 1)),
                1 => drop(end.conn.stop(key, 2)),
                _ => drop(end.conn.finish(key)),
            }
        }
        pair.run();
        for (side, key) in keys.into_iter().enumerate() {
            pair.ends[side].drop_channel(key);
            pair.run();
        }
        pair.assert_clean();
    }
}

#[test]
fn an_open_beyond_the_backlog_is_refused_safe_to_retry_and_costs_nothing() {
    let mut config = Config::default();
    config.channel_backlog = 3;
    let mut pair = Pair::new(&config);
    let keys: Vec<_> = (0..5).map(|_| pair.ends[0].open(b"").expect("opens")).collect();
    pair.run();
    for key in &keys[3..] {
        let error = pair.ends[0].conn.is_opened(*key).expect_err("refused");
        assert!(error.kind() == ErrorKind::Refused && error.is_retry_safe(), "{error:?}");
        assert_eq!(error.code(), Some(codes::REFUSED));
        assert!(error.message().contains("backlog"), "{error}");
        assert_eq!(pair.ends[0].read(*key).1.expect_err("refused").kind(), ErrorKind::Refused);
    }
    keys[3..].iter().for_each(|key| pair.ends[0].release(*key));
    assert_eq!(pair.ends[0].conn.stats().channels_open, 3);
    for key in &keys[..3] {
        let far = pair.ends[1].conn.accept().expect("lives").expect("waits");
        pair.ends[0].close(*key);
        pair.run();
        pair.ends[1].close(far);
    }
    pair.assert_clean();
}

#[test]
fn a_number_is_used_again_only_after_both_closes() {
    let mut pair = Pair::new(&Config::default());
    let [near, far] = pair.channel();
    pair.ends[1].drop_channel(far);
    pair.ends[0].drop_channel(near);
    let other = pair.ends[0].open(b"").expect("opens");
    assert_ne!(other.id(), near.id(), "the peer's CLOSE has not come");
    pair.run();
    let reused = pair.ends[0].open(b"").expect("opens");
    assert_eq!(reused.id(), near.id());
    assert!(pair.ends[0].write(near, b"x").is_err(), "an old key does not reach the new channel");
}

#[test]
fn draining_refuses_new_channels_and_lets_the_old_ones_finish() {
    let mut pair = Pair::new(&Config::default());
    let [near, far] = pair.channel();
    pair.ends[1].conn.drain();
    let late = pair.ends[0].open(b"").expect("opens");
    pair.run();
    let error = pair.ends[0].conn.is_opened(late).expect_err("refused");
    assert!(error.is_retry_safe() && error.code() == Some(codes::DRAINING), "{error:?}");
    assert_eq!(pair.ends[1].open(b"").expect_err("drains").kind(), ErrorKind::GoAway);
    pair.ends[0].write(near, b"still").expect("writes");
    pair.run();
    assert_eq!(pair.ends[1].read(far).0, b"still");
}

#[test]
fn a_late_announcement_does_not_end_the_session() {
    // One side's announcement takes longer than the other waits for it.
    let now = std::time::Instant::now();
    let config = Config::default();
    let mut slow = crate::pair::End::new(&config, Some(false), now);
    let mut quick = crate::pair::End::new(&config, Some(false), now);
    let hello = quick.output();
    slow.conn.handle_timeout(now + std::time::Duration::from_secs(2));
    assert!(slow.conn.is_established() && !slow.conn.is_extended(), "silence means a plain peer");
    quick.receive(slow.output());
    assert!(quick.conn.is_extended());
    slow.receive(hello);
    quick.receive(slow.output());
    assert!(quick.conn.cause().is_none(), "{:?}", quick.conn.cause());
    let key = quick.open(b"label").expect("opens");
    quick.conn.reset(key, 5).expect("resets");
    slow.receive(quick.output());
    assert!(slow.conn.cause().is_none(), "{:?}", slow.conn.cause());
    assert!(slow.conn.is_extended(), "it is extended from then on");
}

#[test]
fn a_refused_announcement_ends_a_session_that_demands_the_extension() {
    let now = std::time::Instant::now();
    let config = Config::default();
    let mut demands = crate::pair::End::new(&config, Some(true), now);
    let mut plain = crate::pair::End::new(&config, None, now);
    plain.receive(demands.output());
    demands.receive(plain.output());
    let cause = demands.conn.cause().expect("over");
    assert!(cause.kind() == ErrorKind::Protocol && cause.message().contains("ext=on"), "{cause}");
    assert!(plain.conn.cause().is_none());
}
