//! Channels that the peer opens: their prefaces are read side by side, so that a lost packet delays only its own.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mux_api::backend::ChannelParts;
use mux_api::{Initiator, Priority, Reservation, Role, codes};
use quinn::{ReadError, RecvStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::control::Control;
use crate::error::varint;
use crate::preface::{self, BadPreface, Preface};
use crate::recv::QuicRecv;
use crate::send::QuicSend;
use crate::session::Stream;
use crate::shared::Shared;
use crate::side::SendSide;
use crate::wire::Wire;

/// Prefaces that are read at once. There is no time limit for one: a stream is seen as soon as a later one is, while its own
/// preface may wait in its opener, or be lost again and again. Who never sends one has one channel less.
const PREFACES: usize = 256;

/// How long the opener's word on a stream that it has reset may take.
const WORD_LIMIT: Duration = Duration::from_secs(30);

/// A stream of the peer's that nobody has taken yet. Dropped, it is reset, never ended cleanly.
struct Arriving {
    streams: Option<Stream>,
    /// Its receive window, `None` where the budget has no room.
    held: Option<Reservation>,
}

impl Arriving {
    fn refuse(&mut self, code: u64) {
        if let Some((mut send, mut recv)) = self.streams.take() {
            // Streams that are over already need no refusal.
            let _ = send.reset(varint(code));
            let _ = recv.stop(varint(code));
        }
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.refuse(codes::DROPPED);
    }
}

enum Read {
    /// The preface, and what came with it, unless the peer has reset the stream with a code.
    Done(Preface, Result<Bytes, u64>),
    /// The peer took it back and says nothing of it, or the connection is lost.
    Gone,
    Bad(u64, String),
}

type Reading = Pin<Box<dyn Future<Output = (Arriving, Read)> + Send>>;

/// Accepts until the connection is over and everything that arrived before was looked at.
pub(crate) async fn accept_all(
    shared: Arc<Shared>,
    role: Role,
    control: oneshot::Sender<Control>,
    first: Option<Stream>,
) {
    let mut acceptor = Acceptor { shared, role, control: Some(control) };
    let mut prefaces: FuturesUnordered<Reading> = FuturesUnordered::new();
    prefaces.extend(first.and_then(|first| acceptor.meet(first)));
    loop {
        tokio::select! {
            biased;
            accepted = acceptor.shared.conn.accept_bi(), if prefaces.len() < PREFACES => {
                let Ok(streams) = accepted else { break };
                prefaces.extend(acceptor.meet(streams));
            }
            Some((arriving, read)) = prefaces.next(), if !prefaces.is_empty() => acceptor.take(arriving, read),
        }
    }
    while let Some((arriving, read)) = prefaces.next().await {
        acceptor.take(arriving, read);
    }
}

/// A preface that is being read.
struct Reader {
    input: Bytes,
    wire: Wire,
    max_label: usize,
}

/// How far a preface has come.
enum Progress {
    Over(Read),
    Reset,
}

impl Reader {
    fn decode(&mut self) -> Option<Result<Preface, Read>> {
        let max_label = self.max_label;
        let decoded = match self.wire {
            Wire::Libmux => preface::decode(&mut self.input, max_label),
            Wire::Qtalk => preface::decode_plain(&mut self.input),
            Wire::Raw => Ok(Some(preface::channel())),
        };
        let bad = match decoded {
            Ok(preface) => return preface.map(Ok),
            Err(BadPreface::TooLong(len)) => {
                Read::Bad(codes::LIMIT, format!("its label has {len} bytes; {max_label} are allowed"))
            }
            Err(BadPreface::Unknown(byte)) => {
                Read::Bad(codes::PROTOCOL, format!("its first byte {byte:#04x} is unknown"))
            }
            Err(BadPreface::Urgency(urgency)) => {
                Read::Bad(codes::PROTOCOL, format!("its urgency {urgency} is above 7"))
            }
        };
        Some(Err(bad))
    }

    /// Reads what is there and as much as is needed.
    ///
    /// Cancel-safe: what was read is kept.
    async fn read(&mut self, recv: &mut RecvStream) -> Progress {
        loop {
            match self.decode() {
                Some(Ok(preface)) => return Progress::Over(Read::Done(preface, Ok(std::mem::take(&mut self.input)))),
                Some(Err(bad)) => return Progress::Over(bad),
                None => {}
            }
            match recv.read_chunk(preface::longest(self.max_label), true).await {
                Ok(Some(chunk)) if self.input.is_empty() => self.input = chunk.bytes,
                Ok(Some(chunk)) => {
                    let mut joined = BytesMut::from(&self.input[..]);
                    joined.extend_from_slice(&chunk.bytes);
                    self.input = joined.freeze();
                }
                Ok(None) => {
                    return Progress::Over(Read::Bad(codes::PROTOCOL, "it ended within its preface".into()));
                }
                Err(ReadError::Reset(_)) => return Progress::Reset,
                Err(_) => return Progress::Over(Read::Gone),
            }
        }
    }

    /// What the peer says on the control stream of a stream that it has reset.
    async fn ask(&mut self, shared: &Shared, stream: u64) -> Read {
        let Some(said) = poll_fn(|cx| shared.early.poll_said(stream, cx)).await else { return Read::Gone };
        self.input = said.preface;
        match self.decode() {
            Some(Ok(preface)) => Read::Done(preface, Err(said.code)),
            Some(Err(bad)) => bad,
            None => Read::Bad(codes::PROTOCOL, "its preface is incomplete".into()),
        }
    }
}

/// Reads a preface that has not come with its stream, which may be known to be `reset`.
async fn read(shared: Arc<Shared>, mut arriving: Arriving, mut reader: Reader, reset: bool) -> (Arriving, Read) {
    let Some((_, recv)) = &mut arriving.streams else { return (arriving, Read::Gone) };
    let stream = recv.id().into();
    // quinn says only once that a stream was reset.
    let progress = if reset { Progress::Reset } else { reader.read(recv).await };
    let read = match progress {
        Progress::Over(read) => read,
        Progress::Reset if shared.wire != Wire::Libmux => Read::Gone,
        Progress::Reset => {
            arriving.held = None;
            let late = || Read::Bad(codes::PROTOCOL, "it was reset, and nothing was said of it".into());
            timeout(WORD_LIMIT, reader.ask(&shared, stream)).await.unwrap_or_else(|_| late())
        }
    };
    shared.early.settle(stream);
    (arriving, read)
}

struct Acceptor {
    shared: Arc<Shared>,
    role: Role,
    control: Option<oneshot::Sender<Control>>,
}

impl Acceptor {
    /// Takes a stream at once if its preface is there, which nearly always came with it.
    fn meet(&mut self, (send, mut recv): Stream) -> Option<Reading> {
        let shared = &self.shared;
        let stream = recv.id().into();
        let mut reader = Reader { input: Bytes::new(), wire: shared.wire, max_label: shared.settings.max_label };
        let first = pin!(reader.read(&mut recv)).poll(&mut Context::from_waker(Waker::noop()));
        let held = shared.budget.reserve(u64::from(shared.settings.window));
        let arriving = Arriving { streams: Some((send, recv)), held };
        let reset = match first {
            Poll::Ready(Progress::Over(read)) => {
                shared.early.settle(stream);
                self.take(arriving, read);
                return None;
            }
            Poll::Ready(Progress::Reset) => true,
            Poll::Pending => false,
        };
        shared.early.begin(stream);
        Some(Box::pin(read(Arc::clone(shared), arriving, reader, reset)))
    }

    fn take(&mut self, mut arriving: Arriving, read: Read) {
        match read {
            Read::Gone => {}
            Read::Bad(code, why) => {
                tracing::debug!(peer = %self.shared.conn.remote_address(), %why, "a stream was turned away");
                arriving.refuse(code);
            }
            Read::Done(Preface::Control, Ok(rest)) => self.take_control(arriving, &rest),
            Read::Done(Preface::Control, Err(_)) => self.shared.violated("the control stream was reset"),
            Read::Done(Preface::Channel { label, priority }, rest) => {
                if let Err(code) = self.may_enter() {
                    return arriving.refuse(code);
                }
                // What was reset needs no window.
                if rest.is_ok() && arriving.held.is_none() {
                    return arriving.refuse(codes::LIMIT);
                }
                let Some((send, recv)) = arriving.streams.take() else { return };
                let side = SendSide::new(&self.shared, send, Initiator::Peer);
                if priority != Priority::default() {
                    side.set_priority(priority);
                }
                let recv = match rest {
                    Ok(rest) => QuicRecv::new(Arc::clone(&side), recv, arriving.held.take(), rest),
                    Err(code) => QuicRecv::reset(Arc::clone(&side), varint(code)),
                };
                self.deliver(ChannelParts {
                    id: side.stream(),
                    initiator: Initiator::Peer,
                    label,
                    send: Box::new(QuicSend::new(side)),
                    recv: Box::new(recv),
                });
            }
        }
    }

    fn may_enter(&self) -> Result<(), u64> {
        let state = self.shared.state();
        if state.closing.is_some() || state.draining {
            return Err(codes::DRAINING);
        }
        if state.backlog.len() >= self.shared.settings.backlog {
            return Err(codes::REFUSED);
        }
        Ok(())
    }

    fn deliver(&self, parts: ChannelParts) {
        self.shared.counts.accepted.fetch_add(1, Ordering::Relaxed);
        let mut state = self.shared.state();
        if state.closing.is_some() || state.released {
            drop(state);
            return drop(parts);
        }
        state.backlog.push_back(parts);
        let waker = state.accepting.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    fn take_control(&mut self, mut arriving: Arriving, rest: &Bytes) {
        if self.role == Role::Client {
            return self.shared.violated("the acceptor opened a control stream");
        }
        let (Some(control), Some((send, recv))) = (self.control.take(), arriving.streams.take()) else {
            return self.shared.violated("a second control stream");
        };
        // Nobody waits for it only when the session is over.
        let _ = control.send(Control::new(send, recv, rest));
    }
}
