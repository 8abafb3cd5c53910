//! Channels: two halves behind locks of their own, so that a reader and a writer never wait for each other. Whoever
//! holds such a lock does not sleep.

mod cause;
mod pump;

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use libmux::backend::Burst;
use libmux::{Capabilities, Error, Priority, RecvHalf, Result, SendHalf, WriteFlags};
use tokio::io::ReadBuf;

use crate::abi::{mux_event_bit, mux_status_code};
use crate::hub::{Hub, Side};
use crate::own::{Own, Owned};
use crate::queue::Waitable;
use crate::session::Session;
use crate::status::Fault;

const READ: u32 = mux_event_bit::MUX_EV_READ as u32;
const WRITE: u32 = mux_event_bit::MUX_EV_WRITE as u32;
const DRAINED: u32 = mux_event_bit::MUX_EV_DRAINED as u32;
const OPENED: u32 = mux_event_bit::MUX_EV_OPENED as u32;
const CLOSED: u32 = mux_event_bit::MUX_EV_CLOSED as u32;

pub(crate) struct Channel {
    pub(crate) hub: Arc<Hub>,
    pub(crate) session: Arc<Session>,
    pub(crate) id: u64,
    pub(crate) label: Bytes,
    recv: Own<Receiving>,
    send: Own<SendHalf>,
    /// Takes small writes of a burst beside `send`; set when the half has it.
    burst: OnceLock<Arc<dyn Burst>>,
    /// Its bytes go through a socket of the application's.
    handed_over: AtomicBool,
    recv_waker: Waker,
    send_waker: Waker,
    /// The end was read, the direction failed, or we stopped it.
    recv_over: AtomicBool,
    /// Finished and taken by the transport, failed, or we reset it.
    send_over: AtomicBool,
    /// The application ended its direction itself: finished, reset or stopped it.
    ended_recv: AtomicBool,
    ended_send: AtomicBool,
    /// The first failure, and the first one of each direction.
    cause: OnceLock<Error>,
    causes: [OnceLock<Error>; 2],
    read_min: AtomicUsize,
    write_min: AtomicUsize,
}

/// The receiving half, and what was borrowed from it.
struct Receiving {
    half: RecvHalf,
    /// Given back unused: read before anything else.
    rest: VecDeque<Bytes>,
    /// A borrow is out; its rest comes before what follows.
    lent: bool,
}

impl Receiving {
    fn waiting(&self) -> usize {
        self.rest.iter().map(Bytes::len).sum()
    }

    #[inline]
    fn check_lent(&self) -> Result<(), Fault> {
        if self.lent { Err(in_use("what was borrowed is not released yet")) } else { Ok(()) }
    }

    #[cold]
    fn read_rest(&mut self, buf: &mut ReadBuf<'_>) -> usize {
        let Some(slice) = self.rest.front_mut() else { return 0 };
        let part = slice.split_to(slice.len().min(buf.remaining()));
        if slice.is_empty() {
            self.rest.pop_front();
        }
        buf.put_slice(&part);
        part.len()
    }
}

impl Channel {
    pub(crate) fn new(session: Arc<Session>, channel: libmux::Channel) -> Arc<Self> {
        let hub = Arc::new(Hub::default());
        let (id, label) = (channel.id(), channel.label().clone());
        let (send, recv) = channel.split();
        Arc::new(Self {
            recv_waker: hub.waker(Side::Recv),
            send_waker: hub.waker(Side::Send),
            hub,
            session,
            id,
            label,
            recv: Own::new(Receiving { half: recv, rest: VecDeque::new(), lent: false }),
            send: Own::new(send),
            burst: OnceLock::new(),
            handed_over: AtomicBool::new(false),
            recv_over: AtomicBool::new(false),
            send_over: AtomicBool::new(false),
            ended_recv: AtomicBool::new(false),
            ended_send: AtomicBool::new(false),
            cause: OnceLock::new(),
            causes: [OnceLock::new(), OnceLock::new()],
            read_min: AtomicUsize::new(1),
            write_min: AtomicUsize::new(1),
        })
    }

