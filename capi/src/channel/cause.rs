//! Why a channel ended: what is kept, and what is told.

use std::sync::atomic::{AtomicBool, Ordering};

use libmux::{Error, ErrorKind};

use super::Channel;
use crate::hub::Side;
use crate::status::Fault;

impl Channel {
    /// The failure of one direction, or why its session ended; `None` while it lives and after a clean end.
    pub(crate) fn cause_of(&self, side: Side) -> Option<Error> {
        if let Some(cause) = self.causes[side as usize].get() {
            return Some(cause.clone());
        }
        let over = if side == Side::Recv { &self.recv_over } else { &self.send_over };
        if over.load(Ordering::SeqCst) { None } else { self.end_of_session() }
    }

    /// A session ends a moment after its handle was closed.
    fn end_of_session(&self) -> Option<Error> {
        self.session.cause().or_else(|| self.check_session().err().map(|_| Error::closed_locally()))
    }

    /// The first failure of the channel, or why its session ended; `None` while it lives and after a clean end.
    pub(crate) fn cause(&self) -> Option<Error> {
        if let Some(cause) = self.cause.get() {
            return Some(cause.clone());
        }
        let both_over = self.recv_over.load(Ordering::SeqCst) && self.send_over.load(Ordering::SeqCst);
        if both_over {
            return None;
        }
        self.end_of_session()
    }

    pub(super) fn recv_failed(&self, error: Error) -> Fault {
        let error = self.explain(error, &self.ended_recv);
        if self.note(Side::Recv, &error) {
            self.recv_is_over();
        }
        error.into()
    }

    pub(super) fn send_failed(&self, error: Error) -> Fault {
        let error = self.explain(error, &self.ended_send);
        if self.note(Side::Send, &error) {
            self.send_is_over();
        }
        error.into()
    }

    /// A direction that was ended, but not by the application, was ended by the close of its session.
    pub(super) fn explain(&self, error: Error, ended: &AtomicBool) -> Error {
        if error.kind() != ErrorKind::Finished || ended.load(Ordering::SeqCst) {
            return error;
        }
        // Or by that of its own handle, while this call was under way.
        if self.hub.has_ended() {
            return Error::closed_locally();
        }
        self.session.cause().unwrap_or(error)
    }

    /// Keeps the first failure. An argument mistake is none, nor is using a direction that the application ended.
    pub(super) fn note(&self, side: Side, error: &Error) -> bool {
        let mistake = matches!(
            error.kind(),
            ErrorKind::Blocked
                | ErrorKind::InvalidInput
                | ErrorKind::InvalidState
                | ErrorKind::Unsupported
                | ErrorKind::Finished
                | ErrorKind::TooBig
        );
        if !mistake {
            self.cause.get_or_init(|| error.clone());
            self.causes[side as usize].get_or_init(|| error.clone());
        }
        !mistake
    }
}
