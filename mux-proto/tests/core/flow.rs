//! Windows and budgets: each channel stalls only itself, nothing is granted that is not charged, all of it comes back.

use bytes::BytesMut;
use mux_api::{Config, ErrorKind};
use mux_proto::Limits;

use crate::pair::{Pair, Random};

fn small_window(bytes: u32) -> Config {
    let mut config = Config::default();
    config.window = bytes;
    config
}

#[test]
fn unread_channels_do_not_stop_another() {
    for unread in [1, 64, 1000] {
        let mut config = Config::default();
        config.max_channels = 1024;
        config.channel_backlog = 1024;
        let mut pair = Pair::new(&config);
        let mut stalled = Vec::new();
        for _ in 0..unread {
            let [near, far] = pair.channel();
            // Until neither the window nor the buffer takes more.
            while pair.ends[0].write(near, &[1; 65_536]).expect("writes") > 0 {
                pair.run();
            }
            stalled.push([near, far]);
        }
        let [near, far] = pair.channel();
        let mut got = 0;
        for _ in 0..100 {
            pair.ends[0].write(near, &[2; 10_000]).expect("writes");
            pair.run();
            got += pair.ends[1].read(far).0.len();
        }
        assert!(got >= 100 * 1024, "beside {unread} unread channels only {got} bytes came through");
        assert!(pair.ends[1].budget.used() <= config.budget);
        for [near, far] in stalled.into_iter().chain([[near, far]]) {
            pair.ends[1].drop_channel(far);
            pair.ends[0].drop_channel(near);
        }
        pair.assert_clean();
    }
}

#[test]
fn both_sides_write_before_they_read_through_a_narrow_pipe() {
    for (capacity, channels, window) in [(1, 2, 1024), (64, 16, 1024), (4096, 64, 16_384), (65_536, 16, 65_536)] {
        let mut pair = Pair::new(&small_window(window));
        for link in &mut pair.links {
            link.capacity = capacity;
        }
        let channels: Vec<_> = (0..channels).map(|_| pair.channel()).collect();
        let mut written = [0usize; 2];
        loop {
            let before = written;
            for keys in &channels {
                for side in 0..2 {
                    written[side] += pair.ends[side].write(keys[side], &[5; 30_000]).expect("writes");
                }
            }
            pair.run();
            if written == before {
                break;
            }
        }
        // Nobody has read yet, both sides are full; control still passes.
        let extra = pair.channel();
        let mut read = [0usize; 2];
        loop {
            let before = read;
            for keys in &channels {
                for side in 0..2 {
                    read[side] += pair.ends[side].read(keys[side]).0.len();
                }
            }
            pair.run();
            if read == before {
                break;
            }
        }
        assert_eq!(read, [written[1], written[0]], "deadlock");
        for keys in channels.into_iter().chain([extra]) {
            for (side, key) in keys.into_iter().enumerate() {
                pair.ends[side].close(key);
            }
        }
        pair.assert_clean();
    }
}

#[test]
fn credit_never_leaks_however_the_reader_reads() {
    for (window, plain) in [(1024, false), (1025, true), (4099, false), (65_536, true)] {
        let config = small_window(window);
        let mut pair = if plain { Pair::plain(&config) } else { Pair::new(&config) };
        let [near, far] = pair.channel();
        let mut random = Random::new(u64::from(window));
        for _ in 0..20_000 {
            let len = random.below(3000);
            let sent = match random.below(2) {
                0 => pair.ends[0].write_direct(near, &vec![1; len + 1]).unwrap_or(0),
                _ => pair.ends[0].write(near, &vec![1; len]).expect("writes"),
            };
            if sent == 0 || random.below(2) == 0 {
                pair.run();
                // A part of a chunk; the rest stays.
                let _ = pair.ends[1].conn.take(far, random.below(2000));
            }
        }
        loop {
            pair.run();
            if pair.ends[1].read(far).0.is_empty() {
                break;
            }
        }
        assert_eq!(pair.ends[0].conn.stats().send_buffered, 0, "window {window}: the sender waits for lost credit");
        pair.ends[0].close(near);
        pair.run();
        pair.ends[1].close(far);
        pair.assert_clean();
    }
}

