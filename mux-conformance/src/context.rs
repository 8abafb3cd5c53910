//! What a scenario works with: sessions, links, random numbers, and a list of what it waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use mux_api::backend::SessionOps;
use mux_api::{Capabilities, Config, ErrorKind, Listener, OpenOptions, Session};

use crate::link::Link;
use crate::random::Random;
use crate::subject::Subject;

/// A session's two ends.
pub(crate) struct Pair {
    pub(crate) client: Session,
    pub(crate) server: Session,
    /// Kept for as long as the sessions: what a program with a listener does.
    pub(crate) _listener: Option<Listener>,
}

/// One run of one scenario.
pub(crate) struct Cx {
    pub(crate) subject: Arc<Subject>,
    /// Whether the run is to be thorough rather than quick.
    pub(crate) full: bool,
    /// How long what is over may take to go away.
    patience: Duration,
    random: Mutex<Random>,
    steps: Arc<Steps>,
    notes: Mutex<BTreeSet<String>>,
    sessions: Mutex<Vec<(String, Weak<dyn SessionOps>)>>,
    links: Mutex<Vec<Link>>,
}

/// What a scenario waits for at present: what the watchdog tells when it waits for ever.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    waiting: Mutex<(u64, BTreeMap<u64, String>)>,
}

impl Steps {
    fn begin(self: &Arc<Self>, what: String) -> Step {
        let mut waiting = lock(&self.waiting);
        waiting.0 += 1;
        let key = waiting.0;
        waiting.1.insert(key, what);
        Step { steps: Arc::clone(self), key }
    }

    /// The steps in the order they began.
    pub(crate) fn waiting(&self) -> String {
        let waiting = lock(&self.waiting);
        if waiting.1.is_empty() {
            return "a step without a name".to_owned();
        }
        waiting.1.values().cloned().collect::<Vec<_>>().join("; ")
    }
}

/// A step that goes on until this is dropped.
pub(crate) struct Step {
    steps: Arc<Steps>,
    key: u64,
}

