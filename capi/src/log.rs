//! Exported: what the library has to say. Events go to a ring, from which the application pulls them or a thread of
//! their own calls it: they happen under locks, a callback must not.

use std::collections::VecDeque;
use std::ffi::{CString, c_char, c_void};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::{fmt, thread};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::abi::{mux_log_fn, mux_status, mux_status_code};
use crate::boundary;
use crate::callback;
use crate::platform::SignalsBlocked;
use crate::pointer;
use crate::status::Fault;
use crate::world::world;

/// Events that wait; the oldest give way.
const RING: usize = 1024;

struct Line {
    level: i32,
    target: CString,
    text: CString,
}

#[derive(Clone, Copy)]
struct Callback {
    function: mux_log_fn,
    ctx: *mut c_void,
}

// SAFETY: by the contract of mux_log_callback, the function may be called from a thread of the library with its ctx.
unsafe impl Send for Callback {}

#[derive(Default)]
pub(crate) struct Log {
    lines: VecDeque<Line>,
    callback: Option<Callback>,
    /// The callback runs at this moment.
    calling: bool,
    thread: bool,
}

static LEVEL: AtomicI32 = AtomicI32::new(0);
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// Belongs to a process: what a forked child inherits may be locked for ever.
pub(crate) type Shared = (Mutex<Log>, Condvar);

fn log() -> (MutexGuard<'static, Log>, &'static Condvar) {
    let (lock, changed) = &world().log;
    (lock.lock().unwrap_or_else(PoisonError::into_inner), changed)
}

fn number(level: Level) -> i32 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

/// Takes events of every crate that the library consists of.
struct Collector;

impl Subscriber for Collector {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        // The level can change.
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && number(*metadata.level()) <= LEVEL.load(Ordering::Relaxed)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match LEVEL.load(Ordering::Relaxed) {
            0 => LevelFilter::OFF,
            1 => LevelFilter::ERROR,
            2 => LevelFilter::WARN,
            3 => LevelFilter::INFO,
            4 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        })
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                let gap = if self.0.is_empty() { "" } else { " " };
                let _ = match field.name() {
                    "message" => write!(self.0, "{gap}{value:?}"),
                    name => write!(self.0, "{gap}{name}={value:?}"),
                };
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        let c_text = |text: &str| CString::new(text.replace('\0', " ")).unwrap_or_default();
        let metadata = event.metadata();
        let line = Line { level: number(*metadata.level()), target: c_text(metadata.target()), text: c_text(&text.0) };
        let (mut log, changed) = log();
        if log.lines.len() == RING {
            log.lines.pop_front();
        }
        log.lines.push_back(line);
        drop(log);
        changed.notify_all();
    }
}

/// Calls the application for each line, for as long as it wants that.
fn deliver() {
    let (mut log, changed) = log();
    loop {
        let Some(callback) = log.callback else {
            log.thread = false;
            return;
        };
        let Some(line) = log.lines.pop_front() else {
            log = changed.wait(log).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        log.calling = true;
        drop(log);
        let function = callback.function;
        callback::call(|| {
            if let Some(function) = function {
                // SAFETY: the function and its ctx live until mux_log_callback replaces them, which waits for this call.
                unsafe { function(callback.ctx, line.level, line.target.as_ptr(), line.text.as_ptr()) }
            }
        });
        log = self::log().0;
        log.calling = false;
        changed.notify_all();
    }
}

/// Chooses what is logged: 0 nothing, 1 errors, 2 warnings, 3 information, 4 debugging, 5 everything. What happens from now
/// on is given to fn, from a thread of the library, in order; without fn (NULL) it waits for mux_log_pull. The 1,024 newest
/// lines are kept. Returns when the earlier fn runs no more, so that its ctx may be freed. Before a level was chosen nothing is
/// logged, and nothing is spent on it.
///
/// MUX_EINVAL: another level. MUX_EREENTRANT: from within a callback.
#[unsafe(no_mangle)]
pub extern "C" fn mux_log_callback(level: i32, function: mux_log_fn, ctx: *mut c_void) -> mux_status {
    boundary::status(|| {
        if !(0..=5).contains(&level) {
            return Err(Fault::invalid(format!("level {level}: 0 (off) to 5 (everything) are allowed")));
        }
        callback::may_wait()?;
        let (mut log, changed) = log();
        log.callback = function.is_some().then_some(Callback { function, ctx });
        changed.notify_all();
        while log.calling {
            log = changed.wait(log).unwrap_or_else(PoisonError::into_inner);
        }
        if log.callback.is_some() && !log.thread {
            let _inherited = SignalsBlocked::new();
            let started = thread::Builder::new().name("libmux-log".to_owned()).spawn(deliver);
            log.thread = started.is_ok();
            if let Err(error) = started {
                log.callback = None;
                return Err(libmux::Error::from_io("cannot start a thread", error).into());
            }
        }
        drop(log);
        LEVEL.store(level, Ordering::Relaxed);
        if !INSTALLED.swap(true, Ordering::SeqCst) {
            // Ours alone: the library has a copy of `tracing` to itself.
            let _ = tracing::subscriber::set_global_default(Collector);
        }
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    })
}

/// Takes the oldest line that waits, "target: text", its level to *level, which may be NULL: copies at most cap bytes and
/// returns the full length. MUX_AGAIN: none waits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mux_log_pull(buf: *mut c_char, cap: usize, level: *mut i32) -> i64 {
    boundary::count(|| {
        // SAFETY: by this function's contract, here and below.
        let place = unsafe { pointer::maybe_out(level, "level")? };
        if buf.is_null() && cap > 0 {
            return Err(Fault::invalid("buf is NULL"));
        }
        let line = log().0.lines.pop_front().ok_or(mux_status_code::MUX_AGAIN)?;
        let text = [line.target.as_bytes(), b": ", line.text.as_bytes()].concat();
        if let Some(place) = place {
            place.write(line.level);
        }
        // SAFETY: as above.
        unsafe { pointer::copy_out(&text, true, buf.cast(), cap) }
    })
}
