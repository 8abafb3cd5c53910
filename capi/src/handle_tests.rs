//! The handle table from the outside: what handles mean, and when objects go. `tests/models` has its races.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::handle::{LAST_GENERATION, Table};
use crate::status::Fault;

fn table<T: Send + Sync>(base: u32) -> &'static Table<T> {
    Box::leak(Box::new(Table::new(base)))
}

fn code<T>(result: Result<T, Fault>) -> i32 {
    result.map_or_else(|fault| fault.status(), |_| 0)
}

#[test]
fn a_closed_handle_is_dead_and_stays_dead_when_its_slot_is_reused() {
    let table = table(0);
    let first = table.insert(5, |_| "first").expect("room");
    assert_eq!(*table.pin(first).expect("live"), "first");
    drop(table.close(first).expect("live"));
    assert_eq!(code(table.close(first)), -16);
    let second = table.insert(5, |_| "second").expect("room");
    assert_eq!(first as u32, second as u32, "the slot is reused");
    assert_eq!(code(table.pin(first)), -16);
    assert_eq!(*table.pin(second).expect("live"), "second");
    assert_eq!(table.live(), 1);
}

#[test]
fn the_object_goes_with_the_last_pin() {
    let table = table(0);
    let object = Arc::new(());
    let handle = table.insert(1, |_| Arc::clone(&object)).expect("room");
    let pinned = table.pin(handle).expect("live");
    drop(table.close(handle).expect("live"));
    assert_eq!(Arc::strong_count(&object), 2);
    assert_eq!(code(table.pin(handle)), -16);
    drop(pinned);
    assert_eq!(Arc::strong_count(&object), 1);
}

#[test]
fn slots_are_reused_in_the_order_they_became_free() {
    let table = table(0);
    let handles: Vec<_> = (0..600).map(|n| table.insert(2, |_| n).expect("room")).collect();
    assert!(handles.iter().enumerate().all(|(n, handle)| *table.pin(*handle).expect("live") == n));
    for handle in [handles[7], handles[3], handles[500]] {
        drop(table.close(handle).expect("live"));
    }
    let again: Vec<_> = (0..3).map(|n| table.insert(2, |_| n).expect("room") as u32).collect();
    assert_eq!(again, [7, 3, 500]);
}

#[test]
fn a_slot_without_generations_left_is_retired() {
    let table = table(0);
    let handle = table.insert(1, |_| ()).expect("room");
    drop(table.close(handle).expect("live"));
    table.slot(0).expect("used").state.store(LAST_GENERATION << 32, Ordering::Relaxed);
    let last = table.insert(1, |_| ()).expect("room");
    assert_eq!(last as u32, 0);
    drop(table.close(last).expect("live"));
    assert_eq!(table.insert(1, |_| ()).expect("room") as u32, 1);
}

#[test]
fn inherited_handles_are_told_from_wrong_ones() {
    let parent = table(0);
    let inherited = parent.insert(4, |_| ()).expect("room");
    let child = table(parent.end());
    let own = child.insert(4, |_| ()).expect("room");
    assert_eq!(code(child.pin(inherited)), -21);
    assert_eq!(code(child.pin(own)), 0);
    assert_eq!(code(child.pin(0)), -16);
}

#[test]
fn random_numbers_are_not_handles() {
    let table = table(0);
    let handle = table.insert(3, |_| ()).expect("room");
    for wrong in [0, 1, u64::MAX, handle | 1 << 63, handle ^ 1 << 58, handle ^ 1 << 32, handle + 1] {
        assert_eq!(code(table.pin(wrong)), -16, "{wrong:x}");
    }
}

#[test]
fn closing_races_free_each_object_once() {
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    const ROUNDS: usize = 500;
    let table = table::<Counted>(0);
    let freed = Arc::new(AtomicUsize::new(0));
    let current = Arc::new(AtomicU64::new(0));
    let closes = Arc::new(AtomicUsize::new(0));
    let stop = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let (current, closes, stop) = (Arc::clone(&current), Arc::clone(&closes), Arc::clone(&stop));
            std::thread::spawn(move || {
                while stop.load(Ordering::Relaxed) == 0 {
                    let handle = current.load(Ordering::Relaxed);
                    if let Ok(pinned) = table.pin(handle) {
                        assert!(Arc::strong_count(&pinned.0) > 0);
                    }
                    if table.close(handle).is_ok() {
                        closes.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    for _ in 0..ROUNDS {
        let handle = table.insert(5, |_| Counted(Arc::clone(&freed))).expect("room");
        current.store(handle, Ordering::Relaxed);
        while table.pin(handle).is_ok() {
            std::thread::yield_now();
        }
    }
    stop.store(1, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    assert_eq!((closes.load(Ordering::Relaxed), freed.load(Ordering::Relaxed)), (ROUNDS, ROUNDS));
    assert_eq!(table.live(), 0);
}
