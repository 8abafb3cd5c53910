//! What this process shares: the handle table and the default runtime. A forked child gets a world of its own; the
//! inherited one is left alone, because its locks may be held by threads that do not exist any more.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use crate::abi::{mux_handle, mux_kind, mux_status_code};
use crate::borrow::Borrow;
use crate::channel::Channel;
use crate::config::Settings;
use crate::foreign::Wakers;
use crate::handle::{Pinned, Table};
use crate::listener::Listener;
use crate::log;
use crate::platform;
use crate::queue::{Queue, Waitable};
use crate::runtime::Runtime;
use crate::session::Session;
use crate::status::Fault;

/// What a handle can stand for.
pub(crate) enum Object {
    Runtime(Arc<Runtime>),
    Config(Box<Mutex<Settings>>),
    Listener(Arc<Listener>),
    Session(Arc<Session>),
    Channel(Arc<Channel>),
    Queue(QueueHandle),
    Borrow(Arc<Borrow>),
}

/// Owns a queue; records in watched objects only borrow it.
pub(crate) struct QueueHandle(pub(crate) Arc<Queue>);

impl Drop for QueueHandle {
    fn drop(&mut self) {
        self.0.release();
    }
}

pub(crate) struct World {
    pub(crate) table: Table<Object>,
    pub(crate) default_runtime: Mutex<Option<Arc<Runtime>>>,
    pub(crate) log: log::Shared,
    /// What backends written in C notify, by cookie.
    pub(crate) cookies: Table<Arc<Wakers>>,
    /// That of the parent process, never used again; kept so that leak checkers see where its memory belongs.
    _inherited: Option<&'static World>,
}

static WORLD: AtomicPtr<World> = AtomicPtr::new(ptr::null_mut());
static PAGE: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());

/// The fork word in a child whose world is not made yet.
const WIPED: u32 = 0;
const BUILDING: u32 = 1;
const READY: u32 = 2;

/// The world of this process.
#[inline(always)]
pub(crate) fn world() -> &'static World {
    let page = PAGE.load(Ordering::Acquire);
    // SAFETY: once set, PAGE points to a word that is never freed, and WORLD is set before the word reads READY.
    unsafe {
        if !page.is_null() && (*page).load(Ordering::Acquire) == READY {
            return &*WORLD.load(Ordering::Acquire);
        }
    }
    new_world()
}

#[cold]
fn new_world() -> &'static World {
    if PAGE.load(Ordering::Acquire).is_null() {
        let page = ptr::from_ref(platform::fork_word()).cast_mut();
        // A loser's page is lost: 4 KiB, once, and only where two first calls race.
        let _ = PAGE.compare_exchange(ptr::null_mut(), page, Ordering::AcqRel, Ordering::Acquire);
    }
    // SAFETY: set above, never freed.
    let word = unsafe { &*PAGE.load(Ordering::Acquire) };
    loop {
        match word.compare_exchange(WIPED, BUILDING, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                let inherited = WORLD.load(Ordering::Acquire);
                // SAFETY: null, or a world that was leaked and is only read here, without its locks.
                let inherited = unsafe { inherited.as_ref() };
                let (base, cookies) = inherited.map_or((0, 0), |world| (world.table.end(), world.cookies.end()));
                let world = World {
                    table: Table::new(base),
                    default_runtime: Mutex::default(),
                    log: log::Shared::default(),
                    cookies: Table::new(cookies),
                    _inherited: inherited,
                };
                WORLD.store(Box::leak(Box::new(world)), Ordering::Release);
                word.store(READY, Ordering::Release);
            }
            // SAFETY: READY says that the world was stored; it is never freed.
            Err(READY) => return unsafe { &*WORLD.load(Ordering::Acquire) },
            Err(_) => std::thread::yield_now(),
        }
    }
}

/// The object of a handle, whatever its kind.
#[inline(always)]
pub(crate) fn pin(handle: mux_handle) -> Result<Pinned<Object>, Fault> {
    world().table.pin(handle)
}

macro_rules! pin_as {
    ($($name:ident, $variant:ident, $target:ty;)*) => {$(
        /// The object of a handle of this kind.
        #[inline(always)]
        pub(crate) fn $name(handle: mux_handle) -> Result<impl std::ops::Deref<Target = $target>, Fault> {
            struct As {
                object: ptr::NonNull<$target>,
                _pinned: Pinned<Object>,
            }
            impl std::ops::Deref for As {
                type Target = $target;

                #[inline(always)]
                fn deref(&self) -> &$target {
                    // SAFETY: what is pinned neither moves nor changes, and the pin lives as long as `self`.
                    unsafe { self.object.as_ref() }
                }
            }
            let pinned = pin(handle)?;
            let Object::$variant(object) = &*pinned else {
                return Err(mux_status_code::MUX_EKIND.into());
            };
            let object: &$target = object;
            Ok(As { object: ptr::NonNull::from(object), _pinned: pinned })
        }
    )*};
}

pin_as! {
    runtime, Runtime, Arc<Runtime>;
    config, Config, Mutex<Settings>;
    listener, Listener, Arc<Listener>;
    session, Session, Arc<Session>;
    channel, Channel, Arc<Channel>;
    queue, Queue, QueueHandle;
    borrow, Borrow, Arc<Borrow>;
}

impl Object {
    /// The number that handles of this kind carry; see `enum mux_kind`.
    pub(crate) fn kind(&self) -> u8 {
        let kind = match self {
            Self::Runtime(_) => mux_kind::MUX_KIND_RUNTIME,
            Self::Config(_) => mux_kind::MUX_KIND_CONFIG,
            Self::Listener(_) => mux_kind::MUX_KIND_LISTENER,
            Self::Session(_) => mux_kind::MUX_KIND_SESSION,
            Self::Channel(_) => mux_kind::MUX_KIND_CHANNEL,
            Self::Queue(_) => mux_kind::MUX_KIND_QUEUE,
            Self::Borrow(_) => mux_kind::MUX_KIND_BORROW,
        };
        kind as u8
    }

    /// The object as something that can be waited for; `None` for other kinds.
    pub(crate) fn waitable(&self) -> Option<&dyn Waitable> {
        match self {
            Self::Listener(listener) => Some(&**listener),
            Self::Session(session) => Some(&**session),
            Self::Channel(channel) => Some(&**channel),
            Self::Runtime(_) | Self::Config(_) | Self::Queue(_) | Self::Borrow(_) => None,
        }
    }

    /// What happens the moment the handle is closed, while other calls may still use the object.
    pub(crate) fn end(&self) {
        match self {
            Self::Runtime(_) | Self::Config(_) => {}
            Self::Listener(listener) => listener.end(),
            Self::Session(session) => session.end(),
            Self::Channel(channel) => channel.end(),
            Self::Queue(queue) => queue.0.end(),
            Self::Borrow(borrow) => borrow.end(),
        }
    }
}

/// Stores an object and gives out its handle.
pub(crate) fn insert(object: Object) -> Result<mux_handle, Fault> {
    let kind = object.kind();
    world().table.insert(kind, |handle| {
        match &object {
            Object::Listener(listener) => listener.hub.set_handle(handle),
            Object::Session(session) => session.hub.set_handle(handle),
            Object::Channel(channel) => channel.hub.set_handle(handle),
            Object::Runtime(_) | Object::Config(_) | Object::Queue(_) | Object::Borrow(_) => {}
        }
        object
    })
}
