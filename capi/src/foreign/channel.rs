//! Channels of backends written in C. What ended is remembered here, so that their functions need not.

use std::io::IoSlice;
use std::ptr;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use libmux::backend::{ChannelParts, RecvOps, SendOps};
use libmux::{Capabilities, Error, ErrorKind, Initiator, Origin, Priority, Result, WriteFlags, codes};
use tokio::io::ReadBuf;

use super::error::{Status, failure};
use super::object::{Object, slot};
use crate::abi::{mux_event_bit, mux_info_key, mux_io_flag, mux_iovec, mux_status};

const READ: u32 = mux_event_bit::MUX_EV_READ as u32;
const WRITE: u32 = mux_event_bit::MUX_EV_WRITE as u32;
const DRAINED: u32 = mux_event_bit::MUX_EV_DRAINED as u32;
const OPENED: u32 = mux_event_bit::MUX_EV_OPENED as u32;
const CLOSED: u32 = mux_event_bit::MUX_EV_CLOSED as u32;

/// How a direction ended.
#[derive(Clone)]
enum End {
    /// The end was read, or everything was written.
    Clean,
    /// We stopped or reset it.
    Ours,
    Failed(Error),
}

/// The channel as mux-api knows it.
pub(super) fn parts(
    object: Arc<Object>,
    initiator: Initiator,
    label: Bytes,
    capabilities: Capabilities,
) -> ChannelParts {
    let id = object.info(mux_info_key::MUX_INFO_CHANNEL_ID);
    let recv = Recv { object: Arc::clone(&object), capabilities, end: None };
    ChannelParts {
        id: id.try_into().map_or(0, u64::from_ne_bytes),
        initiator,
        label,
        send: Box::new(Send { object, capabilities, end: None }),
        recv: Box::new(recv),
    }
}

fn finished() -> Error {
    Error::new(ErrorKind::Finished, Origin::Local, "this direction was ended before")
}

/// A count that a function gave, checked against what it was given: the bytes, `None` for later.
fn count(object: &Object, result: i64, most: usize) -> Result<Option<usize>> {
    match usize::try_from(result) {
        Ok(count) if count <= most => Ok(Some(count)),
        Ok(_) => Err(Error::new(ErrorKind::Internal, Origin::Local, "the backend moved more than it was given")),
        Err(_) => match mux_status::try_from(result) {
            Ok(Status::AGAIN) => Ok(None),
            Ok(status) => Err(object.why(status).unwrap_or_else(|| failure(status, None))),
            Err(_) => Err(failure(1, None)),
        },
    }
}

/// What a function that gives a status came to.
fn check(object: &Object, status: mux_status) -> Result<()> {
    match status {
        Status::OK => Ok(()),
        status => Err(object.why(status).unwrap_or_else(|| failure(status, None))),
    }
}

struct Recv {
    object: Arc<Object>,
    capabilities: Capabilities,
    end: Option<End>,
}

impl Recv {
    /// Reads to `room`, which has some.
    fn read(&mut self, cx: &Context<'_>, room: *mut u8, length: usize) -> Poll<Result<usize>> {
        match &self.end {
            Some(End::Clean) => return Poll::Ready(Ok(0)),
            Some(End::Ours) => return Poll::Ready(Err(finished())),
            Some(End::Failed(error)) => return Poll::Ready(Err(error.clone())),
            None => {}
        }
        self.object.wakers.park(slot::RECV, cx);
        let result = self.object.call(|table, place| {
            // SAFETY: registered functions are what `mux_backend` says; `room` is writable for `length`.
            table.read.map_or(Status::AGAIN.into(), |read| unsafe { read(place, room.cast(), length) })
        })?;
        match count(&self.object, result, length) {
            Ok(None) => Poll::Pending,
            Ok(Some(0)) => {
                self.end = Some(End::Clean);
                Poll::Ready(Ok(0))
            }
            Ok(Some(count)) => Poll::Ready(Ok(count)),
            Err(error) => {
                self.end = Some(End::Failed(error.clone()));
                Poll::Ready(Err(error))
            }
        }
    }

