//! Sessions: dialed or accepted, connecting, live or failed.

use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use libmux::{Capabilities, Channel, Config, Error, OpenOptions, codes};
use tokio::task::AbortHandle;

use crate::abi::{mux_event_bit, mux_status_code};
use crate::carrier::Readiness;
use crate::deadline::Deadline;
use crate::hub::{Hub, Side};
use crate::own::{Own, Owned};
use crate::queue::Waitable;
use crate::runtime::{Lingering, Runtime, timed_out};
use crate::status::Fault;

const CONNECTED: u32 = mux_event_bit::MUX_EV_CONNECTED as u32;
const ACCEPT: u32 = mux_event_bit::MUX_EV_ACCEPT as u32;
const OPEN: u32 = mux_event_bit::MUX_EV_OPEN as u32;
const DRAINED: u32 = mux_event_bit::MUX_EV_DRAINED as u32;
const DATAGRAM: u32 = mux_event_bit::MUX_EV_DATAGRAM as u32;
const CLOSED: u32 = mux_event_bit::MUX_EV_CLOSED as u32;

pub(crate) struct Session {
    pub(crate) hub: Arc<Hub>,
    pub(crate) runtime: Arc<Runtime>,
    /// As dialed; a live session knows better.
    url: String,
    /// Empty while it connects.
    state: OnceLock<Result<libmux::Session, Error>>,
    dialing: Mutex<Option<AbortHandle>>,
    /// A channel that was found when somebody asked whether there is one.
    found: Own<Option<Result<Channel, Error>>>,
    /// A datagram that was found when somebody asked, or that did not fit.
    datagram: Own<Option<Result<Bytes, Error>>>,
    /// Of a session that runs over functions of the application.
    readiness: OnceLock<Arc<Readiness>>,
    recv: Waker,
    send: Waker,
    end: Arc<EndWaker>,
    ending: AtomicBool,
    linger: Duration,
}

/// Wakes both sides when the session ends, and the task that waits for the end of a closed one.
struct EndWaker {
    hub: Arc<Hub>,
    task: Mutex<Option<Waker>>,
}

