//! Many waiters on one waker: a backend remembers a single waker, an application may wait from many tasks.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use slab::Slab;

/// A set of sleeping tasks behind one [`Waker`], which wakes them all. A cancelled waiter leaves nothing behind.
#[derive(Debug, Default)]
pub struct WaitList {
    sleepers: Mutex<Slab<Waker>>,
}

impl WaitList {
    /// Waits until `poll`, called with this list's own waker, is ready.
    ///
    /// # Cancel safety
    /// Cancel-safe if `poll` takes nothing unless it is ready.
    pub(crate) fn wait<T, F>(self: &Arc<Self>, poll: F) -> Wait<F>
    where
        F: FnMut(&mut Context<'_>) -> Poll<T> + Unpin,
    {
        Wait { list: Arc::clone(self), key: None, poll }
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Waker>> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.lock().len()
    }
}

impl Wake for WaitList {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let sleepers: Vec<Waker> = self.lock().iter().map(|(_, waker)| waker.clone()).collect();
        sleepers.into_iter().for_each(Waker::wake);
    }
}

pub(crate) struct Wait<F> {
    list: Arc<WaitList>,
    key: Option<usize>,
    poll: F,
}

impl<T, F> Future for Wait<F>
where
    F: FnMut(&mut Context<'_>) -> Poll<T> + Unpin,
{
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let this = &mut *self;
        let shared = Waker::from(Arc::clone(&this.list));
        let mut shared = Context::from_waker(&shared);
        if this.key.is_none()
            && let ready @ Poll::Ready(_) = (this.poll)(&mut shared)
        {
            return ready;
        }
        // Register first, then look again: an event between the two looks wakes this task.
        {
            let mut sleepers = this.list.lock();
            match this.key.and_then(|key| sleepers.get_mut(key)) {
                Some(waker) => waker.clone_from(cx.waker()),
                None => this.key = Some(sleepers.insert(cx.waker().clone())),
            }
        }
        (this.poll)(&mut shared)
    }
}

impl<F> Drop for Wait<F> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.list.lock().try_remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn one_event_wakes_every_waiter_and_cancelling_leaves_nothing() {
        let list = Arc::new(WaitList::default());
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let mut waits: Vec<_> = (0..3).map(|_| list.wait(|_| Poll::<()>::Pending)).collect();
        for wait in &mut waits {
            assert!(Pin::new(wait).poll(&mut cx).is_pending());
        }
        Waker::from(Arc::clone(&list)).wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 3);
        drop(waits);
        assert_eq!(list.len(), 0);
    }
}