    fn end(&mut self, code: u64) -> Result<()> {
        let stopped = self.object.call(|table, place| {
            // SAFETY: as above.
            table.stop.map_or(Status::OK, |stop| unsafe { stop(place, code) })
        })?;
        check(&self.object, stopped)?;
        self.end = Some(End::Ours);
        Ok(())
    }
}

impl RecvOps for Recv {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<usize>> {
        // SAFETY: only written to, and only what was written counts as filled.
        let room = unsafe { buf.unfilled_mut() };
        let (place, length) = (room.as_mut_ptr().cast(), room.len());
        self.read(cx, place, length).map_ok(|count| {
            // SAFETY: the backend wrote `count` bytes, which is at most `length`.
            unsafe { buf.assume_init(count) };
            buf.advance(count);
            count
        })
    }

    fn poll_read_bytes(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Bytes>>> {
        const PART: usize = 64 * 1024;
        let length = max.min(PART);
        let mut data = BytesMut::with_capacity(length);
        let place = data.spare_capacity_mut().as_mut_ptr().cast();
        self.read(cx, place, length).map_ok(|count| {
            // SAFETY: the backend wrote `count` bytes, which is at most the capacity.
            unsafe { data.set_len(count) };
            (count > 0).then(|| data.freeze())
        })
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>, min: usize) -> Poll<()> {
        if self.end.is_some() {
            return Poll::Ready(());
        }
        self.object.wakers.park(slot::RECV, cx);
        match self.object.ready(READ, min) {
            Ok(0) => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }

    fn stop(&mut self, code: u64) -> Result<()> {
        match &self.end {
            Some(End::Failed(error)) => return Err(error.clone()),
            Some(_) => return Err(finished()),
            None => {}
        }
        if !self.capabilities.contains(Capabilities::STOP) {
            return Err(Error::unsupported("this session cannot ask its peer to stop (MUX_CAP_STOP)"));
        }
        self.end(code)
    }

    fn abandon(&mut self, code: u64) {
        if self.end.is_none() {
            // A backend that cannot has nothing else to be told.
            let _ = self.end(code);
            self.end = Some(End::Ours);
        }
    }

    fn buffered(&self) -> usize {
        self.object.stats().recv_buffered as usize
    }
}

struct Send {
    object: Arc<Object>,
    capabilities: Capabilities,
    end: Option<End>,
}

impl Send {
    /// What a call on an ended direction comes to.
    fn check(&self) -> Result<()> {
        match &self.end {
            None => Ok(()),
            Some(End::Failed(error)) => Err(error.clone()),
            Some(End::Clean | End::Ours) => Err(finished()),
        }
    }

    fn fail<T>(&mut self, error: Error) -> Result<T> {
        self.end = Some(End::Failed(error.clone()));
        Err(error)
    }

    fn write(&mut self, pieces: *const mux_iovec, n: usize, total: usize, flags: WriteFlags) -> Result<Option<usize>> {
        let fin = if flags.contains(WriteFlags::FIN) { mux_io_flag::MUX_IO_FIN as u32 } else { 0 };
        let more = if flags.contains(WriteFlags::MORE) { mux_io_flag::MUX_IO_MORE as u32 } else { 0 };
        let result = self.object.call(|table, place| {
            // SAFETY: registered functions are what `mux_backend` says; `pieces` are `n` readable ones.
            table.write.map_or(0, |write| unsafe { write(place, pieces, n as i32, fin | more) })
        })?;
        match count(&self.object, result, total) {
            Ok(None) if total == 0 => {
                self.fail(Error::new(ErrorKind::Internal, Origin::Local, "the backend let a write of nothing wait"))
            }
            Ok(Some(0)) if total > 0 => self.fail(Error::new(
                ErrorKind::Internal,
                Origin::Local,
                "the backend took nothing and did not say why",
            )),
            Ok(taken) => {
                if taken == Some(total) && fin != 0 {
                    self.end = Some(End::Clean);
                }
                Ok(taken)
            }
            Err(error) => self.fail(error),
        }
    }

    /// Waits for one of `events`; a direction that failed says why.
    fn wait(&mut self, cx: &Context<'_>, events: u32) -> Poll<Result<()>> {
        if let Some(End::Failed(error)) = &self.end {
            return Poll::Ready(Err(error.clone()));
        }
        self.object.wakers.park(slot::SEND, cx);
        let ready = self.object.ready(events | CLOSED, 0)?;
        if ready == 0 {
            return Poll::Pending;
        }
        match (ready & CLOSED != 0).then(|| self.object.why(Status::OK)).flatten() {
            Some(error) => Poll::Ready(self.fail(error)),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl SendOps for Send {
    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>], flags: WriteFlags) -> Poll<Result<usize>> {
        const PIECES: usize = 64;
        self.check()?;
        self.object.wakers.park(slot::SEND, cx);
        let total = bufs.iter().map(|buf| buf.len()).sum();
        let used = &bufs[..bufs.len().min(PIECES)];
        let part = used.iter().map(|buf| buf.len()).sum();
        let flags = if part < total { WriteFlags::MORE } else { flags };
        // An IoSlice is laid out as struct iovec, and so as mux_iovec.
        match self.write(used.as_ptr().cast(), used.len(), part, flags)? {
            None => Poll::Pending,
            Some(taken) => Poll::Ready(Ok(taken)),
        }
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>, min: usize) -> Poll<()> {
        if self.end.is_some() {
            return Poll::Ready(());
        }
        self.object.wakers.park(slot::SEND, cx);
        match self.object.ready(WRITE, min) {
            Ok(0) => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.wait(cx, DRAINED)
    }

    fn poll_opened(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if !self.capabilities.contains(Capabilities::OPENED) {
            return Poll::Ready(Err(Error::unsupported("the peer does not confirm channels (MUX_CAP_OPENED)")));
        }
        self.wait(cx, OPENED)
    }

    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if matches!(self.end, Some(End::Ours)) {
            return Poll::Ready(Ok(()));
        }
        self.wait(cx, 0)
    }

    fn finish(&mut self) -> Result<()> {
        self.check()?;
        self.write(ptr::null(), 0, 0, WriteFlags::FIN).map(|_| ())
    }

    fn reset(&mut self, code: u64) -> Result<()> {
        match &self.end {
            Some(End::Failed(error)) => return Err(error.clone()),
            Some(End::Ours) => return Err(finished()),
            // What was finished may not be sent yet.
            Some(End::Clean) | None => {}
        }
        if code < codes::LIBRARY_FIRST && !self.capabilities.contains(Capabilities::RESET_CODE) {
            return Err(Error::unsupported("a reset carries no code on this session (MUX_CAP_RESET_CODE)"));
        }
        let reset = self.object.call(|table, place| {
            // SAFETY: as in `write`.
            table.reset.map_or(Status::OK, |reset| unsafe { reset(place, code) })
        })?;
        check(&self.object, reset)?;
        self.end = Some(End::Ours);
        Ok(())
    }

    fn set_priority(&mut self, priority: Priority) {
        // A hint: whoever cannot be told now does without.
        let _ = self.object.call(|table, place| {
            if let Some(set) = table.set_priority {
                // SAFETY: as in `write`.
                unsafe { set(place, u32::from(priority.urgency()) + 1, priority.incremental.into()) }
            }
        });
    }

    fn buffered(&self) -> usize {
        self.object.stats().send_buffered as usize
    }

    fn room(&self) -> usize {
        self.object.stats().send_credit as usize
    }
}
