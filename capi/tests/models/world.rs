//! Objects that are watched: each counts bytes that wait, and wakes its hub when the first one comes.

use std::cell::RefCell;
use std::sync::Arc;
use std::task::Waker;

use crate::abi::{mux_handle, mux_status_code};
use crate::hub::{Hub, Side};
use crate::platform;
use crate::queue::Waitable;
use crate::status::Fault;
use crate::sync::Mutex;

pub(crate) const READ: u32 = 8;

pub(crate) struct Object {
    pub(crate) hub: Arc<Hub>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bytes: u32,
    waker: Option<Waker>,
}

thread_local! {
    // As platform::KERNEL.
    static OBJECTS: RefCell<Vec<Option<Arc<Object>>>> = const { RefCell::new(Vec::new()) };
}

impl Object {
    pub(crate) fn new() -> Arc<Self> {
        let object = Arc::new(Self { hub: Arc::default(), state: Mutex::default() });
        OBJECTS.with_borrow_mut(|objects| {
            objects.push(Some(Arc::clone(&object)));
            object.hub.set_handle(objects.len() as mux_handle);
        });
        object
    }

    /// A byte arrives.
    pub(crate) fn feed(&self) {
        let mut state = self.state.lock().expect("not poisoned");
        state.bytes += 1;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes what has arrived.
    pub(crate) fn read(&self) -> u32 {
        std::mem::take(&mut self.state.lock().expect("not poisoned").bytes)
    }

    /// As mux_close.
    pub(crate) fn close(&self) {
        OBJECTS.with_borrow_mut(|objects| objects[self.hub.handle() as usize - 1] = None);
        self.hub.end();
    }

    pub(crate) fn waitable(&self) -> Option<&dyn Waitable> {
        Some(self)
    }
}

impl Waitable for Object {
    fn hub(&self) -> &Hub {
        &self.hub
    }

    fn sides(&self) -> [u32; 2] {
        [READ, 0]
    }

    fn ready(&self, side: Side, wanted: u32) -> u32 {
        let mut state = self.state.lock().expect("not poisoned");
        if state.bytes > 0 {
            return wanted & READ;
        }
        state.waker = Some(self.hub.waker(side));
        0
    }
}

pub(crate) fn pin(handle: mux_handle) -> Result<Arc<Object>, Fault> {
    let found = OBJECTS.with_borrow(|objects| objects[handle as usize - 1].clone());
    found.ok_or_else(|| mux_status_code::MUX_EHANDLE.into())
}

/// The end of a run.
pub(crate) fn clear() {
    drop(OBJECTS.take());
    platform::shut_down();
}
