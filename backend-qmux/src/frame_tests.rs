//! Golden bytes of every message, cuts at every byte, and lengths that must not be believed.

use super::*;

/// The same frame as its receiver reads it: numbers change sides.
fn mirrored<'a>(frame: &Outgoing<'a>) -> Incoming<'a> {
    let to = |id: &RemoteId| LocalId(id.0);
    let from = |id: &LocalId| RemoteId(id.0);
    match frame {
        Frame::Hello => Frame::Hello,
        Frame::HelloRefused => Frame::HelloRefused,
        Frame::Probe { from: id } => Frame::Probe { from: from(id) },
        Frame::Open { from: id, window, max_frame, label, priority } => {
            Frame::Open { from: from(id), window: *window, max_frame: *max_frame, label, priority: *priority }
        }
        Frame::Confirm { to: a, from: b, window, max_frame } => {
            Frame::Confirm { to: to(a), from: from(b), window: *window, max_frame: *max_frame }
        }
        Frame::Refuse { to: id, code, reason } => Frame::Refuse { to: to(id), code: *code, reason },
        Frame::Credit { to: id, add } => Frame::Credit { to: to(id), add: *add },
        Frame::Data { to: id, len } => Frame::Data { to: to(id), len: *len },
        Frame::Fin { to: id } => Frame::Fin { to: to(id) },
        Frame::Reset { to: id, code } => Frame::Reset { to: to(id), code: *code },
        Frame::Stop { to: id, code } => Frame::Stop { to: to(id), code: *code },
        Frame::Close { to: id } => Frame::Close { to: to(id) },
        Frame::SessionEnd { code, reason } => Frame::SessionEnd { code: *code, reason },
        Frame::SessionLimits { channels, early } => Frame::SessionLimits { channels: *channels, early: *early },
        Frame::OpenCredit { add } => Frame::OpenCredit { add: *add },
        Frame::EarlyData { from: id, len } => Frame::EarlyData { from: from(id), len: *len },
        Frame::EarlyFin { from: id } => Frame::EarlyFin { from: from(id) },
        Frame::Ping { payload } => Frame::Ping { payload: *payload },
        Frame::Pong { payload } => Frame::Pong { payload: *payload },
        Frame::GoAway { code, taken, reason } => Frame::GoAway { code: *code, taken: *taken, reason },
        Frame::Skip { len } => Frame::Skip { len: *len },
    }
}

fn every_message() -> Vec<(Outgoing<'static>, &'static [u8])> {
    let (to, from, priority) = (RemoteId(7), LocalId(258), Priority::default());
    let urgent = Priority::new(1, true).expect("in range");
    vec![
        (Frame::Hello, &[100, 255, 255, 255, 255, b'l', b'm', b'u', b'1', 0, 0, 0, 0]),
        (Frame::HelloRefused, &[102, 255, 255, 255, 255]),
        (Frame::Probe { from }, &[100, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0]),
        (
            Frame::Open { from, window: 65536, max_frame: 32768, label: b"", priority },
            &[100, 0, 0, 1, 2, 0, 1, 0, 0, 0, 0, 128, 0],
        ),
        (
            Frame::Open { from, window: 1, max_frame: 9, label: b"rpc", priority: urgent },
            &[110, 0, 0, 0, 16, 0, 0, 1, 2, 0, 0, 0, 1, 0, 0, 0, 9, 9, b'r', b'p', b'c'],
        ),
        (Frame::Confirm { to, from, window: 5, max_frame: 6 }, &[101, 0, 0, 0, 7, 0, 0, 1, 2, 0, 0, 0, 5, 0, 0, 0, 6]),
        (Frame::Refuse { to, code: None, reason: "" }, &[102, 0, 0, 0, 7]),
        (
            Frame::Refuse { to, code: Some(258), reason: "no" },
            &[111, 0, 0, 0, 14, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 1, 2, b'n', b'o'],
        ),
        (Frame::Credit { to, add: 4096 }, &[103, 0, 0, 0, 7, 0, 0, 16, 0]),
        (Frame::Data { to, len: 3 }, &[104, 0, 0, 0, 7, 0, 0, 0, 3]),
        (Frame::Fin { to }, &[105, 0, 0, 0, 7]),
        (Frame::Reset { to, code: codes::MAX }, &[112, 0, 0, 0, 12, 0, 0, 0, 7, 63, 255, 255, 255, 255, 255, 255, 255]),
        (Frame::Stop { to, code: 1 }, &[113, 0, 0, 0, 12, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1]),
        (Frame::Close { to }, &[106, 0, 0, 0, 7]),
        (Frame::SessionEnd { code: 2, reason: "bye" }, &[114, 0, 0, 0, 11, 0, 0, 0, 0, 0, 0, 0, 2, b'b', b'y', b'e']),
        (Frame::Ping { payload: 258 }, &[115, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 1, 2]),
        (Frame::Pong { payload: u64::MAX }, &[116, 0, 0, 0, 8, 255, 255, 255, 255, 255, 255, 255, 255]),
        (
            Frame::GoAway { code: 3, taken: 258, reason: "old" },
            &[117, 0, 0, 0, 15, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 1, 2, b'o', b'l', b'd'],
        ),
        (Frame::SessionLimits { channels: 1024, early: 16384 }, &[118, 0, 0, 0, 8, 0, 0, 4, 0, 0, 0, 64, 0]),
        (Frame::OpenCredit { add: 258 }, &[119, 0, 0, 0, 4, 0, 0, 1, 2]),
        (Frame::EarlyData { from, len: 3 }, &[120, 0, 0, 0, 7, 0, 0, 1, 2]),
        (Frame::EarlyFin { from }, &[121, 0, 0, 0, 4, 0, 0, 1, 2]),
        (Frame::Skip { len: 2 }, &[128, 0, 0, 0, 2]),
    ]
}

