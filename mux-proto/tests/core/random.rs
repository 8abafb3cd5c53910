//! Two applications that do anything at any time, over a link that does too. Each direction of each channel is checked
//! against what was written: all of it and then the end, or an error that explains itself.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mux_api::{Config, ErrorKind};
use mux_proto::Key;

use crate::pair::{Pair, Random, seeds};

/// One side's view of a channel.
struct Half {
    key: Key,
    name: u64,
    /// Bytes written; `finished` when that is all.
    written: u64,
    finished: bool,
    aborted: bool,
    read: u64,
    read_end: Option<bool>,
    stopped: bool,
}

/// What each side says about each channel, to compare at the end.
#[derive(Default)]
struct Ledger {
    /// Written, and finished or not, by (name, side).
    sent: HashMap<(u64, usize), (u64, bool)>,
    got: HashMap<(u64, usize), (u64, bool)>,
}

#[test]
fn any_use_by_both_sides_keeps_every_rule() {
    for seed in 0..seeds(600) {
        let run = catch_unwind(AssertUnwindSafe(|| one_run(seed)));
        assert!(run.is_ok(), "seed {seed}");
    }
}

fn one_run(seed: u64) {
    let mut random = Random::new(seed);
    let mut config = Config::default();
    config.window = [1024, 3000, 20_000, 262_144][random.below(4)];
    config.send_buffer = [4096, 50_000][random.below(2)];
    config.channel_backlog = [2, 128][random.below(2)];
    config.max_channels = [5, 1024][random.below(2)];
    let mut pair = Pair::new(&config);
    for link in &mut pair.links {
        link.capacity = [1, 100, 5000, 1 << 20][random.below(4)];
        link.chunk = [1, 17, 3000, usize::MAX][random.below(4)];
    }
    let (mut halves, mut ledger, mut names) = ([Vec::new(), Vec::new()], Ledger::default(), 0u64);
    for _ in 0..200 + random.below(300) {
        let side = random.below(2);
        act(&mut pair, side, &mut halves[side], &mut ledger, &mut names, &mut random);
        let link = random.below(2);
        match random.below(8) {
            0 => pair.links[link].stalled = !pair.links[link].stalled,
            1..=4 => drop(pair.step()),
            _ => {}
        }
    }
    pair.links.iter_mut().for_each(|link| link.stalled = false);
    pair.run();
    for (side, halves) in halves.iter_mut().enumerate() {
        accept_all(&mut pair, side, halves);
        for mut half in halves.drain(..) {
            read(&mut pair, side, &mut half, &mut ledger);
            end(&mut pair, side, half, &mut ledger);
        }
    }
    pair.run();
    // What was opened and never accepted is accepted and dropped, so that nothing may be left.
    for side in 0..2 {
        let mut late = Vec::new();
        accept_all(&mut pair, side, &mut late);
        for half in late {
            end(&mut pair, side, half, &mut ledger);
        }
    }
    pair.assert_clean();
    for ((name, side), (got, clean)) in &ledger.got {
        let (sent, finished) = ledger.sent.get(&(*name, 1 - side)).copied().unwrap_or_default();
        assert!(got <= &sent, "channel {name}: {got} bytes of {sent}");
        if *clean {
            assert!(finished, "channel {name}: a clean end that nobody sent");
            assert_eq!(*got, sent, "channel {name}: a clean end after too few bytes");
        }
    }
}

