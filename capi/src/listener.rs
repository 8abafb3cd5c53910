//! Listeners, and the exported functions that make sessions.

use std::ffi::c_char;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use libmux::Error;

use crate::abi::{mux_config, mux_error, mux_event_bit, mux_listener, mux_session, mux_status, mux_status_code};
use crate::boundary;
use crate::config;
use crate::deadline::Deadline;
use crate::hub::{Hub, Side, Signal};
use crate::own::{Own, Owned};
use crate::pointer;
use crate::queue::Waitable;
use crate::runtime::{Runtime, timed_out};
use crate::session::Session;
use crate::status::Fault;
use crate::world::{self, Object};

const ACCEPT: u32 = mux_event_bit::MUX_EV_ACCEPT as u32;
const CLOSED: u32 = mux_event_bit::MUX_EV_CLOSED as u32;

pub(crate) struct Listener {
    pub(crate) hub: Arc<Hub>,
    pub(crate) runtime: Arc<Runtime>,
    listener: libmux::Listener,
    /// A session that was found when somebody asked whether there is one.
    found: Own<Option<Result<libmux::Session, Error>>>,
    recv: Waker,
    stopped: AtomicBool,
    linger: Duration,
}

impl Listener {
    fn listen(url: &str, config: libmux::Config, runtime: Arc<Runtime>, mut deadline: Deadline) -> Result<Self, Fault> {
        runtime.check()?;
        let linger = config.linger;
        let address = url.to_owned();
        let listener = match runtime.start(async move { libmux::listen(&address, &config).await }) {
            Ok(listener) => listener?,
            Err(binding) => {
                let bound = Arc::new((Mutex::new(None), Signal::default()));
                let target = Arc::clone(&bound);
                let task = runtime.spawn(async move {
                    let result = binding.await;
                    if let Ok(mut place) = target.0.lock() {
                        *place = Some(result);
                    }
                    target.1.raise();
                });
                let take = || Ok(bound.0.lock().map_err(|_| mux_status_code::MUX_EINTERNAL)?.take());
                let result = bound.1.wait(&mut deadline, take);
                task.abort();
                result.map_err(|fault| match fault {
                    Fault::Plain(mux_status_code::MUX_TIMEDOUT) => timed_out(&format!("listen {url}")).into(),
                    other => other,
                })??
            }
        };
        let hub = Arc::new(Hub::default());
        let recv = hub.waker(Side::Recv);
        Ok(Self { hub, runtime, listener, found: Own::default(), recv, stopped: AtomicBool::new(false), linger })
    }

    fn try_accept(&self) -> Result<Option<libmux::Session>, Fault> {
        let mut found = self.lock_found()?;
        self.find(&mut found);
        found.take().transpose().map_err(Fault::from)
    }

    fn find(&self, found: &mut Option<Result<libmux::Session, Error>>) {
        if found.is_some() {
            return;
        }
        let _context = self.runtime.enter();
        if let Poll::Ready(session) = self.listener.ops().poll_accept(&mut Context::from_waker(&self.recv)) {
            *found = Some(session);
        }
    }

    fn lock_found(&self) -> Result<Owned<'_, Option<Result<libmux::Session, Error>>>, Fault> {
        self.found.lock()
    }

    /// The URL to dial, with the real port.
    pub(crate) fn url(&self) -> &str {
        self.listener.url()
    }

    /// Stops listening; sessions live on.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.listener.close();
        self.hub.wake_all();
    }

    pub(crate) fn has_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// The handle was closed.
    pub(crate) fn end(&self) {
        self.hub.end();
        self.stop();
    }
}

impl Waitable for Listener {
    fn hub(&self) -> &Hub {
        &self.hub
    }

    fn sides(&self) -> [u32; 2] {
        [ACCEPT, 0]
    }

    fn ready(&self, side: Side, wanted: u32) -> u32 {
        let wanted = wanted & self.sides()[side as usize];
        let closed = if self.has_stopped() { CLOSED } else { 0 };
        let Ok(mut found) = self.lock_found() else { return wanted | CLOSED };
        if wanted & ACCEPT != 0 {
            self.find(&mut found);
        }
        match &*found {
            Some(Ok(_)) => wanted | closed,
            Some(Err(_)) => wanted | CLOSED,
            None if closed != 0 => wanted | CLOSED,
            None => 0,
        }
    }
}