    /// Reads what is there; `None` when that is nothing yet, 0 at the end.
    #[inline]
    pub(crate) fn try_read(&self, room: &mut [MaybeUninit<u8>]) -> Result<Option<usize>, Fault> {
        self.check_session()?;
        let mut buf = ReadBuf::uninit(room);
        let polled = self.recv.with(|recv| -> Result<_, Fault> {
            self.check_own()?;
            recv.check_lent()?;
            if !recv.rest.is_empty() {
                return Ok(Poll::Ready(Ok(recv.read_rest(&mut buf))));
            }
            Ok(recv.half.poll_read_buf(&mut Context::from_waker(&self.recv_waker), &mut buf))
        });
        match polled.map_err(|fault| self.session.after(fault))?? {
            Poll::Pending => Ok(None),
            Poll::Ready(Ok(0)) => {
                self.recv_is_over();
                Ok(Some(0))
            }
            Poll::Ready(Ok(count)) => Ok(Some(count)),
            Poll::Ready(Err(error)) => Err(self.recv_failed(error)),
        }
    }

    /// Takes up to `slices` slices of together at most `most` bytes, which count as lent until
    /// [`give_back`](Self::give_back); none at the end.
    pub(crate) fn try_borrow(&self, slices: usize, most: usize) -> Result<Option<Vec<Bytes>>, Fault> {
        let mut recv = self.reading()?;
        let (mut taken, mut room) = (Vec::new(), most);
        let polled = loop {
            if taken.len() == slices || room == 0 {
                break Poll::Pending;
            }
            let next = match recv.rest.front_mut() {
                Some(slice) => {
                    let part = slice.split_to(slice.len().min(room));
                    if slice.is_empty() {
                        recv.rest.pop_front();
                    }
                    Poll::Ready(Ok(Some(part)))
                }
                None => recv.half.poll_read_bytes(&mut Context::from_waker(&self.recv_waker), room),
            };
            match next {
                Poll::Ready(Ok(Some(slice))) => {
                    room -= slice.len();
                    taken.push(slice);
                }
                other => break other,
            }
        };
        if !taken.is_empty() {
            // The end, or the failure, is met again by the next read.
            recv.lent = true;
            return Ok(Some(taken));
        }
        drop(recv);
        match polled {
            Poll::Pending => Ok(None),
            Poll::Ready(Ok(_)) => {
                self.recv_is_over();
                Ok(Some(Vec::new()))
            }
            Poll::Ready(Err(error)) => Err(self.recv_failed(error)),
        }
    }

    /// Ends a borrow; `rest` was not used.
    pub(crate) fn give_back(&self, rest: VecDeque<Bytes>) {
        let Ok(mut recv) = self.recv.lock_anyway() else { return };
        recv.lent = false;
        for slice in rest.into_iter().rev() {
            recv.rest.push_front(slice);
        }
        drop(recv);
        self.hub.wake(Side::Recv);
    }

