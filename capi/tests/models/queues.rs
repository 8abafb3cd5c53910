//! Who feeds, watches, polls, takes, closes at the same time, and what none of them may miss.

use std::ffi::c_void;
use std::sync::Arc;

use loom::thread;

use crate::abi::mux_event;
use crate::deadline::Deadline;
use crate::explore;
use crate::hub::Side;
use crate::platform;
use crate::queue::{Queue, Waitable};
use crate::status::Fault;
use crate::sync::{AtomicU32, Condvar, Mutex, Ordering};
use crate::world::{Object, READ};

const ONESHOT: bool = false;
const LEVEL: bool = true;
const AGAIN: i32 = -1;

fn queue() -> Arc<Queue> {
    Arc::new(Queue::new())
}

fn watch(queue: &Arc<Queue>, object: &Object, level: bool, user: u64) {
    queue.watch(object, Side::Recv, READ, level, user);
}

fn next(queue: &Arc<Queue>, max: usize, deadline: Deadline) -> Result<Vec<mux_event>, Fault> {
    let mut events = Vec::new();
    let count = queue.next(max, deadline, |event| events.push(event))?;
    assert_eq!(count as usize, events.len());
    Ok(events)
}

fn users(events: &[mux_event]) -> Vec<u64> {
    events.iter().map(|event| event.user).collect()
}

/// What is there now.
fn now(queue: &Arc<Queue>, max: usize) -> Vec<u64> {
    match next(queue, max, Deadline::NoWait) {
        Ok(events) => users(&events),
        Err(fault) => {
            assert_eq!(fault.status(), AGAIN);
            Vec::new()
        }
    }
}

#[test]
fn a_sleeper_misses_no_byte_with_one_shot_watches() {
    explore(3, || {
        let (queue, object) = (queue(), Object::new());
        let producer = thread::spawn({
            let object = Arc::clone(&object);
            move || (0..2).for_each(|_| object.feed())
        });
        let mut got = 0;
        while got < 2 {
            watch(&queue, &object, ONESHOT, 7);
            let events = next(&queue, 2, Deadline::Never).expect("the next byte wakes the queue");
            assert_eq!(users(&events), [7]);
            got += object.read();
        }
        producer.join().expect("no panic");
        assert_eq!(now(&queue, 2), [0; 0], "one-shot: over with its report");
    });
}

#[test]
fn a_sleeper_misses_no_byte_with_a_level_watch() {
    explore(3, || {
        let (queue, object) = (queue(), Object::new());
        watch(&queue, &object, LEVEL, 7);
        let producer = thread::spawn({
            let object = Arc::clone(&object);
            move || (0..2).for_each(|_| object.feed())
        });
        let mut got = 0;
        while got < 2 {
            let events = next(&queue, 2, Deadline::Never).expect("a byte wakes the queue");
            assert_eq!(users(&events), [7]);
            got += object.read();
        }
        producer.join().expect("no panic");
        assert_eq!(now(&queue, 2), [0; 0]);
        object.feed();
        assert_eq!(now(&queue, 2), [7]);
        assert_eq!(now(&queue, 2), [7], "level: as long as it holds");
    });
}

#[test]
fn who_lets_go_of_an_object_leaves_the_watch_of_another_queue() {
    explore(3, || {
        let (before, after, object) = (queue(), queue(), Object::new());
        watch(&before, &object, ONESHOT, 1);
        let leaver = thread::spawn({
            let (before, object) = (Arc::clone(&before), Arc::clone(&object));
            move || object.hub().unwatch_from(&before)
        });
        watch(&after, &object, ONESHOT, 2);
        leaver.join().expect("no panic");
        object.feed();
        assert_eq!((now(&before, 2), now(&after, 2)), (vec![], vec![2]));
    });
}

/// Reads what is fed to both objects; after each `sleep` it takes all reports that are there.
fn misses_no_byte(queue: &Arc<Queue>, objects: &[Arc<Object>; 2], sleep: impl Fn()) {
    for (user, object) in objects.iter().enumerate() {
        watch(queue, object, ONESHOT, user as u64);
    }
    let producer = thread::spawn({
        let objects = objects.clone();
        move || objects.iter().for_each(|object| object.feed())
    });
    let mut got = 0;
    while got < 2 {
        sleep();
        loop {
            let reported = now(queue, 2);
            got += reported.iter().map(|user| objects[*user as usize].read()).sum::<u32>();
            if reported.len() < 2 {
                break;
            }
        }
    }
    producer.join().expect("no panic");
}

