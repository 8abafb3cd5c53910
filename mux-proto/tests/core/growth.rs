//! Windows grow to what the link carries, on a virtual link with a rate and a delay, and shrink when memory is short.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mux_api::Config;
use mux_proto::Key;

use crate::pair::{End, Pair};

/// Two ends with a link between them: what is sent arrives after half a round trip, at most `rate` bytes a second.
struct Line {
    ends: [End; 2],
    /// On the way to the other side, by the time of arrival.
    flying: [VecDeque<(Instant, Bytes)>; 2],
    now: Instant,
    round_trip: Duration,
    /// Bytes a tick.
    rate: usize,
}

/// Ticks in a round trip.
const TICKS: u32 = 50;

impl Line {
    fn new(config: &Config, extension: [Option<bool>; 2], round_trip: Duration, mbit: u64) -> Self {
        let now = Instant::now();
        let ends = extension.map(|extension| End::new(config, extension, now));
        let rate = (mbit * 125_000) as f64 * (round_trip / TICKS).as_secs_f64();
        let mut this = Self { ends, flying: Default::default(), now, round_trip, rate: rate as usize };
        for _ in 0..2 * TICKS {
            this.tick(&mut |_| {});
        }
        assert!(this.ends.iter().all(|end| end.conn.is_established()));
        this
    }

