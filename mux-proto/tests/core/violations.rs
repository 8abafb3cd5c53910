//! Every row of the table in docs/qmux.md, section 6: what a peer may not do, and what it ends.

use bytes::{Bytes, BytesMut};
use mux_api::{Config, ErrorKind, Origin, Priority, codes};
use mux_proto::{Frame, Key, LocalId, Outgoing, RemoteId, Wire};

use crate::pair::End;

/// A victim whose peer is a script. Channel 0 is open (the peer opened it as its number 50), channel 1 was opened by
/// us and waits for an answer.
struct Scripted {
    end: End,
    open: Key,
    opening: Key,
}

const OPEN: RemoteId = RemoteId(0);
const OPENING: RemoteId = RemoteId(1);
const UNKNOWN: RemoteId = RemoteId(99);
const THEIRS: LocalId = LocalId(50);

impl Scripted {
    fn new(extended: bool) -> Self {
        let mut config = Config::default();
        config.window = 1024;
        let now = std::time::Instant::now();
        let mut end = End::new(&config, Some(false), now);
        let first = if extended { Frame::Hello } else { Frame::HelloRefused };
        say(&mut end, &[first, open(THEIRS)]);
        let accepted = end.conn.accept().expect("lives").expect("was opened");
        let opening = end.open(b"").expect("opens");
        end.output();
        Self { end, open: accepted, opening }
    }

    fn says(mut self, frames: &[Outgoing<'_>]) -> Self {
        say(&mut self.end, frames);
        self
    }

    #[track_caller]
    fn ends_the_session(mut self, with: &str) {
        let cause = self.end.conn.cause().expect("the session is over").clone();
        assert_eq!(
            (cause.kind(), cause.origin(), cause.code()),
            (ErrorKind::Protocol, Origin::Peer, Some(codes::PROTOCOL))
        );
        assert!(cause.message().contains(with), "{cause}");
        let _ = self.end.output();
        self.end.release(self.open);
        self.end.release(self.opening);
        assert_eq!(self.end.budget.used(), 0);
    }

    #[track_caller]
    fn goes_on(mut self) -> Self {
        assert!(self.end.conn.cause().is_none(), "{:?}", self.end.conn.cause());
        say(&mut self.end, &[open(LocalId(51))]);
        assert!(self.end.conn.accept().expect("lives").is_some(), "other channels are not affected");
        self
    }
}

fn say(end: &mut End, frames: &[Outgoing<'_>]) {
    let mut out = BytesMut::new();
    for frame in frames {
        backend_qmux::Qmux.encode(frame, &mut out);
        if let Frame::Data { len, .. } = frame {
            out.resize(out.len() + *len as usize, 0);
        }
    }
    end.receive(out.freeze());
    end.collect();
}

fn open(from: LocalId) -> Outgoing<'static> {
    Frame::Open { from, window: 1000, max_frame: 1000, label: b"", priority: Priority::default() }
}

fn confirm(to: RemoteId) -> Outgoing<'static> {
    Frame::Confirm { to, from: LocalId(60), window: 1000, max_frame: 1000 }
}

fn refuse(to: RemoteId) -> Outgoing<'static> {
    Frame::Refuse { to, code: None, reason: "" }
}

/// Everything that can be said about a channel.
fn addressed(to: RemoteId) -> Vec<Outgoing<'static>> {
    vec![
        confirm(to),
        refuse(to),
        Frame::Credit { to, add: 1 },
        Frame::Data { to, len: 1 },
        Frame::Fin { to },
        Frame::Reset { to, code: 1 },
        Frame::Stop { to, code: 1 },
        Frame::Close { to },
    ]
}

#[test]
fn a_message_for_an_unknown_channel_ends_the_session() {
    for frame in addressed(UNKNOWN) {
        for extended in [false, true] {
            Scripted::new(extended).says(std::slice::from_ref(&frame)).ends_the_session("does not exist");
        }
    }
}

#[test]
fn a_message_before_the_confirmation_ends_the_session() {
    for frame in addressed(OPENING).split_off(2) {
        Scripted::new(true).says(&[frame]).ends_the_session("is not open");
    }
}