#[test]
fn a_plain_peer_can_finish_towards_a_reader_that_left() {
    // It cannot be told to stop, so what it sends is discarded and credited: also what had arrived before.
    let mut pair = Pair::plain(&small_window(4096));
    let [near, far] = pair.channel();
    let data = vec![1; 100_000];
    let mut written = pair.ends[0].write(near, &data).expect("writes");
    pair.run();
    assert_eq!(pair.ends[1].conn.recv_buffered(far), 4096, "the window is full and nobody has read");
    pair.ends[1].conn.abandon(far, 0);
    while written < data.len() {
        let more = pair.ends[0].write(near, &data[written..]).expect("writes");
        let moved = {
            pair.run();
            pair.ends[0].conn.stats().send_buffered
        };
        written += more;
        assert!(more > 0 || moved == 0, "the peer stalls at {written}");
    }
    pair.run();
    assert_eq!(pair.ends[0].conn.stats().send_buffered, 0, "everything was taken");
    pair.ends[0].conn.finish(near).expect("finishes");
    pair.ends[1].conn.finish(far).expect("finishes");
    pair.ends[0].release(near);
    pair.ends[1].release(far);
    pair.assert_clean();
}

#[test]
fn what_waits_unread_stays_charged_after_the_end_and_comes_back_when_read() {
    let mut pair = Pair::new(&Config::default());
    let [near, far] = pair.channel();
    let sent = pair.ends[0].write(near, &[1; 50_000]).expect("writes");
    pair.ends[0].close(near);
    pair.run();
    assert_eq!(pair.ends[1].budget.used(), sent as u64, "what waits, and no window beside it");
    assert!(pair.ends[1].read(far).1.is_ok());
    assert_eq!(pair.ends[1].budget.used(), 0);
    pair.ends[1].close(far);
    pair.assert_clean();
}

#[test]
fn an_empty_budget_refuses_channels_on_both_sides_with_a_clear_error() {
    let mut tight = Config::default();
    tight.budget = 65_536;
    tight.channel_backlog = 1024;
    let mut pair = Pair::with([&Config::default(), &tight], [Some(false); 2]);
    let keys: Vec<_> = (0..200).map(|_| pair.ends[0].open(b"").expect("opens")).collect();
    pair.run();
    let refused: Vec<_> = keys.iter().filter(|key| pair.ends[0].conn.is_opened(**key).is_err()).collect();
    assert!(!refused.is_empty() && refused.len() < 200);
    let error = pair.ends[0].conn.is_opened(*refused[0]).expect_err("refused");
    assert!(error.is_retry_safe() && error.message().contains("memory"), "{error}");
    assert!(pair.ends[1].budget.used() <= 65_536);
    let error = pair.ends[1].open(b"").expect_err("no memory");
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
}

#[test]
fn windows_stay_small_for_a_reader_that_does_not_read() {
    let mut pair = Pair::new(&Config::default());
    let [near, _far] = pair.channel();
    let before = pair.ends[1].budget.used();
    for _ in 0..1000 {
        let _ = pair.ends[0].write(near, &[1; 65_536]).expect("writes");
        pair.run();
    }
    assert_eq!(pair.ends[1].budget.used(), before);
}

#[test]
fn a_little_unread_data_does_not_keep_a_large_receive_buffer() {
    const SIZE: usize = 256 * 1024;
    let mut pair = Pair::new(&Config::default());
    let [near, far] = pair.channel();
    pair.ends[0].write(near, &[7; 3000]).expect("writes");
    let message = pair.ends[0].output();
    // The transport moves on early, as it does when a session becomes quiet.
    let mut buffer = BytesMut::with_capacity(SIZE);
    pair.ends[1].conn.handle_new_buffer(buffer.capacity());
    buffer.extend_from_slice(&message);
    pair.ends[1].receive(buffer.split().freeze());
    for _ in 0..3 {
        pair.ends[1].conn.handle_new_buffer(SIZE);
    }
    assert!(buffer.try_reclaim(SIZE), "3,000 bytes keep {SIZE}");
    assert_eq!(pair.ends[1].read(far).0, [7; 3000]);
}

#[test]
fn control_is_bounded_when_the_transport_takes_nothing() {
    let mut pair = Pair::new(&Config::default());
    let mut opened = 0;
    while let Ok(Some(_)) = pair.ends[0].conn.open(&mux_api::OpenOptions::new()) {
        opened += 1;
        assert!(opened < 100_000, "open never waits");
    }
    assert!(!pair.ends[0].conn.can_open());
    pair.run();
    assert!(pair.ends[0].conn.can_open() && pair.ends[0].events.contains(&mux_proto::Event::CanOpen));
    assert!(u64::from(Limits::MIN_WINDOW) * opened <= pair.ends[0].budget.used());
}

