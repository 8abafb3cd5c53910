//! Dead peers are noticed, busy and plain ones are not taken for dead, unused sessions end when asked to.

use std::time::Duration;

use mux_api::{Config, ErrorKind, Origin};

use crate::pair::Pair;

const TICK: Duration = Duration::from_secs(1);

fn config() -> Config {
    let mut config = Config::default();
    config.keepalive = TICK;
    config
}

#[test]
fn a_silent_peer_is_dead_after_two_unanswered_probes() {
    let mut pair = Pair::new(&config());
    pair.run();
    pair.links[1].stalled = true;
    for tick in 1.. {
        assert!(tick <= 4, "noticed in time");
        pair.advance(TICK);
        pair.run();
        if let Some(cause) = pair.ends[0].conn.cause() {
            assert_eq!((cause.kind(), cause.origin()), (ErrorKind::Idle, Origin::Transport));
            assert!(tick > 2, "not after {tick} ticks");
            return;
        }
    }
}

#[test]
fn probes_keep_an_idle_session_alive_with_any_peer() {
    for mut pair in [Pair::new(&config()), Pair::plain(&config())] {
        let [near, far] = pair.channel();
        for _ in 0..100 {
            pair.advance(TICK);
            pair.run();
        }
        for end in &mut pair.ends {
            assert_eq!(end.conn.cause().map(ToString::to_string), None);
        }
        pair.ends[0].close(near);
        pair.run();
        pair.ends[1].close(far);
        pair.assert_clean();
    }
}

#[test]
fn a_plain_peer_that_has_not_answered_an_open_may_be_silent() {
    let mut pair = Pair::plain(&config());
    pair.links[1].stalled = true;
    pair.ends[0].open(b"").expect("opens");
    for _ in 0..20 {
        pair.advance(TICK);
        pair.run();
    }
    assert_eq!(pair.ends[0].conn.cause().map(ToString::to_string), None);
    pair.links[1].stalled = false;
    pair.run();
    assert_eq!(pair.ends[0].conn.cause().map(ToString::to_string), None);
}

#[test]
fn only_a_session_that_is_not_used_ends_by_idleness() {
    let mut config = config();
    config.idle = TICK * 10;
    let mut pair = Pair::new(&config);
    let [near, far] = pair.channel();
    for _ in 0..50 {
        pair.advance(TICK);
        pair.ends[0].write(near, b"x").expect("lives");
        pair.run();
        let _ = pair.ends[1].read(far);
    }
    for _ in 0..20 {
        pair.advance(TICK);
        pair.run();
    }
    let cause = pair.ends[0].conn.cause().expect("over");
    assert_eq!(cause.kind(), ErrorKind::Idle, "{cause}");
}

#[test]
fn round_trips_are_measured_with_any_peer() {
    for mut pair in [Pair::new(&config()), Pair::plain(&config())] {
        for took in [Duration::from_millis(60), Duration::from_millis(20)] {
            let now = pair.now;
            let awaited = pair.ends[0].conn.ping(now);
            assert_eq!(pair.ends[0].conn.ping(now), awaited, "one at a time");
            pair.links[1].stalled = true;
            pair.run();
            pair.advance(took);
            assert!(pair.ends[0].conn.round_trips().0 < awaited);
            pair.links[1].stalled = false;
            pair.run();
            assert_eq!(pair.ends[0].conn.round_trips(), (awaited, Some(took)));
        }
        assert!(pair.ends[0].conn.stats().rtt.is_some());
    }
}

#[test]
fn a_session_knows_its_round_trip_from_the_start() {
    let pair = Pair::new(&config());
    assert!(pair.ends.iter().all(|end| end.conn.stats().rtt.is_some()));
    let pair = Pair::with([&config(), &config()], [Some(false), None]);
    assert!(pair.ends[0].conn.stats().rtt.is_some(), "the announcement is a probe to a plain peer");
}

#[test]
fn a_slow_link_that_goes_on_taking_bytes_is_not_dead() {
    let mut pair = Pair::new(&config());
    pair.run();
    pair.links[1].stalled = true;
    for _ in 0..20 {
        pair.advance(TICK);
        pair.run();
        pair.ends[0].conn.handle_progress();
    }
    assert_eq!(pair.ends[0].conn.cause().map(ToString::to_string), None);
    for _ in 0..4 {
        pair.advance(TICK);
        pair.run();
    }
    assert!(pair.ends[0].conn.cause().is_some(), "one that takes nothing is");
}