    /// Time goes on; `work` is what the applications do whenever something could have changed.
    fn tick(&mut self, work: &mut dyn FnMut(&mut [End; 2])) {
        self.now += self.round_trip / TICKS;
        for side in 0..2 {
            while self.flying[side].front().is_some_and(|(at, _)| *at <= self.now) {
                let (_, bytes) = self.flying[side].pop_front().expect("was seen");
                let end = &mut self.ends[1 - side];
                end.set_clock(self.now);
                end.conn.handle_new_buffer(bytes.len());
                end.receive(bytes);
                end.collect();
            }
        }
        let mut room = [self.rate; 2];
        loop {
            work(&mut self.ends);
            let mut moved = false;
            for (side, room) in room.iter_mut().enumerate() {
                let sent = self.ends[side].output_up_to(*room);
                if !sent.is_empty() {
                    *room -= sent.len();
                    moved = true;
                    self.flying[side].push_back((self.now + self.round_trip / 2, sent.into()));
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn channel(&mut self) -> [Key; 2] {
        let near = self.ends[0].open(b"").expect("opens");
        for _ in 0..2 * TICKS {
            self.tick(&mut |_| {});
        }
        [near, self.ends[1].conn.accept().expect("lives").expect("arrived")]
    }

    /// Sends as much as is taken and reads everything for a round trip; how many bytes were read.
    fn round(&mut self, [near, far]: [Key; 2], data: &Bytes) -> usize {
        let mut read = 0;
        for _ in 0..TICKS {
            self.tick(&mut |ends| {
                let _ = ends[0].conn.write_bytes(near, &mut data.clone());
                read += ends[1].read(far).0.len();
            });
        }
        read
    }
}

fn reaches_most_of_the_link(extension: [Option<bool>; 2]) {
    let data = Bytes::from(vec![7; 1 << 20]);
    for millis in [1, 20, 60, 200, 500] {
        for mbit in [10, 100, 1000] {
            let mut line = Line::new(&Config::default(), extension, Duration::from_millis(millis), mbit);
            let keys = line.channel();
            let most = line.rate * TICKS as usize;
            let mut seen = Vec::new();
            while seen.last().is_none_or(|read| read * 100 < most * 80) {
                seen.push(line.round(keys, &data));
                assert!(seen.len() <= 20, "{millis} ms, {mbit} Mbit/s carry {most} a round trip: {seen:?}");
            }
            // And stays there, without more memory than it needs.
            let more: usize = (0..4).map(|_| line.round(keys, &data)).sum();
            assert!(more * 100 >= most * 4 * 80, "{millis} ms, {mbit} Mbit/s: falls back to {more} in four of {most}");
            let held = line.ends[1].budget.used();
            let need = (most as u64 * 4).max(4 << 20);
            assert!(held <= need, "{millis} ms, {mbit} Mbit/s: {held} bytes held, {most} on the way");
        }
    }
}

#[test]
fn one_channel_reaches_most_of_any_link_within_twenty_round_trips() {
    reaches_most_of_the_link([Some(false); 2]);
}

#[test]
fn so_it_does_from_a_plain_peer() {
    reaches_most_of_the_link([None, Some(false)]);
}

#[test]
fn a_slow_reader_gets_no_larger_window() {
    let data = Bytes::from(vec![7; 1 << 20]);
    let mut line = Line::new(&Config::default(), [Some(false); 2], Duration::from_millis(60), 1000);
    let [near, far] = line.channel();
    let before = line.ends[1].budget.used();
    for _ in 0..30 {
        for _ in 0..TICKS {
            line.tick(&mut |ends| {
                let _ = ends[0].conn.write_bytes(near, &mut data.clone());
            });
        }
        // A little in each round trip.
        let _ = line.ends[1].conn.take(far, 10_000);
    }
    assert_eq!(line.ends[1].budget.used(), before);
}

#[test]
fn many_channels_share_the_budget_and_all_go_on() {
    let mut config = Config::default();
    config.budget = 8 << 20;
    let data = Bytes::from(vec![7; 1 << 20]);
    let mut line = Line::new(&config, [Some(false); 2], Duration::from_millis(200), 1000);
    let first = line.channel();
    for _ in 0..20 {
        line.round(first, &data);
    }
    let alone = line.ends[1].budget.used();
    assert!(alone > 2 << 20, "the first takes what is there: {alone}");
    let rest: Vec<_> = (0..31).map(|_| line.channel()).collect();
    let all: Vec<_> = [first].into_iter().chain(rest).collect();
    let mut totals = vec![0; all.len()];
    for _ in 0..40 * TICKS {
        line.tick(&mut |ends| {
            for ([near, far], total) in all.iter().zip(&mut totals) {
                let _ = ends[0].conn.write_bytes(*near, &mut data.clone());
                *total += ends[1].read(*far).0.len();
            }
        });
        assert!(line.ends[1].budget.used() <= config.budget);
    }
    let (least, most) = (totals.iter().min().expect("some"), totals.iter().max().expect("some"));
    assert!(*least > 0 && most / least <= 16, "nobody starves: {totals:?}");
}

#[test]
fn a_grown_window_shrinks_when_memory_is_short() {
    let mut config = Config::default();
    config.budget = 4 << 20;
    let data = Bytes::from(vec![7; 1 << 20]);
    let mut line = Line::new(&config, [Some(false); 2], Duration::from_millis(60), 1000);
    let keys = line.channel();
    for _ in 0..20 {
        line.round(keys, &data);
    }
    let grown = line.ends[1].budget.used();
    // Somebody else of the same budget takes nearly all that is left.
    let budget = line.ends[1].budget.clone();
    let others = budget.reserve(budget.available() - 1000).expect("is there");
    for _ in 0..20 {
        assert!(line.round(keys, &data) > 0, "it goes on");
    }
    let (left, free) = (budget.used() - others.bytes(), budget.available());
    assert!(free >= left / 2, "{left} of {grown} are kept although only {free} are left for others");
}

#[test]
fn what_two_ends_hold_comes_back() {
    let mut pair = Pair::new(&Config::default());
    let [near, far] = pair.channel();
    for _ in 0..200 {
        let _ = pair.ends[0].write(near, &[1; 200_000]);
        pair.advance(Duration::from_millis(1));
        pair.run();
        let _ = pair.ends[1].read(far);
    }
    pair.ends[0].close(near);
    pair.run();
    let _ = pair.ends[1].read(far);
    pair.ends[1].close(far);
    pair.assert_clean();
}
