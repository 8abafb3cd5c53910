//! A session's own task: control records, the polite end, and the release of the transport.

use std::collections::HashMap;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mux_api::{Error, ErrorKind, Origin, codes};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, sleep_until, timeout};

use crate::control::{Control, Silence};
use crate::endpoint::Dialer;
use crate::error::{closed_by_peer, connection_error};
use crate::places::Announcing;
use crate::record::Record;
use crate::shared::Shared;

/// How long the peer may take to answer our CLOSE, or to end the connection after its own.
const LAST_WORD: Duration = Duration::from_secs(3);

/// How long the packet that ends the connection may take to leave.
const LAST_PACKET: Duration = Duration::from_millis(500);

/// What the tasks of a session need beside what they share.
pub(crate) struct Parts {
    /// The dialer's control stream; the acceptor's arrives.
    pub(crate) control: Option<Control>,
    pub(crate) arriving: oneshot::Receiver<Control>,
    /// The dialer's endpoint.
    pub(crate) endpoint: Option<Dialer>,
    pub(crate) accepting: JoinHandle<()>,
    pub(crate) flushing: JoinHandle<()>,
    /// Held as long as the transport.
    pub(crate) _guard: Option<Box<dyn Send + Sync>>,
}

/// How far the polite end has come.
enum Phase {
    Live,
    /// What was finished is on its way.
    Flushing {
        acknowledged: Pin<Box<dyn Future<Output = ()> + Send>>,
        until: Option<Instant>,
    },
    /// We said CLOSE.
    Closing {
        until: Instant,
    },
    /// The peer said CLOSE, and ends the connection once it has our answer.
    Answered {
        until: Instant,
    },
}

struct Driver {
    shared: Arc<Shared>,
    control: Option<Control>,
    phase: Phase,
    told_goaway: bool,
    pings: HashMap<[u8; 8], (Instant, oneshot::Sender<Duration>)>,
    next_ping: u64,
    /// Channel traffic seen, and when it last moved.
    traffic: (u64, Instant),
    announcing: Announcing,
    /// When to look for traffic again.
    look: Option<Instant>,
}

/// What a turn decided.
enum Turn {
    Go,
    /// The connection is over, or is to be ended with this code and reason.
    End(Option<(u64, String)>),
}