#[test]
fn what_the_application_says_at_once_is_not_held_against_the_peer() {
    let mut config = Config::default();
    (config.max_channels, config.channel_backlog, config.window) = (40_000, 40_000, 1024);
    let mut pair = Pair::new(&config);
    let near: Vec<_> = (0..40_000)
        .map(|_| {
            if !pair.ends[0].conn.can_open() {
                pair.run();
            }
            pair.ends[0].open(b"").expect("opens")
        })
        .collect();
    pair.run();
    while let Some(far) = pair.ends[1].conn.accept().expect("lives") {
        pair.ends[1].drop_channel(far);
    }
    // More than a megabyte of resets waits to be sent when the peer's next message comes.
    pair.ends[0].write(near[0], b"x").expect("writes");
    pair.send(0);
    pair.deliver(0);
    assert!(pair.ends[1].conn.cause().is_none(), "{:?}", pair.ends[1].conn.cause());
    for key in near {
        pair.ends[0].drop_channel(key);
    }
    pair.assert_clean();
}

#[test]
fn a_little_unread_data_does_not_keep_a_large_buffer_and_much_is_not_copied() {
    for (small, large, let_go) in [(5_000, 200_000, true), (100_000, 100_000, false)] {
        let mut pair = Pair::new(&Config::default());
        let [unread, far_unread] = pair.channel();
        let [read, far_read] = pair.channel();
        pair.ends[0].write(unread, &vec![1; small]).expect("writes");
        pair.ends[0].write(read, &vec![2; large]).expect("writes");
        let buffer = bytes::Bytes::from(pair.ends[0].output());
        let far = &mut pair.ends[1];
        far.conn.handle_new_buffer(buffer.len());
        far.receive(buffer.clone());
        assert_eq!(far.read(far_read).0.len(), large);
        for _ in 0..3 {
            far.conn.handle_new_buffer(buffer.len());
        }
        assert_eq!(buffer.is_unique(), let_go, "{small} of {} bytes are unread", buffer.len());
        assert_eq!(far.read(far_unread).0, vec![1; small]);
        assert!(buffer.is_unique());
    }
}

#[test]
fn what_buffers_keep_beyond_what_waits_in_them_is_bounded() {
    const UNREAD: usize = 90_000;
    let mut pair = Pair::new(&small_window(4 << 20));
    let [unread, far_unread] = pair.channel();
    let [read, far_read] = pair.channel();
    let mut buffers = Vec::new();
    for _ in 0..20 {
        pair.ends[0].write(unread, &[1; UNREAD]).expect("writes");
        pair.ends[0].write(read, &[2; 150_000]).expect("writes");
        let buffer = bytes::Bytes::from(pair.ends[0].output());
        let far = &mut pair.ends[1];
        far.conn.handle_new_buffer(buffer.len());
        far.receive(buffer.clone());
        assert_eq!(far.read(far_read).0.len(), 150_000);
        buffers.push(buffer);
        let credit = far.output();
        pair.ends[0].receive(bytes::Bytes::from(credit));
    }
    let kept = buffers.iter().filter(|buffer| !buffer.is_unique());
    let idle: usize = kept.map(|buffer| buffer.len() - UNREAD).sum();
    // The last two are not judged yet.
    assert!(idle <= (1 << 20) + 2 * 150_100, "{idle} bytes are kept for nothing");
    // A reader that leaves a part of a slice keeps that part, not the buffer, once it was looked at.
    while pair.ends[1].conn.recv_buffered(far_unread) > 3000 {
        let most = pair.ends[1].conn.recv_buffered(far_unread) - 3000;
        let taken = pair.ends[1].conn.take(far_unread, most).expect("lives");
        assert!(matches!(taken, mux_proto::Chunk::Data(_)));
    }
    pair.advance(mux_api::Config::default().keepalive);
    for _ in 0..2 {
        pair.ends[1].conn.handle_new_buffer(1024);
    }
    assert!(buffers.iter().all(bytes::Bytes::is_unique));
}