#[test]
fn an_edge_triggered_poller_misses_no_byte() {
    explore(2, || {
        let (queue, objects) = (queue(), [Object::new(), Object::new()]);
        let fd = queue.fd().expect("modelled") as i32;
        misses_no_byte(&queue, &objects, || platform::poll_edge(fd));
    });
}

#[test]
fn a_level_triggered_poller_misses_no_byte_and_comes_to_rest() {
    for level in [ONESHOT, LEVEL] {
        explore(2, move || {
            let (queue, objects) = (queue(), [Object::new(), Object::new()]);
            let fd = queue.fd().expect("modelled") as i32;
            for (user, object) in objects.iter().enumerate() {
                watch(&queue, object, level, user as u64);
            }
            let producer = thread::spawn({
                let objects = objects.clone();
                move || objects.iter().for_each(|object| object.feed())
            });
            let mut got = 0;
            while got < 2 {
                platform::poll_level(fd);
                let reported = now(&queue, 1);
                got += reported.iter().map(|user| objects[*user as usize].read()).sum::<u32>();
            }
            producer.join().expect("no panic");
            assert_eq!(now(&queue, 2), [0; 0]);
            assert!(!platform::is_readable(fd), "nothing is left to do");
        });
    }
}

#[test]
fn two_takers_get_each_one_shot_report_once() {
    explore(2, || {
        let (queue, object) = (queue(), Object::new());
        watch(&queue, &object, ONESHOT, 7);
        let reports = Arc::new(AtomicU32::new(0));
        let taker = thread::spawn({
            let (queue, reports) = (Arc::clone(&queue), Arc::clone(&reports));
            move || {
                let events = next(&queue, 1, Deadline::Never).expect("no failure");
                reports.fetch_add(events.len() as u32, Ordering::SeqCst);
            }
        });
        object.feed();
        reports.fetch_add(now(&queue, 1).len() as u32, Ordering::SeqCst);
        // Whoever got nothing is let go.
        queue.wake();
        taker.join().expect("no panic");
        assert_eq!(reports.load(Ordering::SeqCst) + now(&queue, 1).len() as u32, 1);
    });
}

#[test]
fn a_wake_ends_one_next_and_keeps_the_events() {
    explore(2, || {
        let (queue, object) = (queue(), Object::new());
        let fd = queue.fd().expect("modelled") as i32;
        watch(&queue, &object, ONESHOT, 7);
        let waker = thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.wake()
        });
        let feeder = thread::spawn(move || object.feed());
        let (mut wakes, mut events) = (0, 0);
        while wakes + events < 2 {
            platform::poll_level(fd);
            match next(&queue, 1, Deadline::NoWait) {
                Ok(none) if none.is_empty() => wakes += 1,
                Ok(some) => events += some.len(),
                Err(fault) => assert_eq!(fault.status(), AGAIN),
            }
        }
        assert_eq!((wakes, events), (1, 1));
        waker.join().expect("no panic");
        feeder.join().expect("no panic");
        assert_eq!(now(&queue, 1), [0; 0]);
        assert!(!platform::is_readable(fd));
    });
}

#[test]
fn closing_or_interrupting_a_queue_ends_its_sleepers() {
    for close in [true, false] {
        explore(3, move || {
            let queue = queue();
            let sleeper = thread::spawn({
                let queue = Arc::clone(&queue);
                move || next(&queue, 1, Deadline::Never).err().map(|fault| fault.status())
            });
            if close {
                queue.end();
            } else {
                queue.interrupt();
            }
            assert_eq!(sleeper.join().expect("no panic"), Some(if close { -67 } else { -4 }));
        });
    }
}