impl Drop for Step {
    fn drop(&mut self) {
        // A step that panicked stays: it says where.
        if !std::thread::panicking() {
            lock(&self.steps.waiting).1.remove(&self.key);
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cx {
    pub(crate) fn new(subject: Arc<Subject>, full: bool, seed: u64, patience: Duration, steps: Arc<Steps>) -> Self {
        Self {
            subject,
            full,
            patience,
            random: Mutex::new(Random::new(seed)),
            steps,
            notes: Mutex::default(),
            sessions: Mutex::default(),
            links: Mutex::default(),
        }
    }

    pub(crate) fn steps(&self) -> Arc<Steps> {
        Arc::clone(&self.steps)
    }

    /// A generator of its own, from the scenario's seed and how many were asked for before.
    pub(crate) fn random(&self) -> Random {
        Random::new(lock(&self.random).next())
    }

    /// Runs `future` as a step with a name: what the watchdog tells if it never ends.
    pub(crate) async fn step<T>(&self, what: impl Into<String>, future: impl Future<Output = T>) -> T {
        let _step = self.begin(what);
        future.await
    }

    /// As [`step`](Self::step), but it fails alone when it takes more than ten seconds.
    pub(crate) async fn soon<T>(&self, what: impl Into<String>, future: impl Future<Output = T>) -> T {
        let what = what.into();
        let _step = self.begin(what.clone());
        let done = tokio::time::timeout(Duration::from_secs(10), future).await;
        done.unwrap_or_else(|_| panic!("waits for ever: {what}"))
    }

    /// As [`step`](Self::step), for tasks: the step goes on until what is returned is dropped.
    pub(crate) fn begin(&self, what: impl Into<String>) -> Step {
        self.steps.begin(what.into())
    }

    /// Notes that the session lacks `capability`, and what was asserted instead.
    pub(crate) fn without(&self, capability: Capabilities, asserted: &str) {
        self.note(format!("without {capability}: {asserted}"));
    }

    /// Notes something that the report shall tell. The same for every seed.
    pub(crate) fn note(&self, text: impl Into<String>) {
        lock(&self.notes).insert(text.into());
    }

    pub(crate) fn notes(&self) -> BTreeSet<String> {
        lock(&self.notes).clone()
    }

    /// Two connected ends, configured by `tune`.
    pub(crate) async fn pair(&self, tune: impl Fn(&mut Config)) -> Pair {
        let (client, server) = self.subject.configs(tune);
        self.pair_of(&client, &server, None).await
    }

    /// Two connected ends with a link between them.
    pub(crate) async fn pair_via(&self, link: &Link, tune: impl Fn(&mut Config)) -> Pair {
        let (client, server) = self.subject.configs(tune);
        self.pair_of(&client, &server, Some(link)).await
    }

    /// Two connected ends, each with a configuration of its own.
    pub(crate) async fn pair_of(&self, client: &Config, server: &Config, link: Option<&Link>) -> Pair {
        let ends = self.step("connecting", self.subject.connect(client, server, link)).await;
        let ends = ends.unwrap_or_else(|error| panic!("no session: {error:?}"));
        self.watch("the dialer's session", &ends.client);
        self.watch("the acceptor's session", &ends.server);
        Pair { client: ends.client, server: ends.server, _listener: ends.listener }
    }

    /// A session that must be gone when the scenario is over. Sessions of [`pair`](Self::pair) are watched already.
    pub(crate) fn watch(&self, name: &str, session: &Session) {
        lock(&self.sessions).push((name.to_owned(), Arc::downgrade(session.ops())));
    }

    /// A link that holds `capacity` bytes in each direction.
    pub(crate) fn link(&self, capacity: usize) -> Link {
        let link = Link::new(capacity);
        lock(&self.links).push(link.clone());
        link
    }

    /// Runs `scenario(opener, acceptor)` with each end in the opener's place, on one session, and closes it politely;
    /// after each, nothing of it may be left in the session.
    pub(crate) async fn both_ways<F>(&self, tune: impl Fn(&mut Config), scenario: F)
    where
        F: AsyncFn(&Session, &Session),
    {
        let pair = self.pair(tune).await;
        self.both_ways_on(&pair, scenario).await;
        self.close(pair).await;
    }

    /// As [`both_ways`](Self::both_ways), on sessions that stay open.
    pub(crate) async fn both_ways_on<F>(&self, pair: &Pair, scenario: F)
    where
        F: AsyncFn(&Session, &Session),
    {
        {
            let _step = self.begin("the dialer opens");
            scenario(&pair.client, &pair.server).await;
            self.settled(pair).await;
        }
        if self.server_may_open(pair).await {
            let _step = self.begin("the acceptor opens");
            scenario(&pair.server, &pair.client).await;
            self.settled(pair).await;
        }
    }

    /// Whether the accepting side may open channels; where it may not, its `open` must say so.
    pub(crate) async fn server_may_open(&self, pair: &Pair) -> bool {
        if pair.server.capabilities().contains(Capabilities::SERVER_OPEN) {
            return true;
        }
        let refused = pair.server.open().await.expect_err("the accepting side cannot open");
        assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused:?}");
        let refused = pair.server.try_open(&OpenOptions::new()).expect_err("the accepting side cannot open");
        assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused:?}");
        self.without(Capabilities::SERVER_OPEN, "the accepting side's open() is Unsupported");
        false
    }

    /// Waits until neither end has a channel, a reserved byte, or a byte in a buffer.
    pub(crate) async fn settled(&self, pair: &Pair) {
        for (name, session) in [("the dialer", &pair.client), ("the acceptor", &pair.server)] {
            let _step = self.begin(format!("{name} gives up its channels and their memory"));
            let mut last = String::new();
            let given_up = async {
                loop {
                    let stats = session.stats();
                    if stats.channels_open + stats.budget_used + stats.recv_buffered + stats.send_buffered == 0 {
                        return;
                    }
                    last = format!("{stats:?}");
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            let in_time = tokio::time::timeout(self.patience, given_up).await;
            assert!(in_time.is_ok(), "{name} still holds what belongs to channels that are over: {last}");
        }
    }

    /// Ends the session politely from the dialer's side, and waits for both ends.
    pub(crate) async fn close(&self, pair: Pair) {
        pair.client.close(0, "the scenario is over").expect("closes");
        self.step("the dialer's end of the session", pair.client.closed()).await;
        self.step("the acceptor's end of the session", pair.server.closed()).await;
    }

    /// Ends what the suite itself runs.
    pub(crate) fn stop(&self) {
        for link in lock(&self.links).drain(..) {
            link.stop();
        }
    }

    /// The sessions that still exist although nobody holds a handle.
    pub(crate) fn left(&self) -> Vec<String> {
        let sessions = lock(&self.sessions);
        sessions.iter().filter(|(_, ops)| ops.strong_count() > 0).map(|(name, _)| name.clone()).collect()
    }
}
