//! The two ends of the control stream.

use std::future::poll_fn;
use std::pin::Pin;

use bytes::{Buf, BytesMut};
use quinn::{ReadError, RecvStream, SendStream, WriteError};

use crate::record::{BadRecord, Record};
use crate::shared::Shared;

/// The control stream: records in, records out.
pub(crate) struct Control {
    pub(crate) input: Incoming,
    pub(crate) output: Outgoing,
}

pub(crate) struct Incoming {
    recv: RecvStream,
    bytes: BytesMut,
}

#[derive(Debug)]
pub(crate) struct Outgoing {
    send: SendStream,
    bytes: BytesMut,
}

/// Why no more records come.
pub(crate) enum Silence {
    /// The peer broke the rules.
    Bad(String),
    /// The connection is over; it says itself why.
    Lost,
}

/// Answers that wait because the peer does not read: about 4,000 pings.
const MAX_UNSENT: usize = 64 * 1024;

/// While more waits, what can wait elsewhere does.
const ENOUGH_UNSENT: usize = 16 * 1024;

impl Control {
    /// `first` came with the preface.
    pub(crate) fn new(send: SendStream, recv: RecvStream, first: &[u8]) -> Self {
        // Before everything else: it is small, and keeps the session alive.
        let _ = send.set_priority(i32::MAX);
        let input = Incoming { recv, bytes: BytesMut::from(first) };
        Self { input, output: Outgoing { send, bytes: BytesMut::new() } }
    }
}

impl Incoming {
    /// The next record.
    ///
    /// Cancel-safe: what was read stays in the buffer.
    pub(crate) async fn next(&mut self) -> Result<Record, Silence> {
        loop {
            match Record::decode(&mut self.bytes) {
                Ok(Some(record)) => return Ok(record),
                Ok(None) => {}
                Err(BadRecord(why)) => return Err(Silence::Bad(why)),
            }
            match self.recv.read_chunk(4096, true).await {
                Ok(Some(chunk)) => self.bytes.extend_from_slice(&chunk.bytes),
                Ok(None) | Err(ReadError::Reset(_)) => {
                    return Err(Silence::Bad("the control stream ended before the session".into()));
                }
                Err(_) => return Err(Silence::Lost),
            }
        }
    }
}

impl Outgoing {
    /// Queues raw bytes: the preface.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Queues a record that the peer did not provoke.
    pub(crate) fn put_record(&mut self, record: &Record) {
        record.encode(&mut self.bytes);
    }

    /// Queues a record. `false`: the peer provokes answers and does not read them.
    #[must_use = "false means that the session must end"]
    pub(crate) fn say(&mut self, record: &Record) -> bool {
        record.encode(&mut self.bytes);
        self.bytes.len() <= MAX_UNSENT
    }

    /// Whether what is not urgent should wait.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= ENOUGH_UNSENT
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Sends some of what is queued, whatever channels have on their way.
    ///
    /// Cancel-safe: a dropped future has sent nothing.
    pub(crate) async fn send(&mut self, shared: &Shared) -> Result<(), WriteError> {
        let Self { send, bytes } = self;
        let sent = poll_fn(|cx| {
            let mut write = || Pin::new(&mut *send).poll_write(cx, bytes);
            let written = write();
            if written.is_pending() { shared.beyond_send_window(write) } else { written }
        });
        let sent = sent.await?;
        self.bytes.advance(sent);
        Ok(())
    }
}
