//! The kernel: a futex, and event descriptors with those who poll them.

use std::cell::RefCell;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use crate::sync::{AtomicU32, Condvar, Mutex, Ordering};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slept {
    Woken,
    TimedOut,
    Interrupted,
}

#[derive(Default)]
struct Kernel {
    /// Held while the kernel compares a futex's word or wakes its sleepers.
    bucket: Mutex<()>,
    sleepers: Condvar,
    descriptors: RefCell<Vec<Rc<Descriptor>>>,
}

#[derive(Default)]
struct Descriptor {
    state: Mutex<EventCount>,
    changed: Condvar,
}

#[derive(Default)]
struct EventCount {
    count: u64,
    /// Writes that no edge-triggered poller has seen.
    edges: u64,
}

thread_local! {
    // loom's threads take turns on one thread of the system: this is what all of them share in one run.
    static KERNEL: RefCell<Option<Rc<Kernel>>> = const { RefCell::new(None) };
}

fn kernel() -> Rc<Kernel> {
    KERNEL.with_borrow_mut(|kernel| Rc::clone(kernel.get_or_insert_default()))
}

pub(crate) fn shut_down() {
    KERNEL.take();
}

/// Looking longer changes nothing that a model could see.
#[derive(Default)]
pub(crate) struct Patience;

impl Patience {
    pub(crate) fn expect_answer(&self) {}

    pub(crate) fn look(&self, _word: &AtomicU32, _seen: u32) -> bool {
        false
    }
}

pub(crate) fn sleep(word: &AtomicU32, expected: u32, limit: Option<Duration>) -> Slept {
    assert_eq!(limit, None, "nothing here may depend on time");
    let kernel = kernel();
    let held = kernel.bucket.lock().expect("not poisoned");
    if word.load(Ordering::SeqCst) == expected {
        drop(kernel.sleepers.wait(held).expect("not poisoned"));
    }
    Slept::Woken
}

pub(crate) fn wake_all(_word: &AtomicU32) {
    let kernel = kernel();
    // Sleepers on other words wake too, which a futex allows.
    let _held = kernel.bucket.lock().expect("not poisoned");
    kernel.sleepers.notify_all();
}

#[derive(Debug)]
pub(crate) struct EventFd(RawFd);

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

fn descriptor(fd: RawFd) -> Rc<Descriptor> {
    Rc::clone(&kernel().descriptors.borrow()[fd as usize])
}

pub(crate) fn event_fd() -> std::io::Result<EventFd> {
    let kernel = kernel();
    let made = Rc::new(Descriptor::default());
    let mut descriptors = kernel.descriptors.borrow_mut();
    descriptors.push(made);
    Ok(EventFd(descriptors.len() as RawFd - 1))
}

pub(crate) fn raise(fd: RawFd) {
    let descriptor = descriptor(fd);
    let mut state = descriptor.state.lock().expect("not poisoned");
    state.count += 1;
    state.edges += 1;
    descriptor.changed.notify_all();
}

pub(crate) fn lower(fd: &EventFd) {
    descriptor(fd.0).state.lock().expect("not poisoned").count = 0;
}

pub(crate) fn is_readable(fd: RawFd) -> bool {
    descriptor(fd).state.lock().expect("not poisoned").count > 0
}

/// poll(2) without a limit.
pub(crate) fn poll_level(fd: RawFd) {
    let descriptor = descriptor(fd);
    let mut state = descriptor.state.lock().expect("not poisoned");
    while state.count == 0 {
        state = descriptor.changed.wait(state).expect("not poisoned");
    }
}

/// epoll_wait(2) without a limit on a descriptor that was added with EPOLLET.
pub(crate) fn poll_edge(fd: RawFd) {
    let descriptor = descriptor(fd);
    let mut state = descriptor.state.lock().expect("not poisoned");
    while state.edges == 0 {
        state = descriptor.changed.wait(state).expect("not poisoned");
    }
    state.edges = 0;
}