    /// Writes some of `bufs`; `None` when there is no room yet.
    #[inline]
    pub(crate) fn try_write(&self, bufs: &[IoSlice<'_>], flags: WriteFlags) -> Result<Option<usize>, Fault> {
        self.check_session()?;
        self.check_own()?;
        if let ([data], Some(burst)) = (bufs, self.burst.get())
            && !flags.contains(WriteFlags::FIN)
            && burst.take(data)
        {
            self.hub.expect_answer();
            return Ok(Some(data.len()));
        }
        let polled = self.send.with(|half| -> Result<_, Fault> {
            self.check_own()?;
            let polled = half.poll_write(&mut Context::from_waker(&self.send_waker), bufs, flags);
            if self.burst.get().is_none()
                && let Some(burst) = half.burst()
            {
                let _ = self.burst.set(burst);
            }
            Ok(polled)
        });
        match polled.map_err(|fault| self.session.after(fault))?? {
            Poll::Pending => Ok(None),
            Poll::Ready(Ok(count)) => {
                if flags.contains(WriteFlags::FIN) && count == bufs.iter().map(|buf| buf.len()).sum::<usize>() {
                    self.ended_send.store(true, Ordering::SeqCst);
                }
                self.hub.expect_answer();
                Ok(Some(count))
            }
            Poll::Ready(Err(error)) => Err(self.send_failed(error)),
        }
    }

    pub(crate) fn finish(&self) -> Result<(), Fault> {
        let finished = self.send()?.finish();
        finished.map_err(|error| self.send_failed(error))?;
        self.ended_send.store(true, Ordering::SeqCst);
        self.hub.wake(Side::Send);
        Ok(())
    }

    pub(crate) fn reset(&self, code: u64) -> Result<(), Fault> {
        let reset = self.send()?.reset(code);
        reset.map_err(|error| self.send_failed(error))?;
        self.ended_send.store(true, Ordering::SeqCst);
        self.send_is_over();
        Ok(())
    }

    pub(crate) fn stop(&self, code: u64) -> Result<(), Fault> {
        let stopped = self.stop_half(code)?;
        stopped.map_err(|error| self.recv_failed(error))?;
        self.ended_recv.store(true, Ordering::SeqCst);
        self.recv_is_over();
        Ok(())
    }

    pub(crate) fn set_priority(&self, priority: Priority) -> Result<(), Fault> {
        self.send()?.set_priority(priority);
        Ok(())
    }

    pub(crate) fn set_low_water(&self, read_min: usize, write_min: usize) {
        self.read_min.store(read_min.max(1), Ordering::Relaxed);
        self.write_min.store(write_min.max(1), Ordering::Relaxed);
        // What is watched is judged by the new marks.
        self.hub.wake_all();
    }

    /// Bytes that a write would take at present.
    pub(crate) fn room(&self) -> Result<usize, Fault> {
        Ok(self.send()?.room())
    }

    /// Bytes that wait to be read, and bytes that the transport has not taken.
    pub(crate) fn buffered(&self) -> Result<(usize, usize), Fault> {
        let recv = self.recv()?;
        let received = recv.waiting() + recv.half.buffered();
        drop(recv);
        Ok((received, self.send()?.buffered()))
    }

    /// The handle was closed: the polite end.
    pub(crate) fn end(&self) {
        self.hub.end();
        self.lock_send_anyway(SendHalf::close);
        self.lock_recv_anyway(RecvHalf::close);
    }

    /// The end for error paths. `code` was checked.
    pub(crate) fn abort(&self, code: u64) {
        self.hub.end();
        // Refused where the wire cannot carry the code, or the direction is over. The first kind is left as it is: it
        // is dropped with the object, and a half that is dropped unfinished resets with a code that every wire has.
        self.lock_send_anyway(|half| drop(half.reset(code)));
        self.lock_recv_anyway(|half| {
            if half.stop(code).is_err() {
                half.close();
            }
        });
    }

    /// A poisoned half is one whose session was or will be aborted; ending it is still right. One that a backend's function
    /// uses in this very thread ends when the object goes.
    fn lock_send_anyway(&self, end: impl FnOnce(&mut SendHalf)) {
        if let Ok(mut half) = self.send.lock_anyway() {
            end(&mut half);
        }
    }

    /// As [`lock_send_anyway`](Self::lock_send_anyway).
    fn lock_recv_anyway(&self, end: impl FnOnce(&mut RecvHalf)) {
        if let Ok(mut recv) = self.recv.lock_anyway() {
            end(&mut recv.half);
        }
    }

    /// The half, for a call of the application: an error once the session's handle was closed, which ends its channels.
    fn recv(&self) -> Result<Owned<'_, Receiving>, Fault> {
        self.check_session()?;
        self.recv.lock().map_err(|fault| self.session.after(fault))
    }

    fn stop_half(&self, code: u64) -> Result<libmux::Result<()>, Fault> {
        let mut recv = self.recv()?;
        let stopped = recv.half.stop(code);
        if stopped.is_ok() {
            recv.rest.clear();
        }
        Ok(stopped)
    }

