//! What quinn wakes when a stream takes more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};

use crate::flush::Woken;
use crate::shared::lock;

/// The waker quinn gets for a stream: it wakes the application and, when bytes wait, the flusher. It owns neither the
/// stream nor the session (see [`crate::shared`]).
pub(crate) struct SendWaker {
    pub(crate) application: Mutex<Option<Waker>>,
    stream: u64,
    /// Bytes wait for quinn.
    pub(crate) waiting: AtomicBool,
    /// A write waits for quinn, and has left nothing here.
    pub(crate) blocked: AtomicBool,
    woken: Arc<Woken>,
}

impl SendWaker {
    pub(crate) fn new(stream: u64, woken: Arc<Woken>) -> Self {
        Self {
            application: Mutex::new(None),
            stream,
            waiting: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            woken,
        }
    }

    pub(crate) fn wake_application(&self) {
        let waker = lock(&self.application).take();
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Wake for SendWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.blocked.store(false, Ordering::Release);
        if self.waiting.load(Ordering::Acquire) {
            self.woken.add(self.stream);
        }
        self.wake_application();
    }
}
