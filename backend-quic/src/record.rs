//! The records of the control stream (docs/quic.md, section 4): `flags u8 | length u32 | payload`, as on HTTP/2.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use mux_api::Config;

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

const HEADER: usize = 5;

/// Kind, code and the longest reason; nothing longer is needed by what may be added.
const MAX_PAYLOAD: usize = 1 + 8 + Config::MAX_REASON;

impl Record {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        let (kind, code, text): (u8, u64, &str) = match self {
            Self::Ping(token) => (PING, u64::from_be_bytes(*token), ""),
            Self::Pong(token) => (PONG, u64::from_be_bytes(*token), ""),
            Self::GoAway { code, reason } => (GOAWAY, *code, reason),
            Self::Close { code, reason } => (CLOSE, *code, reason),
            Self::CloseAck => (CLOSE_ACK, 0, ""),
        };
        out.reserve(HEADER + 9 + text.len());
        out.put_u8(FLAGS);
        out.put_u32((9 + text.len()) as u32);
        out.put_u8(kind);
        out.put_u64(code);
        out.put_slice(text.as_bytes());
    }

    /// Takes the next known record off the front of `input`; `None` while there is none. Unknown kinds are skipped.
    pub(crate) fn decode(input: &mut BytesMut) -> Result<Option<Self>, BadRecord> {
        loop {
            let Some(header) = input.get(..HEADER) else { return Ok(None) };
            let len = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
            if len > MAX_PAYLOAD {
                return Err(BadRecord(format!("a control record of {len} bytes; {MAX_PAYLOAD} are allowed")));
            }
            let flags = header[0];
            if input.len() < HEADER + len {
                return Ok(None);
            }
            input.advance(HEADER);
            let payload = input.split_to(len).freeze();
            if flags != FLAGS {
                return Err(BadRecord(format!("a control record with flags {flags:#04x}; 0x80 is allowed")));
            }
            if let Some(record) = parse(payload)? {
                return Ok(Some(record));
            }
        }
    }
}

fn parse(mut payload: Bytes) -> Result<Option<Record>, BadRecord> {
    if !payload.has_remaining() {
        return Err(BadRecord("an empty control record".into()));
    }
    let kind = payload.get_u8();
    if !matches!(kind, PING | PONG | GOAWAY | CLOSE | CLOSE_ACK) {
        return Ok(None);
    }
    if payload.remaining() < 8 {
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
        _ => Record::CloseAck,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_any_split_and_unknown_kinds_are_skipped() {
        let records = [
            Record::Ping(*b"12345678"),
            Record::Pong(*b"abcdefgh"),
            Record::GoAway { code: 7, reason: "moving".into() },
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
    fn what_breaks_the_rules_is_said() {
        for (bytes, said) in [
            (&[0x80, 0, 1, 0, 0][..], "65536 bytes"),
            (&[0x00, 0, 0, 0, 1, 1], "flags"),
            (&[0x80, 0, 0, 0, 0], "empty"),
            (&[0x80, 0, 0, 0, 2, PING, 1], "cut short"),
        ] {
            let error = Record::decode(&mut BytesMut::from(bytes)).expect_err(said);
            assert!(error.0.contains(said), "{error:?}");
        }
    }
}
