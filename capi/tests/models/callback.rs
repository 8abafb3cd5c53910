//! Calls into the application, as outside of any call of the application: at once.

use std::sync::Arc;

use crate::queue::Queue;
use crate::status::Fault;

pub(crate) fn call<T>(function: impl FnOnce() -> T) -> T {
    function()
}

pub(crate) fn may_wait() -> Result<(), Fault> {
    Ok(())
}

pub(crate) fn flush() {}

pub(crate) fn announce(queue: Arc<Queue>) {
    queue.announce_now();
}
