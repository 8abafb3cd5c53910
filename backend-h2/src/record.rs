//! Records: `flags u8 | len u32 | payload` inside DATA (docs/h2.md, section 4). Outgoing ones travel through h2 as one
//! frame without a copy of the payload; incoming ones are cut from whatever frames arrive.

use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use mux_api::Config;

use crate::pool::Pool;
use crate::ready::Permit;

pub(crate) const HEADER: usize = 5;

/// The largest payload of a data record that is accepted.
pub(crate) const MAX_DATA: u32 = 1 << 20;

const CONTROL: u8 = 0x80;

/// Kinds of control records; unknown ones are skipped.
pub(crate) mod kind {
    pub(crate) const FIN: u8 = 0x01;
    pub(crate) const RESET: u8 = 0x02;
    pub(crate) const STOP: u8 = 0x03;
    pub(crate) const CREDIT: u8 = 0x04;
    pub(crate) const OPEN_PLEASE: u8 = 0x10;
    pub(crate) const PING: u8 = 0x11;
    pub(crate) const PONG: u8 = 0x12;
    pub(crate) const GOAWAY: u8 = 0x13;
    pub(crate) const POOL: u8 = 0x14;
    pub(crate) const CLOSE: u8 = 0x15;
    pub(crate) const CLOSE_ACK: u8 = 0x16;
}

/// The largest payload of a control record: kind, code and reason.
const MAX_CONTROL: u32 = 1 + 8 + Config::MAX_REASON as u32;

/// Three control records with a number, and the header of a data record.
const PREFIX: usize = 3 * NUMBERED + HEADER;
const NUMBERED: usize = HEADER + 1 + 8;
pub(crate) const FIN: [u8; HEADER + 1] = [CONTROL, 0, 0, 0, 1, kind::FIN];

/// What one DATA frame carries: control records, then a data record without a copy of its body, then perhaps FIN.
#[derive(Debug)]
pub(crate) struct Outgoing {
    prefix: [u8; PREFIX],
    start: usize,
    end: usize,
    body: Bytes,
    /// What is left of [`FIN`], from the end.
    fin: usize,
    /// The body may be a block of the session's pool.
    pooled: bool,
    permit: Option<Permit>,
}

impl Outgoing {
    pub(crate) fn new() -> Self {
        Self { prefix: [0; PREFIX], start: 0, end: 0, body: Bytes::new(), fin: 0, pooled: false, permit: None }
    }

    /// Bytes as they are: a raw body, or records that are encoded already.
    pub(crate) fn raw(body: Bytes) -> Self {
        let mut frame = Self::new();
        frame.pooled = body.len() >= Pool::WORTH;
        frame.body = body;
        frame
    }

