//! The frames of qmux, bytes to and from the core's vocabulary (docs/qmux.md, sections 2 and 4).

use bytes::{BufMut, BytesMut};
use mux_api::{Config, Priority, codes};
use mux_proto::{Decoded, Features, Frame, Incoming, LocalId, Outgoing, RemoteId, Wire, WireError};

/// Base protocol (spec 2): one type byte, then fixed fields.
const OPEN: u8 = 100;
const CONFIRM: u8 = 101;
const OPEN_FAILURE: u8 = 102;
const WINDOW_ADJUST: u8 = 103;
const DATA: u8 = 104;
const EOF: u8 = 105;
const CLOSE: u8 = 106;

/// Extension (spec 4): one type byte, a length, then so many bytes.
const OPEN_LABELED: u8 = 110;
const REFUSE: u8 = 111;
const RESET: u8 = 112;
const STOP: u8 = 113;
const SESSION_END: u8 = 114;
const PING: u8 = 115;
const PONG: u8 = 116;
const GOAWAY: u8 = 117;
const SESSION_LIMITS: u8 = 118;
const OPEN_CREDIT: u8 = 119;
const EARLY_DATA: u8 = 120;
const EARLY_EOF: u8 = 121;

/// Types that are skipped when unknown, so that later versions can add to them (spec 4.1).
const SKIPPABLE: std::ops::RangeInclusive<u8> = 128..=159;

/// The channel number of the announcement; no channel ever has it (spec 3.1).
const RESERVED: u32 = 0xFFFF_FFFF;

/// The announcement's window: "lmu1", the extension's version 1 (spec 3.1).
const MAGIC: u32 = 0x6C6D_7531;

/// An OPEN whose largest packet is below this is a probe: it must be refused (spec 2.2).
const MIN_PACKET: u32 = 9;

/// The longest skippable message: nothing of it is kept, the bound only catches a stream out of step.
const MAX_SKIP: u32 = 1 << 20;

/// The longest SESSION_LIMITS: later versions may append to it what this one ignores (spec 4.8).
const MOST_LIMITS: u32 = 64;

/// The qmux codec.
#[derive(Clone, Copy, Debug, Default)]
pub struct Qmux;

impl Wire for Qmux {
    fn features(&self, extended: bool) -> Features {
        Features { codes: extended, labels: extended, session: extended }
    }