#[test]
fn every_message_has_its_golden_bytes() {
    for (frame, golden) in every_message() {
        let mut out = BytesMut::new();
        Qmux.encode(&frame, &mut out);
        assert_eq!(&out[..], golden, "{frame:?}");
        match Qmux.decode(golden) {
            Ok(Decoded::Frame(seen, len)) => {
                assert_eq!((seen, len), (mirrored(&frame), golden.len()), "{frame:?}");
            }
            other => panic!("{frame:?}: {other:?}"),
        }
    }
}

#[test]
fn a_message_cut_at_any_byte_is_incomplete() {
    for (frame, golden) in every_message() {
        for cut in 0..golden.len() {
            let decoded = Qmux.decode(&golden[..cut]);
            assert!(matches!(decoded, Ok(Decoded::Incomplete)), "{frame:?} cut at {cut}: {decoded:?}");
        }
    }
}

#[test]
fn a_length_out_of_bounds_is_refused_before_its_body_is_awaited() {
    for kind in (OPEN_LABELED..=OPEN_CREDIT).chain([EARLY_EOF, *SKIPPABLE.start()]) {
        let header = [kind, 255, 255, 255, 255];
        assert!(Qmux.decode(&header).is_err(), "type {kind}");
    }
    assert!(Qmux.decode(&[RESET, 0, 0, 0, 11]).is_err(), "too short for its fields");
    assert!(Qmux.decode(&[EARLY_DATA, 0, 0, 0, 3]).is_err(), "too short for its number");
    assert!(Qmux.decode(&[PING, 0, 0, 0, 9]).is_err(), "too long");
}

#[test]
fn later_versions_may_say_more_of_their_limits() {
    let limits = [SESSION_LIMITS, 0, 0, 0, 9, 0, 0, 0, 5, 0, 0, 0, 6, 77];
    match Qmux.decode(&limits) {
        Ok(Decoded::Frame(frame, 14)) => assert_eq!(frame, Frame::SessionLimits { channels: 5, early: 6 }),
        other => panic!("{other:?}"),
    }
}

#[test]
fn unknown_types_are_fatal_outside_the_skippable_range() {
    for kind in (0..100).chain(107..110).chain(122..128).chain(160..=255) {
        assert!(Qmux.decode(&[kind]).is_err(), "type {kind}");
    }
}

#[test]
fn codes_above_62_bits_and_reasons_that_are_no_text_are_refused() {
    let mut reset = vec![RESET, 0, 0, 0, 12, 0, 0, 0, 7];
    reset.extend_from_slice(&u64::MAX.to_be_bytes());
    assert!(Qmux.decode(&reset).is_err());
    let mut end = vec![SESSION_END, 0, 0, 0, 9];
    end.extend_from_slice(&0u64.to_be_bytes());
    end.push(0xFF);
    assert!(Qmux.decode(&end).is_err());
}