#[test]
fn an_unsolicited_answer_to_an_open_ends_the_session_at_the_first() {
    for answer in [confirm, refuse] {
        Scripted::new(true).says(&vec![answer(OPEN); 1000]).ends_the_session("is open already");
        Scripted::new(true).says(&vec![answer(UNKNOWN); 1000]).ends_the_session("does not exist");
        Scripted::new(true)
            .says(&[confirm(OPENING)])
            .says(&vec![answer(OPENING); 1000])
            .ends_the_session("open already");
    }
}

#[test]
fn anything_after_the_peers_close_ends_the_session() {
    for frame in addressed(OPEN).split_off(2) {
        Scripted::new(true).says(&[Frame::Close { to: OPEN }, frame]).ends_the_session("is not open");
    }
}

#[test]
fn data_beyond_the_window_ends_the_session_before_it_is_stored() {
    let end = Scripted::new(true).says(&[Frame::Data { to: OPEN, len: 1024 }]).goes_on();
    end.says(&[Frame::Data { to: OPEN, len: 1 }]).ends_the_session("window");
    let mut huge = Scripted::new(true);
    huge.end.receive(Bytes::from_static(&[104, 0, 0, 0, 0, 255, 255, 255, 255]));
    assert_eq!(huge.end.conn.stats().recv_buffered, 0);
    huge.ends_the_session("packet");
}

#[test]
fn data_beyond_the_largest_packet_ends_the_session() {
    let mut config = Config::default();
    config.window = 1 << 20;
    let mut end = End::new(&config, None, std::time::Instant::now());
    say(&mut end, &[open(THEIRS), Frame::Data { to: OPEN, len: 256 * 1024 }]);
    assert!(end.conn.cause().is_none());
    say(&mut end, &[Frame::Data { to: OPEN, len: 256 * 1024 + 1 }]);
    assert!(end.conn.cause().expect("over").message().contains("packet"));
}

#[test]
fn credit_beyond_32_bits_ends_the_session() {
    let max = Frame::Credit { to: OPEN, add: u32::MAX - 1000 };
    let end = Scripted::new(true).says(&[max]).goes_on();
    end.says(&[Frame::Credit { to: OPEN, add: 1 }]).ends_the_session("2^32-1");
}

#[test]
fn data_or_an_end_after_the_end_ends_the_session() {
    for end in [Frame::Fin { to: OPEN }, Frame::Reset { to: OPEN, code: 1 }] {
        for frame in [Frame::Data { to: OPEN, len: 1 }, Frame::Fin { to: OPEN }] {
            Scripted::new(true).says(&[end.clone(), frame]).ends_the_session("ended by the peer before");
        }
    }
}

#[test]
fn a_reset_after_the_end_and_a_second_stop_are_harmless() {
    Scripted::new(true).says(&[Frame::Fin { to: OPEN }, Frame::Reset { to: OPEN, code: 1 }]).goes_on();
    Scripted::new(true).says(&vec![Frame::Stop { to: OPEN, code: 1 }; 1000]).goes_on();
}

#[test]
fn what_belongs_to_the_extension_is_understood_from_a_plain_peer_too() {
    let mut script = Scripted::new(false).says(&[Frame::Ping { payload: 7 }, Frame::Reset { to: OPEN, code: 5 }]);
    let answers = script.end.output();
    assert!(answers.windows(13).any(|part| part == [116, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 7]), "{answers:?}");
    assert_eq!(script.end.read(script.open).1.expect_err("was reset").code(), Some(5));
    script.goes_on();
}

#[test]
fn each_direction_keeps_the_code_that_it_failed_with() {
    let both = [Frame::Reset { to: OPEN, code: 5 }, Frame::Stop { to: OPEN, code: 6 }];
    let closed = [&both[1..], &both[..1], &[Frame::Close { to: OPEN }]].concat();
    for frames in [&both[..], &closed[..]] {
        let mut script = Scripted::new(true).says(frames);
        for _ in 0..2 {
            assert_eq!(script.end.write(script.open, b"x").expect_err("stopped").code(), Some(6));
            assert_eq!(script.end.read(script.open).1.expect_err("was reset").code(), Some(5));
        }
        script.goes_on();
    }
}