    fn put(&mut self, bytes: &[u8]) {
        self.prefix[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// Adds a control record with a number; at most three fit.
    pub(crate) fn control(&mut self, kind: u8, number: u64) {
        self.put(&[CONTROL, 0, 0, 0, 9, kind]);
        self.put(&number.to_be_bytes());
    }

    /// Adds the data record; once.
    pub(crate) fn data(&mut self, body: Bytes) {
        self.put(&[0]);
        self.put(&(body.len() as u32).to_be_bytes());
        self.pooled = body.len() >= Pool::WORTH;
        self.body = body;
    }

    pub(crate) fn fin(&mut self) {
        self.fin = FIN.len();
    }

    pub(crate) fn with_permit(mut self, permit: Permit) -> Self {
        self.permit = Some(permit);
        self
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.as_ref().filter(|_| self.pooled) {
            permit.pool().give_back(std::mem::take(&mut self.body));
        }
    }
}

impl Buf for Outgoing {
    fn remaining(&self) -> usize {
        self.end - self.start + self.body.len() + self.fin
    }

    fn chunk(&self) -> &[u8] {
        if self.start < self.end {
            &self.prefix[self.start..self.end]
        } else if !self.body.is_empty() {
            &self.body
        } else {
            &FIN[FIN.len() - self.fin..]
        }
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        let parts = [&self.prefix[self.start..self.end], &self.body[..], &FIN[FIN.len() - self.fin..]];
        let mut used = 0;
        for (slot, part) in dst.iter_mut().zip(parts.into_iter().filter(|part| !part.is_empty())) {
            *slot = IoSlice::new(part);
            used += 1;
        }
        used
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining(), "h2 advances what it wrote");
        let step = count.min(self.end - self.start);
        self.start += step;
        count -= step;
        let step = count.min(self.body.len());
        self.body.advance(step);
        self.fin -= count - step;
    }
}

/// Encodes a control record with any payload after its kind.
pub(crate) fn encode_control(out: &mut BytesMut, kind: u8, number: Option<u64>, text: &str) {
    let len = 1 + number.map_or(0, |_| 8) + text.len();
    out.put_u8(CONTROL);
    out.put_u32(len as u32);
    out.put_u8(kind);
    if let Some(number) = number {
        out.put_u64(number);
    }
    out.put_slice(text.as_bytes());
}

/// The record POOL, whose number has 32 bits.
pub(crate) fn encode_pool(out: &mut BytesMut, size: u32) {
    out.put_u8(CONTROL);
    out.put_u32(5);
    out.put_u8(kind::POOL);
    out.put_u32(size);
}

/// A piece of a record that arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// Payload of a data record, or a part of it; empty for an empty record.
    Data(Bytes),
    /// A whole control record.
    Control(Control),
}

impl Incoming {
    /// `payload` has its kind at least.
    fn control(mut payload: Bytes) -> Self {
        let kind = payload.get_u8();
        Self::Control(Control { kind, payload })
    }
}

/// A control record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Control {
    pub(crate) kind: u8,
    payload: Bytes,
}

impl Control {
    /// The number that leads the payload, 64 bits wide.
    pub(crate) fn number(&self) -> Result<u64, String> {
        let short = || format!("record 0x{:02x} has {} bytes of payload; 8 are needed", self.kind, self.payload.len());
        self.payload.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)).ok_or_else(short)
    }

    /// A number of 32 bits.
    pub(crate) fn number32(&self) -> Result<u32, String> {
        let short = || format!("record 0x{:02x} has {} bytes of payload; 4 are needed", self.kind, self.payload.len());
        self.payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)).ok_or_else(short)
    }

    /// The text after the number.
    pub(crate) fn reason(&self) -> String {
        String::from_utf8_lossy(self.payload.get(8..).unwrap_or_default()).into_owned()
    }
}

/// Cuts records out of DATA frames, which may be split anywhere.
#[derive(Debug, Default)]
pub(crate) struct Parser(Parsing);

/// What is known of the record that is being read. Every channel has one of these.
#[derive(Debug)]
enum Parsing {
    Header {
        bytes: [u8; HEADER],
        have: u8,
    },
    Data {
        left: u32,
    },
    /// A control record that came in parts, and how long it will be.
    Control(Box<(Vec<u8>, usize)>),
}

impl Default for Parsing {
    fn default() -> Self {
        Self::Header { bytes: [0; HEADER], have: 0 }
    }
}

impl Parser {
    /// Whether the stream could end here without cutting a record.
    pub(crate) fn is_between_records(&self) -> bool {
        matches!(self.0, Parsing::Header { have: 0, .. })
    }

