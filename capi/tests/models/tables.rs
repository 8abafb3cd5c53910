//! Who looks up, closes and reuses slots of the handle table at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering as Plain};

use loom::thread;

use crate::explore;
use crate::handle::Table;
use crate::sync::{AtomicU32, Ordering};

/// Counts how often one was freed, and can be asked whether it was.
struct Counted {
    name: u32,
    alive: AtomicU32,
    freed: Arc<AtomicUsize>,
}

impl Counted {
    fn new(name: u32, freed: &Arc<AtomicUsize>) -> Self {
        Self { name, alive: AtomicU32::new(1), freed: Arc::clone(freed) }
    }

    fn check(&self, name: u32) {
        assert_eq!(self.name, name, "the object of another handle");
        assert_eq!(self.alive.load(Ordering::SeqCst), 1, "freed while it is pinned");
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.alive.store(0, Ordering::SeqCst);
        self.freed.fetch_add(1, Plain::SeqCst);
    }
}

fn table() -> &'static Table<Counted> {
    // Small, and taken down with loom's run.
    Box::leak(Box::new(Table::new(0)))
}

#[test]
fn an_object_is_freed_once_and_not_under_a_pin() {
    explore(3, || {
        let (table, freed) = (table(), Arc::default());
        let handle = table.insert(1, |_| Counted::new(7, &freed)).expect("room");
        let users: Vec<_> = (0..2)
            .map(|_| {
                thread::spawn(move || {
                    if let Ok(pinned) = table.pin(handle) {
                        pinned.check(7);
                        pinned.check(7);
                    }
                })
            })
            .collect();
        table.close(handle).expect("nobody else closes").check(7);
        assert!(table.pin(handle).is_err(), "dead on return");
        users.into_iter().for_each(|user| user.join().expect("no panic"));
        assert_eq!((freed.load(Plain::SeqCst), table.live()), (1, 0));
    });
}

#[test]
fn of_two_closes_one_succeeds() {
    explore(3, || {
        let (table, freed) = (table(), Arc::default());
        let handle = table.insert(1, |_| Counted::new(7, &freed)).expect("room");
        let other = thread::spawn(move || table.close(handle).is_ok());
        let mine = table.close(handle).is_ok();
        assert!(other.join().expect("no panic") != mine);
        assert_eq!((freed.load(Plain::SeqCst), table.live()), (1, 0));
    });
}

#[test]
fn a_stale_handle_never_finds_what_took_its_slot() {
    explore(3, || {
        let (table, freed) = (table(), Arc::default());
        let first = table.insert(1, |_| Counted::new(1, &freed)).expect("room");
        let stale = thread::spawn(move || {
            for _ in 0..2 {
                if let Ok(pinned) = table.pin(first) {
                    pinned.check(1);
                }
            }
        });
        drop(table.close(first).expect("nobody else closes"));
        let second = table.insert(1, |_| Counted::new(2, &freed)).expect("room");
        assert_ne!(first, second);
        table.pin(second).expect("open").check(2);
        stale.join().expect("no panic");
        table.pin(second).expect("still open").check(2);
        drop(table.close(second).expect("open"));
        assert_eq!((freed.load(Plain::SeqCst), table.live()), (2, 0));
        let third = table.insert(1, |_| Counted::new(3, &freed)).expect("room");
        assert!([first as u32, second as u32].contains(&(third as u32)), "slots are reused");
    });
}
