//! Bytes that no honest peer sends: never a panic, never more memory than the budget, and always an end or a reason.

use bytes::{Bytes, BytesMut};
use mux_api::{Config, Priority};
use mux_proto::{Frame, LocalId, RemoteId, Wire};
use proptest::prelude::*;

use crate::pair::End;

fn victim(extension: Option<bool>) -> End {
    let mut config = Config::default();
    config.window = 4096;
    let mut end = End::new(&config, extension, std::time::Instant::now());
    if extension.is_some() {
        end.receive(Bytes::from_static(&[100, 255, 255, 255, 255, b'l', b'm', b'u', b'1', 0, 0, 0, 0]));
    }
    for _ in 0..3 {
        end.open(b"").expect("opens");
    }
    end.output();
    end
}

/// Feeds `bytes` in pieces of `chunk`, as an application that accepts, reads, echoes and drops at random would see it.
fn feed(end: &mut End, bytes: &[u8], chunk: usize) {
    let mut held = Vec::new();
    for (at, piece) in bytes.chunks(chunk.max(1)).enumerate() {
        end.receive(Bytes::copy_from_slice(piece));
        end.collect();
        while let Ok(Some(key)) = end.conn.accept() {
            held.push(key);
        }
        for key in &held {
            let (data, _) = end.read(*key);
            let _ = end.write(*key, &data);
        }
        if at % 3 == 2
            && let Some(key) = held.pop()
        {
            end.drop_channel(key);
        }
        end.output();
        assert!(end.budget.used() <= end.budget.limit());
    }
    for key in held {
        end.drop_channel(key);
    }
    end.conn.handle_eof();
    end.output();
}

/// A stream an honest peer could send: opens, answers, data, ends.
fn valid_stream() -> Vec<u8> {
    let mut out = BytesMut::new();
    let mut say = |frame: &Frame<'_, RemoteId, LocalId>, body: &[u8]| {
        backend_qmux::Qmux.encode(frame, &mut out);
        out.extend_from_slice(body);
    };
    for at in 0..3 {
        say(&Frame::Confirm { to: RemoteId(at), from: LocalId(at), window: 5000, max_frame: 100 }, b"");
    }
    let priority = Priority::new(1, true).expect("in range");
    say(&Frame::Open { from: LocalId(7), window: 100, max_frame: 50, label: b"label", priority }, b"");
    say(&Frame::Data { to: RemoteId(0), len: 5 }, b"hello");
    say(&Frame::Credit { to: RemoteId(0), add: 77 }, b"");
    say(&Frame::Data { to: RemoteId(3), len: 3000 }, &[9; 3000]);
    say(&Frame::Skip { len: 4 }, b"skip");
    say(&Frame::Fin { to: RemoteId(0) }, b"");
    say(&Frame::Reset { to: RemoteId(1), code: 4 }, b"");
    say(&Frame::Stop { to: RemoteId(1), code: 4 }, b"");
    say(&Frame::Probe { from: LocalId(99) }, b"");
    say(&Frame::Close { to: RemoteId(1) }, b"");
    say(&Frame::SessionEnd { code: 1, reason: "bye" }, b"");
    out.to_vec()
}

#[test]
fn a_valid_stream_means_the_same_cut_at_each_byte() {
    let stream = valid_stream();
    let mut outcomes = Vec::new();
    for cut in 0..=stream.len() {
        let mut end = victim(Some(false));
        for piece in [&stream[..cut], &stream[cut..]] {
            end.receive(Bytes::copy_from_slice(piece));
        }
        let stats = end.conn.stats();
        let cause = end.conn.cause().expect("ended").to_string();
        outcomes.push((stats.recv_buffered, stats.channels_open, stats.resets_in, cause));
    }
    outcomes.dedup();
    assert_eq!(outcomes.len(), 1, "{outcomes:?}");
    assert_eq!(outcomes[0].3, "bye");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..4000), chunk in 1usize..200) {
        for extension in [None, Some(false), Some(true)] {
            feed(&mut victim(extension), &bytes, chunk);
        }
    }

    /// Plausible type bytes reach deeper than noise.
    #[test]
    fn arbitrary_messages_never_panic(
        messages in prop::collection::vec((98u8..118, prop::collection::vec(0u32..6, 4)), 0..60),
        chunk in 1usize..200,
    ) {
        let mut bytes = Vec::new();
        for (kind, fields) in messages {
            bytes.push(kind);
            fields.iter().for_each(|field| bytes.extend_from_slice(&field.to_be_bytes()));
        }
        for extension in [None, Some(false)] {
            feed(&mut victim(extension), &bytes, chunk);
        }
    }

    #[test]
    fn mutations_of_a_valid_stream_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        chunk in 1usize..500,
    ) {
        let mut bytes = valid_stream();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        feed(&mut victim(Some(false)), &bytes, chunk);
    }
}