#[test]
fn a_closed_object_is_not_reported_and_lets_its_queue_go() {
    explore(3, || {
        let (queue, object) = (queue(), Object::new());
        let feeder = thread::spawn({
            let object = Arc::clone(&object);
            move || object.feed()
        });
        let watcher = thread::spawn({
            let (queue, object) = (Arc::clone(&queue), Arc::clone(&object));
            move || watch(&queue, &object, LEVEL, 7)
        });
        object.close();
        feeder.join().expect("no panic");
        watcher.join().expect("no panic");
        assert_eq!(now(&queue, 1), [0; 0]);
        queue.release();
        drop(object);
        crate::world::clear();
        assert_eq!(Arc::strong_count(&queue), 1, "no record keeps it");
    });
}

#[test]
fn a_watch_that_moves_between_queues_reports_in_the_last_one() {
    explore(2, || {
        let (first, second, object) = (queue(), queue(), Object::new());
        watch(&first, &object, LEVEL, 1);
        let feeder = thread::spawn({
            let object = Arc::clone(&object);
            move || object.feed()
        });
        let taker = thread::spawn({
            let first = Arc::clone(&first);
            move || assert!(now(&first, 1).iter().all(|user| *user == 1))
        });
        watch(&second, &object, LEVEL, 2);
        assert_eq!(users(&next(&second, 1, Deadline::Never).expect("fed")), [2]);
        feeder.join().expect("no panic");
        taker.join().expect("no panic");
        assert_eq!(now(&first, 1), [0; 0]);
        assert_eq!(now(&second, 1), [2]);
    });
}

/// What an application's waker works on.
struct Loop {
    calls: Mutex<u32>,
    called: Condvar,
    /// The function may run no more.
    freed: AtomicU32,
}

impl Loop {
    fn new() -> Arc<Self> {
        Arc::new(Self { calls: Mutex::new(0), called: Condvar::new(), freed: AtomicU32::new(0) })
    }

    fn ctx(self: &Arc<Self>) -> *mut c_void {
        Arc::as_ptr(self).cast_mut().cast()
    }

    fn sleep(&self) {
        let mut calls = self.calls.lock().expect("not poisoned");
        while *calls == 0 {
            calls = self.called.wait(calls).expect("not poisoned");
        }
        *calls = 0;
    }
}

unsafe extern "C" fn on_ready(ctx: *mut c_void) {
    // SAFETY: the loop outlives the queue's waker in every test here.
    let it = unsafe { &*ctx.cast::<Loop>() };
    assert_eq!(it.freed.load(Ordering::SeqCst), 0, "called after it was replaced");
    *it.calls.lock().expect("not poisoned") += 1;
    it.called.notify_all();
    assert_eq!(it.freed.load(Ordering::SeqCst), 0, "replaced while it runs");
}

#[test]
fn a_loop_that_sleeps_until_its_waker_runs_misses_no_byte() {
    explore(2, || {
        let (queue, objects, events) = (queue(), [Object::new(), Object::new()], Loop::new());
        queue.set_waker(Some(on_ready), events.ctx()).expect("not in a callback");
        misses_no_byte(&queue, &objects, || events.sleep());
    });
}

#[test]
fn a_replaced_waker_runs_no_more() {
    explore(3, || {
        let (queue, object, events) = (queue(), Object::new(), Loop::new());
        queue.set_waker(Some(on_ready), events.ctx()).expect("not in a callback");
        watch(&queue, &object, ONESHOT, 7);
        let producer = thread::spawn({
            let object = Arc::clone(&object);
            move || object.feed()
        });
        queue.set_waker(None, std::ptr::null_mut()).expect("not in a callback");
        events.freed.store(1, Ordering::SeqCst);
        producer.join().expect("no panic");
        assert_eq!(now(&queue, 1), [7]);
    });
}

#[test]
fn a_waker_is_told_of_what_came_while_it_was_set() {
    explore(3, || {
        let (queue, object, events) = (queue(), Object::new(), Loop::new());
        watch(&queue, &object, ONESHOT, 7);
        let producer = thread::spawn({
            let object = Arc::clone(&object);
            move || object.feed()
        });
        queue.set_waker(Some(on_ready), events.ctx()).expect("not in a callback");
        events.sleep();
        assert_eq!(now(&queue, 1), [7]);
        producer.join().expect("no panic");
    });
}
