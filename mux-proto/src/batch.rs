//! Bytes on their way to the transport.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// What was handed over for sending and not yet taken by the transport: headers and bodies in order.
#[derive(Debug, Default)]
pub struct Batch {
    parts: VecDeque<Bytes>,
    /// Frames encoded one after the other; it becomes a part before the next body.
    pub(crate) tail: BytesMut,
    len: usize,
}

impl Batch {
    /// Bytes not yet sent.
    pub fn len(&self) -> usize {
        self.len + self.tail.len()
    }

    /// Whether all was sent.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a body.
    pub fn push(&mut self, body: Bytes) {
        self.seal();
        self.len += body.len();
        self.parts.push_back(body);
    }

    /// Appends a copy of `bytes`, which the transport did not take from the caller's buffer.
    pub fn push_copy(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
    }

    /// Gives back memory that only a busy batch needs.
    pub fn shrink(&mut self) {
        if self.tail.is_empty() && self.tail.capacity() > 4096 {
            self.tail = BytesMut::new();
        }
    }

    /// Puts the bytes from the front into `out`, as many slices as it holds; returns how many those are.
    pub fn slices<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let tail = Some(&self.tail[..]).filter(|tail| !tail.is_empty());
        let mut used = 0;
        for (slot, part) in out.iter_mut().zip(self.parts.iter().map(|part| &part[..]).chain(tail)) {
            *slot = IoSlice::new(part);
            used += 1;
        }
        used
    }

    /// How many slices hold the bytes.
    pub fn parts(&self) -> usize {
        self.parts.len() + usize::from(!self.tail.is_empty())
    }

    /// Forgets `sent` bytes from the front; returns how many of them were not part of the batch but came after it.
    pub fn advance(&mut self, mut sent: usize) -> usize {
        while let Some(part) = self.parts.front_mut() {
            if sent < part.len() {
                part.advance(sent);
                self.len -= sent;
                return 0;
            }
            sent -= part.len();
            self.len -= part.len();
            self.parts.pop_front();
        }
        let of_tail = sent.min(self.tail.len());
        self.tail.advance(of_tail);
        sent - of_tail
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            let head = self.tail.split().freeze();
            self.len += head.len();
            self.parts.push_back(head);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_across_partial_sends() {
        let mut batch = Batch::default();
        batch.push_copy(b"head");
        batch.push(Bytes::from_static(b"body"));
        batch.push_copy(b"tail");
        let mut seen = Vec::new();
        while !batch.is_empty() {
            let mut slices = [IoSlice::new(&[]); 8];
            assert_eq!(batch.slices(&mut slices), batch.parts());
            seen.push(slices[0][0]);
            assert_eq!(batch.advance(1), 0);
        }
        assert_eq!(seen, b"headbodytail");
        assert_eq!(batch.advance(3), 3, "bytes after the batch are the caller's");
    }
}
