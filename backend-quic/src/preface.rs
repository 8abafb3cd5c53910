//! The first bytes of a stream: what it is (docs/quic.md, section 3).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use mux_api::{OpenOptions, Priority};

/// A channel without label at default urgency.
const PLAIN: u8 = 0x21;
/// A channel with urgency and label.
const LABELLED: u8 = 0x22;
/// The control stream.
pub(crate) const CONTROL: u8 = 0x23;

/// What a stream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Preface {
    /// A channel.
    Channel { label: Bytes, priority: Priority },
    /// The session's control stream.
    Control,
}

/// A stream that begins with what no version of the protocol knows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BadPreface {
    /// The first byte is none of the three.
    Unknown(u8),
    /// The urgency is above 7.
    Urgency(u8),
    /// The label is longer than allowed.
    TooLong(u64),
}

/// The preface of a channel without label at default urgency, which qtalk's channels begin with too.
pub(crate) fn plain() -> Bytes {
    Bytes::from_static(&[PLAIN])
}

/// Writes the preface of a channel.
pub(crate) fn encode(options: &OpenOptions) -> Bytes {
    if options.label.is_empty() && options.priority.urgency() == Priority::DEFAULT_URGENCY {
        return plain();
    }
    let mut out = BytesMut::with_capacity(options.label.len() + 10);
    out.put_u8(LABELLED);
    out.put_u8(options.priority.urgency());
    put_varint(&mut out, options.label.len() as u64);
    out.put_slice(&options.label);
    out.freeze()
}

/// A channel with nothing special.
pub(crate) fn channel() -> Preface {
    Preface::Channel { label: Bytes::new(), priority: Priority::default() }
}

/// Takes the only preface that qtalk knows off the front of `input`; `None` while it is not there.
pub(crate) fn decode_plain(input: &mut Bytes) -> Result<Option<Preface>, BadPreface> {
    match input.first() {
        None => Ok(None),
        Some(&PLAIN) => {
            input.advance(1);
            Ok(Some(channel()))
        }
        Some(&other) => Err(BadPreface::Unknown(other)),
    }
}

/// Takes a preface off the front of `input`; `None` while it is incomplete.
pub(crate) fn decode(input: &mut Bytes, max_label: usize) -> Result<Option<Preface>, BadPreface> {
    let Some(&first) = input.first() else { return Ok(None) };
    match first {
        PLAIN => {
            input.advance(1);
            Ok(Some(channel()))
        }
        CONTROL => {
            input.advance(1);
            Ok(Some(Preface::Control))
        }
        LABELLED => {
            let Some(&urgency) = input.get(1) else { return Ok(None) };
            let priority = Priority::new(urgency, true).map_err(|_| BadPreface::Urgency(urgency))?;
            let Some((len, size)) = varint(&input[2..]) else { return Ok(None) };
            if len > max_label as u64 {
                return Err(BadPreface::TooLong(len));
            }
            let end = 2 + size + len as usize;
            if input.len() < end {
                return Ok(None);
            }
            // Copied: a slice would keep the whole packet for as long as the channel lives.
            let label = Bytes::copy_from_slice(&input[2 + size..end]);
            input.advance(end);
            Ok(Some(Preface::Channel { label, priority }))
        }
        other => Err(BadPreface::Unknown(other)),
    }
}

/// The longest preface with such labels.
pub(crate) fn longest(max_label: usize) -> usize {
    max_label.saturating_add(10)
}

/// The variable-length integer of RFC 9000 section 16.
fn put_varint(out: &mut BytesMut, value: u64) {
    match value {
        0..=0x3f => out.put_u8(value as u8),
        0x40..=0x3fff => out.put_u16(0x4000 | value as u16),
        0x4000..=0x3fff_ffff => out.put_u32(0x8000_0000 | value as u32),
        _ => out.put_u64(0xc000_0000_0000_0000 | value),
    }
}

/// Value and size, `None` while it is incomplete.
fn varint(input: &[u8]) -> Option<(u64, usize)> {
    let first = *input.first()?;
    let size = 1 << (first >> 6);
    let rest = input.get(1..size)?;
    let value = rest.iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte));
    Some((value, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_channel_is_one_byte() {
        assert_eq!(&encode(&OpenOptions::new())[..], b"!");
    }

    #[test]
    fn a_preface_survives_any_split() {
        for (len, urgency) in [(0, 0), (5, 3), (63, 3), (64, 7), (1024, 1)] {
            let options =
                OpenOptions::new().label(vec![7; len]).priority(Priority::new(urgency, true).expect("in range"));
            let whole = encode(&options);
            for cut in 0..whole.len() {
                assert_eq!(decode(&mut whole.slice(..cut), 1024), Ok(None), "cut at {cut}");
            }
            let mut input = BytesMut::from(&whole[..]);
            input.put_slice(b"data");
            let mut input = input.freeze();
            let expected = Preface::Channel { label: options.label.clone(), priority: options.priority };
            assert_eq!(decode(&mut input, 1024), Ok(Some(expected)));
            assert_eq!(&input[..], b"data");
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        assert_eq!(decode(&mut Bytes::from_static(b"GET"), 10), Err(BadPreface::Unknown(b'G')));
        assert_eq!(decode(&mut Bytes::from_static(&[0x22, 8]), 10), Err(BadPreface::Urgency(8)));
        assert_eq!(decode(&mut Bytes::from_static(&[0x22, 3, 11]), 10), Err(BadPreface::TooLong(11)));
    }
}