#[test]
fn close_without_an_end_is_clean_from_a_plain_peer_and_an_abort_from_an_extended_one() {
    for extended in [false, true] {
        let mut script = Scripted::new(extended).says(&[Frame::Data { to: OPEN, len: 10 }, Frame::Close { to: OPEN }]);
        let (data, end) = script.end.read(script.open);
        if extended {
            assert_eq!((data.len(), end.expect_err("aborted").kind()), (0, ErrorKind::Reset));
        } else {
            assert_eq!((data.len(), end.is_ok()), (10, true));
        }
        assert_eq!(script.end.write(script.open, b"x").expect_err("closed").kind(), ErrorKind::Stopped);
        script.goes_on();
    }
}

#[test]
fn the_reserved_number_is_no_channel() {
    Scripted::new(true).says(&[open(LocalId(u32::MAX))]).ends_the_session("reserved");
    Scripted::new(false).says(&[open(LocalId(u32::MAX))]).ends_the_session("reserved");
}

#[test]
fn a_second_announcement_is_refused_like_any_probe() {
    let mut script = Scripted::new(true).says(&[Frame::Hello]).goes_on();
    let out = script.end.output();
    assert_eq!(&out[..5], [102, 255, 255, 255, 255]);
}

#[test]
fn early_data_for_anything_but_a_recent_open_ends_the_session() {
    for frame in [Frame::EarlyData { from: LocalId(99), len: 1 }, Frame::EarlyFin { from: LocalId(99) }] {
        Scripted::new(true).says(&[frame]).ends_the_session("did not just open");
    }
    let beyond = Frame::EarlyData { from: THEIRS, len: 1025 };
    Scripted::new(true).says(&[beyond]).ends_the_session("window");
    let huge = Frame::EarlyData { from: THEIRS, len: 256 * 1024 + 1 };
    Scripted::new(true).says(&[huge]).ends_the_session("packet");
    let after = [Frame::EarlyFin { from: THEIRS }, Frame::EarlyData { from: THEIRS, len: 1 }];
    Scripted::new(true).says(&after).ends_the_session("ended by the peer before");
}

#[test]
fn a_window_below_what_was_promised_for_early_data_ends_the_session() {
    let mut script = Scripted::new(true).says(&[Frame::SessionLimits { channels: 10, early: 5000 }]);
    let key = script.end.open(b"").expect("opens");
    script.end.write(key, &[1; 5000]).expect("writes");
    script.end.output();
    say(&mut script.end, &[Frame::Confirm { to: RemoteId(2), from: LocalId(9), window: 4999, max_frame: 100 }]);
    let cause = script.end.conn.cause().expect("over");
    assert!(cause.message().contains("promised more window"), "{cause}");
}

#[test]
fn limits_said_twice_and_open_credit_beyond_32_bits_end_the_session() {
    let limits = Frame::SessionLimits { channels: 10, early: 0 };
    Scripted::new(true).says(&[limits.clone(), limits.clone()]).ends_the_session("twice");
    let credit = Frame::OpenCredit { add: u32::MAX };
    Scripted::new(true).says(&[limits, credit]).ends_the_session("2^32-1");
}

#[test]
fn going_away_after_more_opens_than_were_sent_ends_the_session() {
    let frame = |taken| Frame::GoAway { code: 1, taken, reason: "" };
    Scripted::new(true).says(&[frame(1)]).goes_on();
    Scripted::new(true).says(&[frame(2)]).ends_the_session("went away after 2 opens");
}

#[test]
fn a_probe_is_answered_and_makes_no_channel() {
    let mut script = Scripted::new(false).says(&[Frame::Probe { from: LocalId(7) }]);
    assert_eq!(script.end.output(), [102, 0, 0, 0, 7]);
    assert_eq!(script.end.conn.stats().channels_open, 2);
    let mut script = Scripted::new(true).says(&[Frame::Probe { from: LocalId(7) }]);
    assert_eq!(script.end.output()[0], 111);
}

#[test]
fn an_unknown_type_ends_the_session_and_a_skippable_one_does_not() {
    for kind in [0, 99, 107, 109, 122, 127, 160, 255] {
        let mut script = Scripted::new(true);
        script.end.receive(Bytes::copy_from_slice(&[kind, 0, 0, 0, 0]));
        script.ends_the_session("unknown");
    }
    let mut script = Scripted::new(true);
    for kind in 128..160 {
        script.end.receive(Bytes::copy_from_slice(&[kind, 0, 0, 0, 3, 1, 2, 3]));
    }
    script.goes_on();
}