    /// As [`recv`](Self::recv), for a call that takes bytes.
    fn reading(&self) -> Result<Owned<'_, Receiving>, Fault> {
        let recv = self.recv()?;
        self.check_own()?;
        recv.check_lent()?;
        Ok(recv)
    }

    /// As [`send`](Self::send), for a call that gives bytes.
    fn writing(&self) -> Result<Owned<'_, SendHalf>, Fault> {
        let send = self.send()?;
        self.check_own()?;
        Ok(send)
    }

    #[inline]
    fn check_own(&self) -> Result<(), Fault> {
        if self.handed_over.load(Ordering::SeqCst) {
            return Err(in_use("the channel's bytes go through the socket of mux_channel_to_fd"));
        }
        Ok(())
    }

    /// As [`recv`](Self::recv).
    fn send(&self) -> Result<Owned<'_, SendHalf>, Fault> {
        self.check_session()?;
        self.send.lock().map_err(|fault| self.session.after(fault))
    }

    #[inline]
    fn check_session(&self) -> Result<(), Fault> {
        if self.session.hub.has_ended() {
            return Err(mux_status_code::MUX_ECLOSED.into());
        }
        Ok(())
    }

    fn recv_is_over(&self) {
        self.hub.relay_send_to_recv();
        if !self.recv_over.swap(true, Ordering::SeqCst) {
            self.hub.wake_all();
        }
    }

    fn send_is_over(&self) {
        if !self.send_over.swap(true, Ordering::SeqCst) {
            self.hub.wake_all();
        }
    }

    /// Whether the send direction is over; if not, the send side wakes when it is.
    fn look_for_send_end(&self, half: &mut SendHalf) -> bool {
        if self.send_over.load(Ordering::SeqCst) {
            return true;
        }
        match half.poll_ended(&mut Context::from_waker(&self.send_waker)) {
            Poll::Pending => return false,
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => {
                self.note(Side::Send, &self.explain(error, &self.ended_send));
            }
        }
        self.send_over.store(true, Ordering::SeqCst);
        true
    }

    fn ready_to_recv(&self, wanted: u32) -> Result<u32, Fault> {
        let mut recv = self.recv()?;
        let waiting = recv.waiting();
        let min = self.read_min.load(Ordering::Relaxed);
        if waiting >= min || recv.lent || self.handed_over.load(Ordering::SeqCst) {
            // A read would not wait: what is not its to read is said at once.
            return Ok(wanted & READ);
        }
        // Asked even when only the end is wanted, because that is how the half learns whom to wake.
        let mut cx = Context::from_waker(&self.recv_waker);
        let readable = recv.half.poll_readable(&mut cx, min - waiting).is_ready();
        Ok(if readable { wanted & READ } else { 0 })
    }

    fn ready_to_send(&self, wanted: u32) -> Result<u32, Fault> {
        let mut half = self.send()?;
        let mut cx = Context::from_waker(&self.send_waker);
        let mut ready = 0;
        if wanted & WRITE != 0 && half.poll_writable(&mut cx, self.write_min.load(Ordering::Relaxed)).is_ready() {
            ready |= WRITE;
        }
        if wanted & DRAINED != 0 && half.poll_flush(&mut cx).is_ready() {
            ready |= DRAINED;
        }
        if wanted & OPENED != 0 && half.poll_opened(&mut cx).is_ready() {
            ready |= OPENED;
        }
        if self.look_for_send_end(&mut half) {
            // What is over will not block any more.
            ready |= wanted & (WRITE | DRAINED | OPENED);
        }
        Ok(ready)
    }

    fn is_closed(&self) -> Result<bool, Fault> {
        if self.recv_over.load(Ordering::SeqCst) {
            let mut half = self.send()?;
            if self.look_for_send_end(&mut half) {
                return Ok(true);
            }
        }
        if self.session.cause().is_none() {
            return Ok(false);
        }
        // What arrived before the session's end can still be read.
        let recv = self.recv()?;
        Ok(recv.waiting() + recv.half.buffered() == 0)
    }
}

/// Others than the caller have the direction's bytes.
#[cold]
fn in_use(why: &str) -> Fault {
    Fault::Said(mux_status_code::MUX_ESTATE, why.to_owned())
}

impl Waitable for Channel {
    fn hub(&self) -> &Hub {
        &self.hub
    }

    fn sides(&self) -> [u32; 2] {
        [READ, WRITE | DRAINED | OPENED]
    }

    fn check(&self, events: u32) -> Result<(), Fault> {
        let confirms = || -> Result<bool, Fault> {
            Ok(self.session.connected_session()?.capabilities().contains(Capabilities::OPENED))
        };
        if events & OPENED != 0 && !confirms()? {
            let message = "the peer does not confirm channels on this session (MUX_CAP_OPENED)".to_owned();
            return Err(Fault::Said(mux_status_code::MUX_EUNSUPPORTED, message));
        }
        Ok(())
    }

    fn ready(&self, side: Side, wanted: u32) -> u32 {
        let wanted = wanted & self.sides()[side as usize];
        let ready = match side {
            Side::Recv => self.ready_to_recv(wanted),
            Side::Send => self.ready_to_send(wanted),
        };
        match (ready, self.is_closed()) {
            (Ok(ready), Ok(false)) => ready,
            // Dead, or broken by a panic: ready for everything.
            _ => wanted | CLOSED,
        }
    }
}