/// Connects to a URL such as "qmux://host:port" or "qmux+unix:///path", with a configuration or {0}. timeout_ms 0 returns
/// at once: with what is known to fail at once, else with a session that may still be connecting. Wait for
/// MUX_EV_CONNECTED on it, and ask mux_cause if that comes with MUX_EV_CLOSED. Any other timeout returns a connected session or none. err may be NULL. \[B\]
///
/// MUX_EURL: unknown scheme, unknown option or malformed, the message lists what exists. MUX_EDNS, MUX_EREFUSED,
/// MUX_EUNREACH, MUX_ETLS, MUX_ECERT, MUX_EALPN, MUX_EPROTO: it cannot be had. MUX_TIMEDOUT: the attempt was given up.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mux_dial(
    url: *const c_char,
    c: mux_config,
    timeout_ms: i32,
    out: *mut mux_session,
    err: *mut mux_error,
) -> mux_status {
    // SAFETY: by this function's contract, here and below.
    unsafe {
        boundary::status_with(err, || {
            let (url, out) = (pointer::text(url, "url")?, pointer::out(out, "out")?);
            let deadline = Deadline::new(timeout_ms)?;
            let (config, runtime) = config::resolve(c)?;
            let session = Session::dial(url, config, runtime)?;
            if deadline.may_block() {
                session.wait_connected(deadline).inspect_err(|_| session.end())?;
            }
            out.write(mux_session { h: world::insert(Object::Session(session))? });
            Ok(())
        })
    }
}

/// Listens on a URL; port 0 lets the system choose, MUX_INFO_URL then has the real one. err may be NULL. \[B\] for the
/// lookup of a name; an address or a path needs no waiting.
///
/// MUX_EURL as in mux_dial; MUX_EADDRINUSE, MUX_EACCESS, MUX_EDNS.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mux_listen(
    url: *const c_char,
    c: mux_config,
    timeout_ms: i32,
    out: *mut mux_listener,
    err: *mut mux_error,
) -> mux_status {
    // SAFETY: by this function's contract, here and below.
    unsafe {
        boundary::status_with(err, || {
            let (url, out) = (pointer::text(url, "url")?, pointer::out(out, "out")?);
            let deadline = Deadline::new(timeout_ms)?;
            let (config, runtime) = config::resolve(c)?;
            let listener = Arc::new(Listener::listen(url, config, runtime, deadline)?);
            out.write(mux_listener { h: world::insert(Object::Listener(listener))? });
            Ok(())
        })
    }
}

/// Takes the next session whose handshake is complete. err may be NULL. \[B\]
///
/// MUX_ECLOSED: the listener was shut down or closed.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mux_accept(
    l: mux_listener,
    timeout_ms: i32,
    out: *mut mux_session,
    err: *mut mux_error,
) -> mux_status {
    // SAFETY: by this function's contract, here and below.
    unsafe {
        boundary::status_with(err, || {
            let out = pointer::out(out, "out")?;
            let deadline = Deadline::new(timeout_ms)?;
            let listener = world::listener(l.h)?;
            let session = listener.hub.wait(Some(Side::Recv), deadline, || listener.try_accept())?;
            let session = Session::accepted(Arc::clone(&listener.runtime), session, listener.linger);
            out.write(mux_session { h: world::insert(Object::Session(session))? });
            Ok(())
        })
    }
}

/// Takes certificates and limits from a configuration for the sessions that come from now on. The whole configuration
/// counts: what the listener's own URL said about certificates counts no more. err may be NULL.
///
/// MUX_EUNSUPPORTED: this kind of listener cannot. Otherwise what is wrong with c; nothing has changed then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mux_listener_reload(l: mux_listener, c: mux_config, err: *mut mux_error) -> mux_status {
    // SAFETY: by this function's contract.
    unsafe {
        boundary::status_with(err, || {
            let (config, _) = config::resolve(c)?;
            let listener = world::listener(l.h)?;
            let _context = listener.runtime.enter();
            Ok(listener.listener.reload(&config)?)
        })
    }
}