#[test]
fn a_peer_that_provokes_answers_without_reading_them_is_cut_off() {
    let mut script = Scripted::new(true);
    let mut rounds = 0;
    while script.end.conn.cause().is_none() {
        say(&mut script.end, &vec![Frame::Probe { from: LocalId(7) }; 1000]);
        rounds += 1;
        assert!(rounds < 1000, "answers queue without bound");
    }
    let cause = script.end.conn.cause().expect("over").clone();
    assert_eq!((cause.kind(), cause.code()), (ErrorKind::LimitExceeded, Some(codes::LIMIT)));
    assert!(script.end.output().len() < 4 << 20);
}

#[test]
fn opens_that_are_given_up_at_once_leave_nothing_and_are_never_accepted() {
    let mut script = Scripted::new(true);
    for _ in 0..10_000 {
        // The peer reads our confirmation for the number: always the lowest free one.
        let to = RemoteId(2);
        say(&mut script.end, &[open(LocalId(51)), Frame::Reset { to, code: 1 }, Frame::Stop { to, code: 1 }]);
        script.end.output();
        say(&mut script.end, &[Frame::Close { to }]);
        script.end.output();
        script.end.events.clear();
    }
    assert!(script.end.conn.accept().expect("lives").is_none());
    assert_eq!(script.end.conn.stats().channels_open, 2);
    script.goes_on();
}

/// What a peer may say without moving anything forward.
fn idle_talk() -> Vec<Outgoing<'static>> {
    vec![
        Frame::Data { to: OPEN, len: 0 },
        Frame::Credit { to: OPEN, add: 1 },
        Frame::Credit { to: OPEN, add: 0 },
        Frame::Ping { payload: 7 },
        Frame::Pong { payload: 7 },
        Frame::Skip { len: 0 },
        Frame::GoAway { code: 1, taken: 0, reason: "" },
        Frame::OpenCredit { add: 1 },
        Frame::Refuse { to: RemoteId(0xFFFF_FFFE), code: None, reason: "" },
    ]
}

#[test]
fn floods_that_carry_nothing_take_no_memory_and_are_cut_off() {
    for frame in idle_talk() {
        let mut script = Scripted::new(true);
        let before = script.end.budget.used();
        for _ in 0..20 {
            say(&mut script.end, &vec![frame.clone(); 10_000]);
            script.end.events.clear();
            script.end.output();
            script.end.advance(std::time::Duration::from_secs(1));
        }
        assert_eq!((script.end.budget.used(), script.end.conn.stats().recv_buffered), (before, 0), "{frame:?}");
        let mut script = script.goes_on();
        say(&mut script.end, &vec![frame.clone(); 20_001]);
        let cause = script.end.conn.cause().unwrap_or_else(|| panic!("{frame:?} is not bounded"));
        assert_eq!((cause.kind(), cause.code()), (ErrorKind::LimitExceeded, Some(codes::LIMIT)), "{frame:?}");
    }
}

#[test]
fn opens_that_are_given_up_at_once_are_cut_off_above_a_rate() {
    let mut script = Scripted::new(true);
    let mut rounds = 0;
    while script.end.conn.cause().is_none() {
        let to = RemoteId(2);
        let gives_up = [open(LocalId(51)), Frame::Reset { to, code: 1 }, Frame::Stop { to, code: 1 }];
        say(&mut script.end, &gives_up);
        say(&mut script.end, &[Frame::Close { to }]);
        script.end.output();
        script.end.events.clear();
        rounds += 1;
        assert!(rounds < 30_000, "rapid reset is not bounded");
    }
    assert_eq!(script.end.conn.cause().expect("over").code(), Some(codes::LIMIT));
}

#[test]
fn credit_for_every_byte_that_was_sent_is_no_flood() {
    let mut script = Scripted::new(true);
    for _ in 0..50_000 {
        assert_eq!(script.end.write(script.open, b"x").expect("writes"), 1);
        script.end.output();
        say(&mut script.end, &[Frame::Credit { to: OPEN, add: 1 }]);
        script.end.events.clear();
    }
    script.goes_on();
}
