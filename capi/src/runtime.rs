//! The threads that drive sessions. Calls of the application do not need them, except to dial and to listen.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use libmux::{Error, ErrorKind, Origin};
use tokio::runtime::{Builder, Handle};
use tokio::task::AbortHandle;

use crate::abi::{mux_runtime, mux_runtime_opts, mux_status, mux_status_code};
use crate::boundary;
use crate::deadline::Deadline;
use crate::hub::Signal;
use crate::platform::SignalsBlocked;
use crate::pointer;
use crate::status::Fault;
use crate::world::{self, Object, world};

/// How long the end of a runtime waits for its threads once nothing is left to flush. Only a name lookup can hold one.
const JOIN: Duration = Duration::from_secs(2);

pub(crate) struct Runtime {
    tokio: Mutex<Option<tokio::runtime::Runtime>>,
    handle: Handle,
    stopping: AtomicBool,
    /// Closed sessions that still flush.
    lingering: AtomicUsize,
    lingered: Signal,
}

/// A future on its way, or what it came to at the first look.
pub(crate) type Started<T> = Result<T, Pin<Box<dyn Future<Output = T> + Send>>>;

impl Runtime {
    fn new(threads: u32, name: &str) -> Result<Arc<Self>, Fault> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if threads == 0 { cores.min(4) } else { threads as usize };
        // Threads inherit the mask: the host's signal handlers run on the host's threads only.
        let _inherited = SignalsBlocked::new();
        let tokio = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name(name)
            // Threads for name lookups start late, perhaps from a thread of the host; they keep their mask to the end.
            .on_thread_start(|| std::mem::forget(SignalsBlocked::new()))
            .enable_all()
            .build()
            .map_err(|error| Error::from_io("cannot start the runtime's threads", error))?;
        Ok(Arc::new(Self {
            handle: tokio.handle().clone(),
            tokio: Mutex::new(Some(tokio)),
            stopping: AtomicBool::new(false),
            lingering: AtomicUsize::new(0),
            lingered: Signal::default(),
        }))
    }

    /// The default runtime, started if need be.
    pub(crate) fn default() -> Result<Arc<Self>, Fault> {
        let mut default = world().default_runtime.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = &*default {
            return Ok(Arc::clone(runtime));
        }
        let runtime = Self::new(0, "libmux")?;
        *default = Some(Arc::clone(&runtime));
        Ok(runtime)
    }

    /// The runtime of a handle, the default one for 0.
    pub(crate) fn of(handle: mux_runtime) -> Result<Arc<Self>, Fault> {
        if handle.h == 0 {
            return Self::default();
        }
        let runtime = world::runtime(handle.h)?;
        Ok(Arc::clone(&runtime))
    }

    /// Refuses new work once the end has begun.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        if self.stopping.load(Ordering::SeqCst) {
            let message = "the runtime is being shut down".to_owned();
            return Err(Fault::Said(mux_status_code::MUX_ESTATE, message));
        }
        Ok(())
    }

    /// Looks once at a future here, in the caller's thread: what can be said at once needs no other thread.
    pub(crate) fn start<T>(&self, future: impl Future<Output = T> + Send + 'static) -> Started<T> {
        let mut future: Pin<Box<dyn Future<Output = T> + Send>> = Box::pin(future);
        let _inherited = SignalsBlocked::new();
        let _context = self.handle.enter();
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => Ok(result),
            Poll::Pending => Err(future),
        }
    }

    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.handle.spawn(future).abort_handle()
    }

    /// For backend calls that may start a task.
    pub(crate) fn enter(&self) -> tokio::runtime::EnterGuard<'_> {
        self.handle.enter()
    }

    /// Counts as work that a shutdown waits for, until it is dropped.
    pub(crate) fn lingering(self: &Arc<Self>) -> Lingering {
        self.lingering.fetch_add(1, Ordering::SeqCst);
        Lingering(Arc::clone(self))
    }

    fn shut_down(self: &Arc<Self>, mut deadline: Deadline) -> Result<(), Fault> {
        self.stopping.store(true, Ordering::SeqCst);
        self.close_handles();
        let flushed =
            self.lingered.wait(&mut deadline, || Ok((self.lingering.load(Ordering::SeqCst) == 0).then_some(())));
        if let Err(Fault::Plain(mux_status_code::MUX_EINTR)) = &flushed {
            // Nothing is lost: the call can be repeated.
            return flushed;
        }
        if let Some(tokio) = self.lock().take() {
            tokio.shutdown_timeout(JOIN);
        }
        flushed.map_err(|_| mux_status_code::MUX_TIMEDOUT.into())
    }

    /// Closes what belongs to this runtime: sessions first, so that channels nobody finished end as reset.
    fn close_handles(self: &Arc<Self>) {
        let handles = world().table.handles();
        for sessions in [true, false] {
            for handle in &handles {
                let mine = world::pin(*handle).is_ok_and(|object| match &*object {
                    Object::Session(session) => sessions && Arc::ptr_eq(&session.runtime, self),
                    Object::Listener(listener) => sessions && Arc::ptr_eq(&listener.runtime, self),
                    Object::Channel(channel) => !sessions && Arc::ptr_eq(&channel.session.runtime, self),
                    Object::Runtime(_) | Object::Config(_) | Object::Queue(_) | Object::Borrow(_) => false,
                });
                // Somebody else may close it between the two looks; then it is closed.
                if mine && let Ok(object) = world().table.close(*handle) {
                    object.end();
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<tokio::runtime::Runtime>> {
        self.tokio.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last user of a runtime whose handle was closed ends it; that may be one of its own threads, which cannot wait.
impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(tokio) = self.lock().take() {
            tokio.shutdown_background();
        }
    }
}

/// Work in the background that a shutdown waits for.
pub(crate) struct Lingering(Arc<Runtime>);

impl Drop for Lingering {
    fn drop(&mut self) {
        self.0.lingering.fetch_sub(1, Ordering::SeqCst);
        self.0.lingered.raise();
    }
}

/// Starts a runtime of its own, for programs that want to choose threads. Most do not need one: a zero mux_runtime means
/// the default runtime. End it with mux_runtime_shutdown; mux_close alone lets its sessions go on until they are closed.
///
/// MUX_EINVAL: options out of range. MUX_EOS, MUX_ENOFILE, MUX_ENOMEM: the system refused threads or descriptors.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mux_runtime_new(opts: *const mux_runtime_opts, out: *mut mux_runtime) -> mux_status {
    boundary::status(|| {
        // SAFETY: by this function's contract.
        let (opts, out) = unsafe { (pointer::options(opts, "opts")?, pointer::out(out, "out")?) };
        let mut threads = 0;
        let mut name = "libmux";
        if let Some(opts) = &opts {
            if opts.flags != 0 || opts.reserved != 0 {
                return Err(Fault::invalid("flags and reserved of a runtime must be 0"));
            }
            if opts.worker_threads > 1024 {
                return Err(Fault::invalid("worker_threads: 0 (default) to 1024 are allowed"));
            }
            threads = opts.worker_threads;
            if !opts.thread_name.is_null() {
                // SAFETY: by this function's contract.
                name = unsafe { pointer::text(opts.thread_name, "thread_name")? };
            }
        }
        if name.len() > 15 {
            return Err(Fault::invalid("thread_name: at most 15 bytes are allowed"));
        }
        let runtime = Runtime::new(threads, name)?;
        out.write(mux_runtime { h: world::insert(Object::Runtime(runtime))? });
        Ok(())
    })
}

/// Ends a runtime, the default one for a zero handle: closes every listener, session and channel handle that belongs to
/// it, lets what was finished flush for at most timeout_ms, then stops and joins its threads. The handles are dead
/// afterwards; configurations and queues live on. A later dial starts the default runtime anew. A program calls this
/// before it exits: unsent data does not outlive the process. \[B\]
///
/// MUX_TIMEDOUT: it has ended, but data was lost. MUX_EINTR: it goes on ending, call again.
#[unsafe(no_mangle)]
pub extern "C" fn mux_runtime_shutdown(rt: mux_runtime, timeout_ms: i32) -> mux_status {
    boundary::status(|| {
        let deadline = Deadline::new(timeout_ms)?;
        if rt.h != 0 {
            let runtime = Runtime::of(rt)?;
            let ended = runtime.shut_down(deadline);
            if !matches!(ended, Err(Fault::Plain(mux_status_code::MUX_EINTR))) {
                // A second call at the same time may have closed it first.
                let _ = world().table.close(rt.h);
            }
            return ended;
        }
        let default = || world().default_runtime.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(runtime) = default().clone() else {
            return Ok(());
        };
        let ended = runtime.shut_down(deadline);
        if !matches!(ended, Err(Fault::Plain(mux_status_code::MUX_EINTR))) {
            let mut default = default();
            if default.as_ref().is_some_and(|current| Arc::ptr_eq(current, &runtime)) {
                *default = None;
            }
        }
        ended
    })
}

/// The error of a call whose time limit the caller chose.
pub(crate) fn timed_out(doing: &str) -> Error {
    Error::new(ErrorKind::TimedOut, Origin::Local, format!("{doing}: timeout_ms passed"))
}