    fn decode<'a>(&self, input: &'a [u8]) -> Result<Decoded<'a>, WireError> {
        let Some(&kind) = input.first() else { return Ok(Decoded::Incomplete) };
        let fields = match kind {
            OPEN => 3,
            CONFIRM => 4,
            OPEN_FAILURE | EOF | CLOSE => 1,
            WINDOW_ADJUST | DATA => 2,
            OPEN_LABELED..=EARLY_EOF => return decode_extension(kind, input),
            _ if SKIPPABLE.contains(&kind) => return decode_extension(kind, input),
            _ => return Err(WireError(format!("message type {kind} is unknown"))),
        };
        let len = 1 + 4 * fields;
        if input.len() < len {
            return Ok(Decoded::Incomplete);
        }
        let field = |at: usize| u32_at(input, 1 + 4 * at);
        let to = LocalId(field(0));
        let frame = match kind {
            OPEN if (field(0), field(1), field(2)) == (RESERVED, MAGIC, 0) => Frame::Hello,
            OPEN if field(2) < MIN_PACKET => Frame::Probe { from: RemoteId(field(0)) },
            OPEN if field(0) == RESERVED => return Err(reserved()),
            OPEN => Frame::Open {
                from: RemoteId(field(0)),
                window: field(1),
                max_frame: field(2),
                label: &[],
                priority: Priority::default(),
            },
            CONFIRM => Frame::Confirm { to, from: RemoteId(field(1)), window: field(2), max_frame: field(3) },
            OPEN_FAILURE if field(0) == RESERVED => Frame::HelloRefused,
            OPEN_FAILURE => Frame::Refuse { to, code: None, reason: "" },
            WINDOW_ADJUST => Frame::Credit { to, add: field(1) },
            DATA => Frame::Data { to, len: field(1) },
            EOF => Frame::Fin { to },
            _ => Frame::Close { to },
        };
        Ok(Decoded::Frame(frame, len))
    }

    fn encode(&self, frame: &Outgoing<'_>, out: &mut BytesMut) {
        match *frame {
            Frame::Hello => base(out, OPEN, &[RESERVED, MAGIC, 0]),
            Frame::HelloRefused => base(out, OPEN_FAILURE, &[RESERVED]),
            Frame::Probe { from } => base(out, OPEN, &[from.0, 0, 0]),
            Frame::Open { from, window, max_frame, label, priority } => {
                if label.is_empty() && priority == Priority::default() {
                    return base(out, OPEN, &[from.0, window, max_frame]);
                }
                extension(out, OPEN_LABELED, 13 + label.len());
                out.put_u32(from.0);
                out.put_u32(window);
                out.put_u32(max_frame);
                out.put_u8(priority.urgency() | u8::from(priority.incremental) << 3);
                out.put_slice(label);
            }
            Frame::Confirm { to, from, window, max_frame } => base(out, CONFIRM, &[to.0, from.0, window, max_frame]),
            Frame::Refuse { to, code: None, .. } => base(out, OPEN_FAILURE, &[to.0]),
            Frame::Refuse { to, code: Some(code), reason } => {
                extension(out, REFUSE, 12 + reason.len());
                out.put_u32(to.0);
                out.put_u64(code);
                out.put_slice(reason.as_bytes());
            }
            Frame::Credit { to, add } => base(out, WINDOW_ADJUST, &[to.0, add]),
            Frame::Data { to, len } => base(out, DATA, &[to.0, len]),
            Frame::Fin { to } => base(out, EOF, &[to.0]),
            Frame::Reset { to, code } => coded(out, RESET, to, code),
            Frame::Stop { to, code } => coded(out, STOP, to, code),
            Frame::Close { to } => base(out, CLOSE, &[to.0]),
            Frame::SessionEnd { code, reason } => {
                extension(out, SESSION_END, 8 + reason.len());
                out.put_u64(code);
                out.put_slice(reason.as_bytes());
            }
            Frame::Ping { payload } => {
                extension(out, PING, 8);
                out.put_u64(payload);
            }
            Frame::Pong { payload } => {
                extension(out, PONG, 8);
                out.put_u64(payload);
            }
            Frame::GoAway { code, taken, reason } => {
                extension(out, GOAWAY, 12 + reason.len());
                out.put_u64(code);
                out.put_u32(taken);
                out.put_slice(reason.as_bytes());
            }
            Frame::SessionLimits { channels, early } => {
                extension(out, SESSION_LIMITS, 8);
                out.put_u32(channels);
                out.put_u32(early);
            }
            Frame::OpenCredit { add } => {
                extension(out, OPEN_CREDIT, 4);
                out.put_u32(add);
            }
            Frame::EarlyData { from, len } => {
                extension(out, EARLY_DATA, 4 + len as usize);
                out.put_u32(from.0);
            }
            Frame::EarlyFin { from } => {
                extension(out, EARLY_EOF, 4);
                out.put_u32(from.0);
            }
            Frame::Skip { len } => extension(out, *SKIPPABLE.start(), len as usize),
        }
    }
}