/// Runs a session to its end and lets go of the transport.
pub(crate) async fn drive(release: Release, mut parts: Parts) {
    let shared = Arc::clone(&release.0);
    let mut driver = Driver {
        shared: Arc::clone(&shared),
        control: parts.control.take(),
        phase: Phase::Live,
        told_goaway: false,
        pings: HashMap::new(),
        next_ping: 0,
        traffic: (0, Instant::now()),
        announcing: Announcing::default(),
        look: Instant::now().checked_add(shared.settings.idle / 4),
    };
    let (said, heard) = driver.run(&mut parts.arriving).await;
    if let Some((code, reason)) = said {
        shared.end_connection(code, &reason);
    }
    drop(driver);
    parts.flushing.abort();
    shared.early.end();
    // Ends by itself: what arrived before the end is still handed out.
    let _ = (&mut parts.accepting).await;
    shared.end_accept();
    let _ = (&mut parts.flushing).await;
    let left = async {
        while !shared.has_sent_end() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    let we_ended = matches!(shared.conn.close_reason(), Some(quinn::ConnectionError::LocallyClosed));
    if we_ended {
        let _ = timeout(LAST_PACKET, left).await;
    }
    // A peer that has not heard of the end otherwise may need the packet again.
    if let Some(endpoint) = &parts.endpoint
        && we_ended
        && !heard
    {
        endpoint.wait_idle(Some(&shared.conn), LAST_WORD).await;
    }
    drop(parts);
    drop(release);
}

impl Driver {
    /// Returns what is left to be said by the connection's end, and whether the peer has heard of the end.
    async fn run(&mut self, arriving: &mut oneshot::Receiver<Control>) -> (Option<(u64, String)>, bool) {
        let shared = Arc::clone(&self.shared);
        let mut may_arrive = self.control.is_none();
        loop {
            let deadline = self.deadline();
            let turn = tokio::select! {
                error = shared.conn.closed() => {
                    shared.fail(self.cause_of(&error));
                    return (None, !matches!(error, quinn::ConnectionError::LocallyClosed));
                }
                control = &mut *arriving, if may_arrive => {
                    may_arrive = false;
                    self.control = control.ok();
                    self.obey()
                }
                event = next_control_event(&shared, &mut self.control) => match event {
                    Event::Said(Ok(record)) => self.on_record(record),
                    Event::Said(Err(Silence::Bad(why))) => self.violated(why),
                    // The first arm says why.
                    Event::Said(Err(Silence::Lost)) => { shared.conn.closed().await; Turn::Go }
                    Event::Sent => self.obey(),
                },
                () = shared.command.notified() => self.obey(),
                () = acknowledged(&mut self.phase) => self.say_close(),
                () = until(deadline) => self.on_time(),
                () = until(self.announcing.due()) => {
                    self.announcing.announce(&shared.conn, &shared.places);
                    Turn::Go
                }
            };
            if let Turn::End(said) = turn {
                return (said, matches!(self.phase, Phase::Closing { .. } | Phase::Answered { .. }));
            }
        }
    }

    /// Why the session is over when its connection is.
    fn cause_of(&self, error: &quinn::ConnectionError) -> Error {
        let closing = self.shared.state().closing.clone();
        match (closing, &self.phase, error) {
            // Everything of ours had arrived: our end is what our application knows.
            (Some((code, _)), Phase::Closing { .. }, quinn::ConnectionError::ApplicationClosed(_)) => {
                Error::closed_locally().with_code(code)
            }
            _ => connection_error(error, true, self.shared.wire),
        }
    }

    /// Does what the application asked for meanwhile.
    fn obey(&mut self) -> Turn {
        let (draining, closing, pings) = {
            let mut state = self.shared.state();
            // What must be said waits until there is a stream to say it on.
            let pings = if self.control.is_some() { std::mem::take(&mut state.pings) } else { Vec::new() };
            (state.draining && self.control.is_some(), state.closing.clone(), pings)
        };
        self.say_resets();
        if self.shared.places.has_ended() {
            self.announcing.begin(&self.shared.conn);
        }
        for answer in pings {
            self.next_ping += 1;
            let token = self.next_ping.to_be_bytes();
            self.pings.retain(|_, (_, answer)| !answer.is_closed());
            self.pings.insert(token, (Instant::now(), answer));
            if let end @ Turn::End(_) = self.say(&Record::Ping(token)) {
                return end;
            }
        }
        if let Some((code, reason)) = closing {
            if matches!(self.phase, Phase::Live) {
                let shared = Arc::clone(&self.shared);
                self.phase = Phase::Flushing {
                    acknowledged: Box::pin(async move { shared.flush.acknowledged().await }),
                    until: Instant::now().checked_add(self.shared.settings.linger),
                };
                self.told_goaway = true;
                return self.say(&Record::GoAway { code, reason });
            }
        } else if draining && !self.told_goaway {
            self.told_goaway = true;
            return self.say(&Record::GoAway { code: codes::DRAINING, reason: String::new() });
        }
        Turn::Go
    }

    /// Says what fits of the resets that wait; the rest waits until the stream has taken some.
    fn say_resets(&mut self) {
        let Some(control) = &mut self.control else { return };
        let mut state = self.shared.state();
        let mut said = 0;
        while !control.output.is_full()
            && let Some(reset) = state.resets.get(said)
        {
            control.output.put_record(&Record::ResetEarly(reset.clone()));
            said += 1;
        }
        state.resets.drain(..said);
    }

    fn say(&mut self, record: &Record) -> Turn {
        let said = self.control.as_mut().is_none_or(|control| control.output.say(record));
        if said { Turn::Go } else { self.violated("it does not read the answers it asks for".into()) }
    }

    fn violated(&mut self, why: String) -> Turn {
        // The end of the stream is the peer's way to go once the session's end was said.
        if let Phase::Answered { .. } | Phase::Closing { .. } = self.phase {
            return self.end_politely();
        }
        let cause = Error::new(ErrorKind::Protocol, Origin::Peer, format!("protocol violation: {why}"));
        self.shared.fail(cause.with_code(codes::PROTOCOL));
        Turn::End(Some((codes::PROTOCOL, why)))
    }

    fn on_record(&mut self, record: Record) -> Turn {
        match record {
            Record::Ping(token) => self.say(&Record::Pong(token)),
            Record::Pong(token) => {
                if let Some((sent, answer)) = self.pings.remove(&token) {
                    // Nobody waits for a ping that was given up.
                    let _ = answer.send(sent.elapsed());
                }
                Turn::Go
            }
            Record::GoAway { code, reason } => {
                let why = match reason.as_str() {
                    "" => "the peer takes no new channels".to_owned(),
                    reason => format!("the peer takes no new channels: {reason}"),
                };
                let error = Error::new(ErrorKind::GoAway, Origin::Peer, why).with_code(code).retry_safe(true);
                self.shared.state().peer_draining = Some(error);
                self.shared.opening.wakers.wake_all();
                Turn::Go
            }
            Record::ResetEarly(reset) => {
                self.shared.early.say(reset, &self.shared.budget);
                Turn::Go
            }
            Record::Close { code, reason } => {
                let answered = self.say(&Record::CloseAck);
                match self.phase {
                    // Both ends closed, and both have said everything.
                    Phase::Closing { .. } => return self.end_politely(),
                    // The peer takes nothing more; what we finished meanwhile may still arrive before its end.
                    Phase::Flushing { .. } | Phase::Answered { .. } => {}
                    Phase::Live => {
                        self.shared.fail(closed_by_peer(code, &reason));
                        self.phase = Phase::Answered { until: Instant::now() + LAST_WORD };
                    }
                }
                answered
            }
            Record::CloseAck => match self.phase {
                Phase::Closing { .. } => self.end_politely(),
                _ => self.violated("it acknowledged a close that nobody sent".into()),
            },
        }
    }

    /// Everything that was finished has arrived.
    fn say_close(&mut self) -> Turn {
        let Some((code, reason)) = self.shared.state().closing.clone() else { return Turn::Go };
        self.phase = Phase::Closing { until: Instant::now() + LAST_WORD };
        if self.control.is_none() {
            return self.end_politely();
        }
        self.say(&Record::Close { code, reason })
    }

    fn end_politely(&mut self) -> Turn {
        let closing = self.shared.state().closing.clone();
        let (code, reason) = closing.unwrap_or((codes::NO_ERROR, String::new()));
        self.shared.fail(Error::closed_locally().with_code(code));
        Turn::End(Some((code, reason)))
    }

    fn deadline(&self) -> Option<Instant> {
        let idle = self.shared.settings.idle;
        match &self.phase {
            Phase::Live if idle.is_zero() => None,
            Phase::Live => self.look,
            Phase::Flushing { until, .. } => *until,
            Phase::Closing { until } | Phase::Answered { until } => Some(*until),
        }
    }

    fn on_time(&mut self) -> Turn {
        match &self.phase {
            Phase::Live => {
                self.look = Instant::now().checked_add(self.shared.settings.idle / 4);
                let stats = self.shared.conn.stats();
                let moved = stats.frame_rx.stream + stats.frame_tx.stream;
                if moved != self.traffic.0 {
                    self.traffic = (moved, Instant::now());
                } else if self.traffic.1.elapsed() >= self.shared.settings.idle {
                    let why = format!("no traffic for {:?}", self.shared.settings.idle);
                    let cause = Error::new(ErrorKind::Idle, Origin::Local, format!("closed by this side: {why}"));
                    self.shared.fail(cause);
                    return Turn::End(Some((codes::NO_ERROR, why)));
                }
                Turn::Go
            }
            Phase::Flushing { .. } => {
                let code = self.shared.state().closing.as_ref().map_or(codes::NO_ERROR, |(code, _)| *code);
                let message = "closed by this side; the linger time was over before the peer took everything";
                self.shared.fail(Error::new(ErrorKind::Closed, Origin::Local, message).with_code(code));
                // Not the polite code: the peer must not take what it got for everything.
                Turn::End(Some((codes::DROPPED, "the linger time was over".into())))
            }
            Phase::Closing { .. } | Phase::Answered { .. } => self.end_politely(),
        }
    }
}

enum Event {
    Said(Result<Record, Silence>),
    Sent,
}

/// The next record, or some progress in sending ours.
async fn next_control_event(shared: &Shared, control: &mut Option<Control>) -> Event {
    let Some(Control { input, output }) = control else { return pending().await };
    if output.is_empty() {
        return Event::Said(input.next().await);
    }
    tokio::select! {
        record = input.next() => Event::Said(record),
        sent = output.send(shared) => match sent {
            Ok(()) => Event::Sent,
            // The peer refuses to hear, or the connection is over: its records, or its end, say more.
            Err(quinn::WriteError::Stopped(_)) => Event::Said(Err(Silence::Bad("it stopped the control stream".into()))),
            Err(_) => Event::Said(Err(Silence::Lost)),
        },
    }
}

async fn acknowledged(phase: &mut Phase) {
    match phase {
        Phase::Flushing { acknowledged, .. } => acknowledged.await,
        _ => pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => pending().await,
    }
}

/// Says that the session is over, also when the runtime is shut down before it came to its end.
pub(crate) struct Release(pub(crate) Arc<Shared>);

impl Drop for Release {
    fn drop(&mut self) {
        let shared = &self.0;
        let message = "the runtime that drove the session was shut down";
        shared.fail(Error::new(ErrorKind::Closed, Origin::Local, message));
        shared.end_connection(codes::INTERNAL, message);
        shared.release();
    }
}
