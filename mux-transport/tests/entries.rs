//! A connection that carries several sessions counts as several with its listener.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use mux_api::backend::{ChannelParts, SessionOps};
use mux_api::{Capabilities, Config, Error, Listener, OpenOptions, Result, Role, Session, SessionInfo, Stats, Url};
use mux_transport::{ByteStream, Entry, Handshake, More, StreamListener};

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("finishes in time")
}

/// A session without a wire that counts how many of its kind were let go.
struct Silent {
    info: SessionInfo,
    aborted: Arc<AtomicUsize>,
}

impl SessionOps for Silent {
    fn info(&self) -> &SessionInfo {
        &self.info
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn poll_open(&self, _cx: &mut Context<'_>, _options: &OpenOptions) -> Poll<Result<ChannelParts>> {
        Poll::Pending
    }

    fn poll_can_open(&self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    fn poll_accept(&self, _cx: &mut Context<'_>) -> Poll<Result<ChannelParts>> {
        Poll::Pending
    }

    fn poll_flush(&self, _cx: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn drain(&self) {}

    fn close(&self, _code: u64, _reason: &str) {}

    fn abort(&self, _code: u64) {
        self.aborted.fetch_add(1, Ordering::Relaxed);
    }

    fn poll_closed(&self, _cx: &mut Context<'_>) -> Poll<Error> {
        Poll::Pending
    }

    fn cause(&self) -> Option<Error> {
        None
    }

    fn stats(&self) -> Stats {
        Stats::default()
    }
}

/// Makes as many sessions of each connection as the listener has room for.
#[derive(Default)]
struct Several {
    aborted: Arc<AtomicUsize>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    streams: Vec<ByteStream>,
    live: Vec<Box<dyn Send>>,
    more: Option<More>,
}

impl Several {
    fn session(&self) -> Session {
        Session::new(Arc::new(Silent { info: SessionInfo::new(Role::Server, ""), aborted: Arc::clone(&self.aborted) }))
    }
}

#[async_trait]
impl Handshake for Several {
    async fn shake_hands(&self, stream: ByteStream, entry: Entry) -> Result<()> {
        let mut held = self.held.lock().expect("nobody panicked");
        held.streams.push(stream);
        let mut next = Some(entry);
        while let Some(Entry { live, give, more }) = next {
            give.session(self.session());
            held.live.push(live);
            next = more.entry();
            held.more = Some(more);
        }
        Ok(())
    }

    fn reload(&self, _config: &Config) -> Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_connection_gives_as_many_sessions_as_the_listener_has_room_for() {
    within(async {
        let several = Arc::new(Several::default());
        let mut config = Config::default();
        config.max_sessions = 3;
        let acceptor = mux_transport::bind(&Url::parse("tcp://127.0.0.1:0").expect("a URL")).await.expect("binds");
        let address = format!("tcp:{}", acceptor.address());
        let handshake: Arc<dyn Handshake> = Arc::clone(&several) as _;
        let listener = Listener::new(StreamListener::start(acceptor, address.clone(), handshake, &config));
        let url = Url::parse(&address).expect("a URL");
        let _near = mux_transport::connect(&url).await.expect("connects");
        let mut sessions = Vec::new();
        for _ in 0..2 {
            sessions.push(listener.accept().await.expect("accepts"));
        }
        // The listener has set the last place aside for the next connection.
        let _another = mux_transport::connect(&url).await.expect("connects");
        sessions.push(listener.accept().await.expect("accepts"));
        let more = several.held.lock().expect("nobody panicked").more.take().expect("the handshake kept it");
        assert!(more.entry().is_none(), "three live sessions are all there may be");

        // Of two places, the next connection claims one at most.
        several.held.lock().expect("nobody panicked").live.truncate(1);
        let entry = more.entry().expect("there is room again");
        listener.close();
        listener.closed().await;
        entry.give.session(several.session());
        assert_eq!(several.aborted.load(Ordering::Relaxed), 1, "nobody listens any more: the session is let go");
        drop(sessions);
        assert_eq!(several.aborted.load(Ordering::Relaxed), 4);
    })
    .await;
}
