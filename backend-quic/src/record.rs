//! The records of the control stream (docs/quic.md, section 4): `flags u8 | length u32 | payload`, as on HTTP/2.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use mux_api::Config;

use crate::early::EarlyReset;

/// A record that this version knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// To be answered by a pong with the same bytes.
    Ping([u8; 8]),
    /// The answer to a ping.
    Pong([u8; 8]),
    /// The sender takes no new channels.
    GoAway { code: u64, reason: String },
    /// The sender has said everything; the session ends.
    Close { code: u64, reason: String },
    /// The answer to a close.
    CloseAck,
    /// The sender has opened a stream and reset it, maybe before its preface was read.
    ResetEarly(EarlyReset),
}

/// A record that ends the session, in words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadRecord(pub(crate) String);

const FLAGS: u8 = 0x80;
const PING: u8 = 0x11;
const PONG: u8 = 0x12;
const GOAWAY: u8 = 0x13;
const CLOSE: u8 = 0x15;
const CLOSE_ACK: u8 = 0x16;
const RESET_EARLY: u8 = 0x17;

const HEADER: usize = 5;

/// Kind, code and the longest reason.
const MAX_PAYLOAD: usize = 1 + 8 + Config::MAX_REASON;

/// Kind, stream and code stand before the preface, which is as long as its sender's labels are.
const BEFORE_PREFACE: usize = 1 + 8 + 8;

/// The longest record of a reset.
const MAX_RESET: usize = 64 * 1024;

impl Record {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        let (kind, code, rest): (u8, u64, &[u8]) = match self {
            Self::Ping(token) => (PING, u64::from_be_bytes(*token), b""),
            Self::Pong(token) => (PONG, u64::from_be_bytes(*token), b""),
            Self::GoAway { code, reason } => (GOAWAY, *code, reason.as_bytes()),
            Self::Close { code, reason } => (CLOSE, *code, reason.as_bytes()),
            Self::CloseAck => (CLOSE_ACK, 0, b""),
            Self::ResetEarly(EarlyReset { stream, code, preface }) => {
                let preface = &preface[..preface.len().min(MAX_RESET - BEFORE_PREFACE)];
                let len = BEFORE_PREFACE + preface.len();
                out.reserve(HEADER + len);
                put_header(out, len, RESET_EARLY, *stream);
                out.put_u64(*code);
                return out.put_slice(preface);
            }
        };
        out.reserve(HEADER + 9 + rest.len());
        put_header(out, 9 + rest.len(), kind, code);
        out.put_slice(rest);
    }

    /// Takes the next known record off the front of `input`; `None` while there is none. Unknown kinds are skipped.
    pub(crate) fn decode(input: &mut BytesMut) -> Result<Option<Self>, BadRecord> {
        loop {
            let Some(header) = input.get(..HEADER) else { return Ok(None) };
            let len = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
            let flags = header[0];
            if flags != FLAGS {
                return Err(BadRecord(format!("a control record with flags {flags:#04x}; 0x80 is allowed")));
            }
            if len == 0 {
                return Err(BadRecord("an empty control record".into()));
            }
            let max = if input.get(HEADER).is_none_or(|kind| *kind == RESET_EARLY) { MAX_RESET } else { MAX_PAYLOAD };
            if len > max {
                return Err(BadRecord(format!("a control record of {len} bytes; {max} are allowed")));
            }
            if input.len() < HEADER + len {
                return Ok(None);
            }
            input.advance(HEADER);
            let payload = input.split_to(len).freeze();
            if let Some(record) = parse(payload)? {
                return Ok(Some(record));
            }
        }
    }
}

fn put_header(out: &mut BytesMut, len: usize, kind: u8, number: u64) {
    out.put_u8(FLAGS);
    out.put_u32(len as u32);
    out.put_u8(kind);
    out.put_u64(number);
}

fn parse(mut payload: Bytes) -> Result<Option<Record>, BadRecord> {
    let kind = payload.get_u8();
    if !matches!(kind, PING | PONG | GOAWAY | CLOSE | CLOSE_ACK | RESET_EARLY) {
        return Ok(None);
    }
    let fields = if kind == RESET_EARLY { 16 } else { 8 };
    if payload.remaining() < fields {
        return Err(BadRecord(format!("a control record of kind {kind:#04x} is cut short")));
    }
    let code = payload.get_u64();
    let token = code.to_be_bytes();
    let reason = || String::from_utf8_lossy(&payload).into_owned();
    Ok(Some(match kind {
        PING => Record::Ping(token),
        PONG => Record::Pong(token),
        GOAWAY => Record::GoAway { code, reason: reason() },
        CLOSE => Record::Close { code, reason: reason() },
        RESET_EARLY => {
            let (stream, code) = (code, payload.get_u64());
            // Copied: a slice would keep the whole receive buffer for as long as the record waits.
            Record::ResetEarly(EarlyReset { stream, code, preface: Bytes::copy_from_slice(&payload) })
        }
        _ => Record::CloseAck,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reset(preface: &'static [u8]) -> Record {
        Record::ResetEarly(EarlyReset { stream: 8, code: 77, preface: Bytes::from_static(preface) })
    }

    #[test]
    fn records_survive_any_split_and_unknown_kinds_are_skipped() {
        let records = [
            Record::Ping(*b"12345678"),
            Record::Pong(*b"abcdefgh"),
            Record::GoAway { code: 7, reason: "moving".into() },
            reset(b"\x22\x03\x05label"),
            Record::Close { code: u64::MAX >> 2, reason: "done".into() },
            Record::CloseAck,
        ];
        let mut wire = BytesMut::new();
        for record in &records {
            record.encode(&mut wire);
            wire.put_slice(&[0x80, 0, 0, 0, 2, 0x7f, 9]);
        }
        let (mut input, mut seen) = (BytesMut::new(), Vec::new());
        for byte in wire {
            input.put_u8(byte);
            while let Some(record) = Record::decode(&mut input).expect("well-formed") {
                seen.push(record);
            }
        }
        assert_eq!(seen, records);
    }

    #[test]
    fn a_preface_is_cut_to_the_longest_record() {
        static LONG: [u8; 70_000] = [9; 70_000];
        let mut wire = BytesMut::new();
        reset(&LONG).encode(&mut wire);
        assert_eq!(wire.len(), HEADER + MAX_RESET);
        assert_eq!(Record::decode(&mut wire), Ok(Some(reset(&LONG[..MAX_RESET - BEFORE_PREFACE]))));
    }

    #[test]
    fn what_breaks_the_rules_is_said() {
        for (bytes, said) in [
            (&[0x80, 0xff, 0xff, 0xff, 0xff][..], "65536 are allowed"),
            (&[0x80, 0, 0, 0x10, 0, PING], "1033 are allowed"),
            (&[0x00, 0, 0, 0, 1], "flags"),
            (&[0x80, 0, 0, 0, 0], "empty"),
            (&[0x80, 0, 0, 0, 2, PING, 1], "cut short"),
            (&[0x80, 0, 0, 0, 9, RESET_EARLY, 1, 2, 3, 4, 5, 6, 7, 8], "cut short"),
        ] {
            let error = Record::decode(&mut BytesMut::from(bytes)).expect_err(said);
            assert!(error.0.contains(said), "{error:?}");
        }
    }
}