    /// The next piece of `input`, the content of frames one after the other; `None` when all of it is taken.
    ///
    /// # Errors
    /// What was wrong with a record; the session cannot go on.
    pub(crate) fn next(&mut self, input: &mut Bytes) -> Result<Option<Incoming>, String> {
        loop {
            match &mut self.0 {
                Parsing::Header { bytes, have } => {
                    let at = usize::from(*have);
                    let take = input.len().min(HEADER - at);
                    input.copy_to_slice(&mut bytes[at..at + take]);
                    *have += take as u8;
                    if usize::from(*have) < HEADER {
                        return Ok(None);
                    }
                    let [flags, a, b, c, d] = *bytes;
                    let len = u32::from_be_bytes([a, b, c, d]);
                    self.0 = Parsing::default();
                    match flags {
                        0 if len > MAX_DATA => {
                            return Err(format!("a data record of {len} bytes; {MAX_DATA} are allowed"));
                        }
                        0 if len == 0 => return Ok(Some(Incoming::Data(Bytes::new()))),
                        0 => self.0 = Parsing::Data { left: len },
                        CONTROL if !(1..=MAX_CONTROL).contains(&len) => {
                            return Err(format!("a control record of {len} bytes; 1 to {MAX_CONTROL} are allowed"));
                        }
                        CONTROL if input.len() >= len as usize => {
                            return Ok(Some(Incoming::control(input.split_to(len as usize))));
                        }
                        CONTROL => self.0 = Parsing::Control(Box::new((Vec::new(), len as usize))),
                        flags => return Err(format!("a record with flags 0x{flags:02x}; 0x00 and 0x80 are defined")),
                    }
                }
                Parsing::Data { left } => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let body = input.split_to(input.len().min(*left as usize));
                    *left -= body.len() as u32;
                    if *left == 0 {
                        self.0 = Parsing::default();
                    }
                    return Ok(Some(Incoming::Data(body)));
                }
                Parsing::Control(parts) => {
                    let (have, len) = &mut **parts;
                    have.extend_from_slice(&input.split_to(input.len().min(*len - have.len())));
                    if have.len() < *len {
                        return Ok(None);
                    }
                    let payload = Bytes::from(std::mem::take(have));
                    self.0 = Parsing::default();
                    return Ok(Some(Incoming::control(payload)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(out: Outgoing) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.put(out);
        bytes
    }

    #[test]
    fn records_survive_any_split() {
        let mut out = Outgoing::new();
        out.control(kind::STOP, 7);
        out.control(kind::CREDIT, 1 << 40);
        out.data(Bytes::from_static(b"hello"));
        out.fin();
        let bytes = all(out);
        for step in 1..=bytes.len() {
            let (mut parser, mut data, mut kinds) = (Parser::default(), Vec::new(), Vec::new());
            for part in bytes.chunks(step) {
                let mut input = Bytes::copy_from_slice(part);
                while let Some(record) = parser.next(&mut input).expect("valid") {
                    match record {
                        Incoming::Data(body) => data.extend_from_slice(&body),
                        Incoming::Control(control) => kinds.push((control.kind, control.number().ok())),
                    }
                }
            }
            assert_eq!(data, b"hello");
            assert_eq!(kinds, [(kind::STOP, Some(7)), (kind::CREDIT, Some(1 << 40)), (kind::FIN, None)]);
            assert!(parser.is_between_records());
        }
    }

    #[test]
    fn a_frame_is_the_same_whether_read_by_chunk_or_vectored() {
        let mut out = Outgoing::new();
        out.data(Bytes::from_static(b"0123456789"));
        out.fin();
        let whole = all(out);
        for at in 0..=whole.len() {
            let mut out = Outgoing::new();
            out.data(Bytes::from_static(b"0123456789"));
            out.fin();
            out.advance(at);
            assert_eq!(out.remaining(), whole.len() - at);
            let mut slices = [IoSlice::new(&[]); 4];
            let used = out.chunks_vectored(&mut slices);
            let joined: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.to_vec()).collect();
            assert_eq!(joined, whole[at..]);
            drop(out);
        }
    }

    #[test]
    fn lengths_are_checked_before_memory_is_taken() {
        for bad in [[0, 0, 0x10, 0, 1], [0x80, 0, 0, 0, 0], [0x80, 0xff, 0, 0, 0], [1, 0, 0, 0, 1]] {
            let mut input = Bytes::copy_from_slice(&bad);
            assert!(Parser::default().next(&mut input).is_err(), "{bad:?}");
        }
    }
}