fn act(
    pair: &mut Pair,
    side: usize,
    halves: &mut Vec<Half>,
    ledger: &mut Ledger,
    names: &mut u64,
    random: &mut Random,
) {
    let pick = random.below(halves.len());
    match random.below(12) {
        0 | 1 => {
            *names += 1;
            let options = mux_api::OpenOptions::new().label(names.to_be_bytes().to_vec());
            // Not while the peer's open credit is used up.
            if let Some(key) = pair.ends[side].conn.open(&options).expect("lives") {
                halves.push(Half::new(key, *names));
            }
        }
        2 | 3 => accept_all(pair, side, halves),
        4..=6 if pick < halves.len() => write(pair, side, &mut halves[pick], random),
        7 | 8 if pick < halves.len() => read(pair, side, &mut halves[pick], ledger),
        9 if pick < halves.len() => {
            let half = &mut halves[pick];
            half.finished |= pair.ends[side].conn.finish(half.key).is_ok();
        }
        10 if pick < halves.len() => {
            let half = &mut halves[pick];
            if random.below(2) == 0 {
                if pair.ends[side].conn.reset(half.key, 5).is_ok() {
                    (half.aborted, half.finished) = (true, false);
                }
            } else {
                pair.ends[side].conn.stop(half.key, 6).expect("is possible");
                half.stopped = true;
            }
        }
        11 if pick < halves.len() && random.below(3) == 0 => {
            let half = halves.swap_remove(pick);
            end(pair, side, half, ledger);
        }
        _ => {}
    }
}

impl Half {
    fn new(key: Key, name: u64) -> Self {
        Self { key, name, written: 0, finished: false, aborted: false, read: 0, read_end: None, stopped: false }
    }
}

fn accept_all(pair: &mut Pair, side: usize, halves: &mut Vec<Half>) {
    while let Some(key) = pair.ends[side].conn.accept().expect("lives") {
        let label = pair.ends[side].conn.describe(key).expect("exists").0;
        halves.push(Half::new(key, u64::from_be_bytes(label[..].try_into().expect("eight bytes"))));
    }
}

fn write(pair: &mut Pair, side: usize, half: &mut Half, random: &mut Random) {
    // Few bytes where each takes a step of its own.
    let narrow = pair.links[side].capacity.min(pair.links[side].chunk).saturating_mul(100);
    let most = [10, 1000, 30_000][random.below(3)].min(narrow);
    let len = random.below(most) as u64;
    let data: Vec<u8> = (half.written..half.written + len).map(|at| pattern(half.name, side, at)).collect();
    let direct = if random.below(2) == 0 { pair.ends[side].write_direct(half.key, &data) } else { None };
    match direct.map_or_else(|| pair.ends[side].write(half.key, &data), Ok) {
        Ok(taken) => half.written += taken as u64,
        Err(error) => {
            let kinds = [ErrorKind::Finished, ErrorKind::Stopped, ErrorKind::Refused];
            assert!(kinds.contains(&error.kind()), "{error:?}");
        }
    }
}

fn read(pair: &mut Pair, side: usize, half: &mut Half, ledger: &mut Ledger) {
    let (data, end) = pair.ends[side].read(half.key);
    for byte in data {
        assert_eq!(byte, pattern(half.name, 1 - side, half.read), "channel {} at {}", half.name, half.read);
        half.read += 1;
    }
    let end = match end {
        Ok(()) => Some(true),
        Err(error) if error.kind() == ErrorKind::Blocked => None,
        Err(error) => {
            let kinds = [ErrorKind::Reset, ErrorKind::Finished, ErrorKind::Refused];
            assert!(kinds.contains(&error.kind()), "{error:?}");
            Some(false)
        }
    };
    if let (Some(before), false) = (half.read_end, half.stopped) {
        assert_eq!(end, Some(before), "an end stays the end");
    }
    half.read_end = end;
    ledger.got.insert((half.name, side), (half.read, end == Some(true)));
}

fn end(pair: &mut Pair, side: usize, half: Half, ledger: &mut Ledger) {
    let finished = half.finished || pair.ends[side].conn.finish(half.key).is_ok();
    ledger.sent.insert((half.name, side), (half.written, finished && !half.aborted));
    pair.ends[side].conn.abandon(half.key, 0);
    pair.ends[side].release(half.key);
}

fn pattern(name: u64, side: usize, at: u64) -> u8 {
    (name.wrapping_mul(31).wrapping_add(side as u64 * 7).wrapping_add(at)).wrapping_mul(2_654_435_761).to_be_bytes()[5]
}