/// A message of the extension: its length is checked before its body is waited for (spec 4.1).
fn decode_extension(kind: u8, input: &[u8]) -> Result<Decoded<'_>, WireError> {
    if input.len() < 5 {
        return Ok(Decoded::Incomplete);
    }
    let len = u32_at(input, 1);
    if SKIPPABLE.contains(&kind) {
        if len > MAX_SKIP {
            return Err(WireError(format!("message type {kind} has {len} bytes; {MAX_SKIP} are allowed")));
        }
        return Ok(Decoded::Frame(Frame::Skip { len }, 5));
    }
    let (fixed, most) = match kind {
        OPEN_LABELED => (13, 13 + u32::from(u16::MAX)),
        REFUSE => (12, 12 + Config::MAX_REASON as u32),
        RESET | STOP => (12, 12),
        SESSION_END => (8, 8 + Config::MAX_REASON as u32),
        PING | PONG => (8, 8),
        GOAWAY => (12, 12 + Config::MAX_REASON as u32),
        SESSION_LIMITS => (8, MOST_LIMITS),
        // Whether the body fits a channel, the core knows.
        EARLY_DATA => (4, u32::MAX),
        _ => (4, 4),
    };
    if len < fixed || len > most {
        return Err(WireError(format!("message type {kind} has {len} bytes; {fixed} to {most} are allowed")));
    }
    // The body of early data is delivered as it arrives.
    let whole = 5 + if kind == EARLY_DATA { 4 } else { len as usize };
    if input.len() < whole {
        return Ok(Decoded::Incomplete);
    }
    let (head, rest) = input[5..whole].split_at(fixed as usize);
    let frame = match kind {
        OPEN_LABELED => open_labeled(head, rest)?,
        REFUSE => {
            Frame::Refuse { to: LocalId(u32_at(head, 0)), code: Some(code_at(head, 4)?), reason: text(kind, rest)? }
        }
        RESET => Frame::Reset { to: LocalId(u32_at(head, 0)), code: code_at(head, 4)? },
        STOP => Frame::Stop { to: LocalId(u32_at(head, 0)), code: code_at(head, 4)? },
        SESSION_END => Frame::SessionEnd { code: code_at(head, 0)?, reason: text(kind, rest)? },
        PING => Frame::Ping { payload: u64_at(head, 0) },
        PONG => Frame::Pong { payload: u64_at(head, 0) },
        GOAWAY => Frame::GoAway { code: code_at(head, 0)?, taken: u32_at(head, 8), reason: text(kind, rest)? },
        SESSION_LIMITS => Frame::SessionLimits { channels: u32_at(head, 0), early: u32_at(head, 4) },
        OPEN_CREDIT => Frame::OpenCredit { add: u32_at(head, 0) },
        EARLY_DATA => Frame::EarlyData { from: RemoteId(u32_at(head, 0)), len: len - 4 },
        _ => Frame::EarlyFin { from: RemoteId(u32_at(head, 0)) },
    };
    Ok(Decoded::Frame(frame, whole))
}

fn open_labeled<'a>(head: &[u8], label: &'a [u8]) -> Result<Incoming<'a>, WireError> {
    let flags = head[12];
    let priority = Priority::new(flags & 7, flags & 8 != 0).map_err(|error| WireError(error.to_string()))?;
    let (from, max_frame) = (RemoteId(u32_at(head, 0)), u32_at(head, 8));
    if max_frame < MIN_PACKET {
        return Ok(Frame::Probe { from });
    }
    if from.0 == RESERVED {
        return Err(reserved());
    }
    Ok(Frame::Open { from, window: u32_at(head, 4), max_frame, label, priority })
}

fn reserved() -> WireError {
    WireError(format!("channel number {RESERVED} is reserved"))
}

fn base(out: &mut BytesMut, kind: u8, fields: &[u32]) {
    out.reserve(1 + 4 * fields.len());
    out.put_u8(kind);
    fields.iter().for_each(|field| out.put_u32(*field));
}

fn extension(out: &mut BytesMut, kind: u8, len: usize) {
    out.reserve(5 + len);
    out.put_u8(kind);
    out.put_u32(len as u32);
}

fn coded(out: &mut BytesMut, kind: u8, to: RemoteId, code: u64) {
    extension(out, kind, 12);
    out.put_u32(to.0);
    out.put_u64(code);
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) << 32 | u64::from(u32_at(bytes, at + 4))
}

fn code_at(bytes: &[u8], at: usize) -> Result<u64, WireError> {
    let code = u64_at(bytes, at);
    if code > codes::MAX { Err(WireError(format!("code {code} is above 2^62-1"))) } else { Ok(code) }
}

fn text(kind: u8, bytes: &[u8]) -> Result<&str, WireError> {
    std::str::from_utf8(bytes).map_err(|_| WireError(format!("the reason of message type {kind} is not UTF-8")))
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