impl Wake for EndWaker {
    fn wake(self: Arc<Self>) {
        self.hub.wake_all();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl Session {
    fn new(runtime: Arc<Runtime>, url: String, linger: Duration) -> Self {
        let hub = Arc::new(Hub::default());
        Self {
            recv: hub.waker(Side::Recv),
            send: hub.waker(Side::Send),
            end: Arc::new(EndWaker { hub: Arc::clone(&hub), task: Mutex::default() }),
            hub,
            runtime,
            url,
            state: OnceLock::new(),
            dialing: Mutex::default(),
            found: Own::default(),
            datagram: Own::default(),
            readiness: OnceLock::new(),
            ending: AtomicBool::new(false),
            linger,
        }
    }

    /// A session that a listener accepted.
    pub(crate) fn accepted(runtime: Arc<Runtime>, session: libmux::Session, linger: Duration) -> Arc<Self> {
        let this = Self::new(runtime, session.info().url.clone(), linger);
        let _ = this.state.set(Ok(session));
        Arc::new(this)
    }

    /// Owner of a channel that belongs to no session: it never connects and never ends.
    pub(crate) fn nowhere(runtime: Arc<Runtime>, proto: &str) -> Arc<Self> {
        Arc::new(Self::new(runtime, format!("{proto}:"), Duration::ZERO))
    }

    /// Begins to connect; what is known to fail at once fails here.
    pub(crate) fn dial(url: &str, config: Config, runtime: Arc<Runtime>) -> Result<Arc<Self>, Fault> {
        let (linger, target) = (config.linger, url.to_owned());
        Self::begin(url.to_owned(), linger, runtime, async move { libmux::dial(&target, &config).await })
    }

    /// Begins what comes to a session; what is known to fail at once fails here.
    pub(crate) fn begin(
        url: String,
        linger: Duration,
        runtime: Arc<Runtime>,
        connecting: impl Future<Output = Result<libmux::Session, Error>> + Send + 'static,
    ) -> Result<Arc<Self>, Fault> {
        runtime.check()?;
        let this = Arc::new(Self::new(Arc::clone(&runtime), url, linger));
        match runtime.start(connecting) {
            Ok(session) => this.connected(Ok(session?)),
            Err(connecting) => {
                let target = Arc::clone(&this);
                let task = runtime.spawn(async move { target.connected(connecting.await) });
                *this.dialing.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
            }
        }
        Ok(this)
    }

    /// It runs over functions of the application, which say through `readiness` when they can go on.
    pub(crate) fn carried_by(&self, readiness: Arc<Readiness>) {
        let _ = self.readiness.set(readiness);
    }

    pub(crate) fn readiness(&self) -> Option<&Readiness> {
        self.readiness.get().map(|readiness| &**readiness)
    }

    /// Asks the peer's library for an answer; how long that took.
    pub(crate) fn ping(&self, deadline: Deadline) -> Result<Duration, Fault> {
        let session = self.connected_session()?.clone();
        let answer = Arc::new(Mutex::new(None));
        let (place, hub) = (Arc::clone(&answer), Arc::clone(&self.hub));
        let task = self.runtime.spawn(async move {
            let measured = session.ping().await;
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(measured);
            hub.wake_all();
        });
        let measured =
            self.hub.wait(None, deadline, || Ok(answer.lock().unwrap_or_else(PoisonError::into_inner).take()));
        task.abort();
        Ok(measured??)
    }

    pub(crate) fn send_datagram(&self, data: &[u8]) -> Result<(), Fault> {
        let session = self.connected_session()?;
        // Nothing is copied that cannot be sent; what a live session says of an empty one is the right error.
        let most = session.max_datagram();
        if let Some(most) = most.filter(|most| data.len() > *most && session.cause().is_none()) {
            let message = format!("the datagram has {} bytes; {most} are possible at present", data.len());
            return Err(Fault::Said(mux_status_code::MUX_ETOOBIG, message));
        }
        let data = if most.is_some() { Bytes::copy_from_slice(data) } else { Bytes::new() };
        Ok(session.send_datagram(data)?)
    }

    /// Gives the next datagram to `take`, which says whether it was taken.
    pub(crate) fn try_datagram(&self, take: impl FnOnce(&Bytes) -> Result<i64, Fault>) -> Result<Option<i64>, Fault> {
        let Some(session) = self.live()? else { return Ok(None) };
        let mut datagram = self.datagram.lock().map_err(|fault| self.after(fault))?;
        self.find_datagram(session, &mut datagram);
        match &*datagram {
            None => Ok(None),
            Some(Ok(data)) => {
                let count = take(data)?;
                *datagram = None;
                Ok(Some(count))
            }
            Some(Err(error)) => {
                let error = error.clone();
                *datagram = None;
                Err(error.into())
            }
        }
    }

    fn find_datagram(&self, session: &libmux::Session, found: &mut Option<Result<Bytes, Error>>) {
        if found.is_none()
            && let Poll::Ready(data) = session.ops().poll_datagram(&mut Context::from_waker(&self.recv))
        {
            *found = Some(data);
        }
    }

    fn connected(&self, result: Result<libmux::Session, Error>) {
        // Already set only when it was shut down while connecting: then this drops, and so aborts, the new session.
        let _ = self.state.set(result);
        self.hub.wake_all();
        if self.hub.has_ended() {
            self.close_politely();
        }
    }

    /// Waits until it is connected.
    pub(crate) fn wait_connected(&self, deadline: Deadline) -> Result<(), Fault> {
        let connected = self.hub.wait(Some(Side::Send), deadline, || Ok(self.live()?.map(|_| ())));
        connected.map_err(|fault| match fault {
            Fault::Plain(mux_status_code::MUX_TIMEDOUT) => timed_out(&format!("dial {}", self.url)).into(),
            other => other,
        })
    }

    /// The session underneath; `None` while it connects, the reason once that has failed.
    pub(crate) fn live(&self) -> Result<Option<&libmux::Session>, Fault> {
        match self.state.get() {
            None => Ok(None),
            Some(Ok(session)) => Ok(Some(session)),
            Some(Err(error)) => Err(error.clone().into()),
        }
    }

    /// The session underneath, for calls that make sense only then.
    pub(crate) fn connected_session(&self) -> Result<&libmux::Session, Fault> {
        self.live()?.ok_or_else(|| {
            Fault::Said(mux_status_code::MUX_ESTATE, "the session is not connected yet; wait for it".to_owned())
        })
    }

    pub(crate) fn try_open(&self, options: &OpenOptions) -> Result<Option<Channel>, Fault> {
        let Some(session) = self.live()? else { return Ok(None) };
        match session.ops().poll_open(&mut Context::from_waker(&self.send), options) {
            Poll::Ready(parts) => Ok(Some(Channel::new(parts?))),
            Poll::Pending => Ok(None),
        }
    }

    pub(crate) fn try_accept(&self) -> Result<Option<Channel>, Fault> {
        let Some(session) = self.live()? else { return Ok(None) };
        let mut found = self.lock_found()?;
        self.find(session, &mut found);
        found.take().transpose().map_err(Fault::from)
    }

    /// Looks for a channel that waits and keeps it.
    fn find(&self, session: &libmux::Session, found: &mut Option<Result<Channel, Error>>) {
        if found.is_none()
            && let Poll::Ready(parts) = session.ops().poll_accept(&mut Context::from_waker(&self.recv))
        {
            *found = Some(parts.map(Channel::new));
        }
    }

    fn lock_found(&self) -> Result<Owned<'_, Option<Result<Channel, Error>>>, Fault> {
        self.found.lock().map_err(|fault| self.after(fault))
    }

    /// Why a lock was not had. A call that panicked has left something half done: nothing of this session can be trusted
    /// any more.
    #[cold]
    pub(crate) fn after(&self, fault: Fault) -> Fault {
        if let (Fault::Plain(mux_status_code::MUX_EINTERNAL), Some(Ok(session))) = (&fault, self.state.get()) {
            session.ops().abort(codes::INTERNAL);
        }
        fault
    }

    /// As dialed, or the listener's.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Why it failed or ended; `None` while it connects or lives.
    pub(crate) fn cause(&self) -> Option<Error> {
        match self.state.get()? {
            Ok(session) => session.cause(),
            Err(error) => Some(error.clone()),
        }
    }

    /// Begins the polite end on the application's word, with a code and a reason.
    pub(crate) fn shut_down(&self, code: u64, reason: &str) -> Result<(), Fault> {
        match self.live()? {
            Some(session) => session.close(code, reason)?,
            None => {
                let gave_up = Error::closed_locally().context("the dial was given up");
                self.connected(Err(gave_up));
                self.stop_dialing();
            }
        }
        Ok(())
    }

    /// The handle was closed.
    pub(crate) fn end(&self) {
        self.hub.end();
        self.stop_dialing();
        self.close_politely();
    }

    fn stop_dialing(&self) {
        if let Some(task) = self.dialing.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }

    /// Lets finished channels flush in the background, bounded by the linger time.
    fn close_politely(&self) {
        let Some(Ok(session)) = self.state.get() else { return };
        if self.ending.swap(true, Ordering::SeqCst) {
            return;
        }
        drop(self.found.lock_anyway().map(|mut found| found.take()));
        // Code and reason are in range.
        let _ = session.close(codes::NO_ERROR, "");
        let lingering = self.runtime.lingering();
        self.runtime.spawn(linger(session.clone(), Arc::clone(&self.end), self.linger, lingering));
    }
}

/// Waits for the end of a closed session, and makes it end when that takes too long.
async fn linger(session: libmux::Session, end: Arc<EndWaker>, limit: Duration, _counted: Lingering) {
    let waker = Waker::from(Arc::clone(&end));
    let closed = poll_fn(|cx| {
        // A session remembers one waker for its end, so this task is woken through the one that all others use.
        *end.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        session.ops().poll_closed(&mut Context::from_waker(&waker)).map(|_| ())
    });
    if tokio::time::timeout(limit, closed).await.is_err() {
        session.ops().abort(codes::NO_ERROR);
    }
    *end.task.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

impl Waitable for Session {
    fn hub(&self) -> &Hub {
        &self.hub
    }

    fn sides(&self) -> [u32; 2] {
        [ACCEPT | DATAGRAM, CONNECTED | OPEN | DRAINED]
    }

    fn check(&self, events: u32) -> Result<(), Fault> {
        if events & DATAGRAM != 0 && !self.connected_session()?.capabilities().contains(Capabilities::DATAGRAM) {
            let message = "this session has no datagrams (MUX_CAP_DATAGRAM)".to_owned();
            return Err(Fault::Said(mux_status_code::MUX_EUNSUPPORTED, message));
        }
        Ok(())
    }

    fn ready(&self, side: Side, wanted: u32) -> u32 {
        let wanted = wanted & self.sides()[side as usize];
        let session = match self.state.get() {
            None => return 0,
            Some(Ok(session)) => session,
            Some(Err(_)) => return wanted | CLOSED,
        };
        let mut ready = wanted & CONNECTED;
        if wanted & ACCEPT != 0 {
            match self.lock_found() {
                Ok(mut found) => self.find(session, &mut found),
                Err(_) => return wanted | CLOSED,
            }
            if self.lock_found().map_or(true, |found| found.is_some()) {
                ready |= ACCEPT;
            }
        }
        if wanted & DATAGRAM != 0 {
            let Ok(mut datagram) = self.datagram.lock() else { return wanted | CLOSED };
            self.find_datagram(session, &mut datagram);
            if datagram.is_some() {
                ready |= DATAGRAM;
            }
        }
        let ops = session.ops();
        if wanted & OPEN != 0 && ops.poll_can_open(&mut Context::from_waker(&self.send)).is_ready() {
            ready |= OPEN;
        }
        if wanted & DRAINED != 0 && ops.poll_flush(&mut Context::from_waker(&self.send)).is_ready() {
            ready |= DRAINED;
        }
        let end = Waker::from(Arc::clone(&self.end));
        if ops.poll_closed(&mut Context::from_waker(&end)).is_ready() {
            ready |= wanted | CLOSED;
        }
        ready
    }
}
