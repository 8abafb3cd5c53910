//! Listeners. Clause 10: their end is explained and leaves sessions alone. Clause 13: a dropped accept loses no session.
//! Clause 15: what can be replaced while they run.

use mux_api::{Channel, Config, ErrorKind, Listener, Origin, Session};

use crate::context::Cx;
use crate::scenario::{Needs, Scenario, scenario};
use crate::tools::{answer, assert_refused, channel, once, read_exactly};

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario!(
        10,
        "listener-closed",
        "A listener that is closed stops: its accept fails, dials fail, its sessions live on, and its address is free.",
        listener_closed
    )
    .needs(Needs::Listener),
    scenario!(
        13,
        "sessions-accepted-once",
        "Dropped accepts of a listener, and of its end, lose no session, and none is seen twice.",
        sessions_accepted_once
    )
    .needs(Needs::Listener),
    scenario!(
        15,
        "listener-reloaded",
        "A listener's certificate and limits are replaced while it runs, for the sessions that come; what cannot be used \
         changes nothing.",
        listener_reloaded
    )
    .needs(Needs::Listener),
];

async fn connect(cx: &Cx, listener: &Listener, config: &Config) -> (Session, Session) {
    let dialing = cx.subject.dial(listener.url(), config, None);
    let (dialed, accepted) = cx.step("connecting", async { tokio::join!(dialing, listener.accept()) }).await;
    let (dialed, accepted) = (dialed.expect("dials"), accepted.expect("accepts"));
    cx.watch("a dialed session", &dialed);
    cx.watch("an accepted session", &accepted);
    (dialed, accepted)
}

/// A message on a channel of its own: the session lives.
async fn lives(cx: &Cx, dialed: &Session, accepted: &Session) {
    let (mut near, mut far) = cx.step("opening", channel(dialed, accepted)).await;
    near.write_all(b"alive").await.expect("writes");
    cx.step("a message", read_exactly(far.recv_half(), b"alive")).await;
    near.close();
    far.close();
}

async fn end(cx: &Cx, (dialed, accepted): (Session, Session)) {
    dialed.close(0, "").expect("closes");
    cx.step("the dialer's end", dialed.closed()).await;
    cx.step("the acceptor's end", accepted.closed()).await;
}

async fn listener_closed(cx: &Cx) {
    // The last packet of a dial that failed may reach who listens next, and is then waited on for as long as this says.
    let (client, server) = cx.subject.configs(|config| config.keepalive = std::time::Duration::from_secs(2));
    let listener = cx.subject.listen(&server).await.expect("listens");
    let url = listener.url().to_owned();
    let old = connect(cx, &listener, &client).await;
    assert_eq!(listener.try_accept().expect_err("nobody dials").kind(), ErrorKind::Blocked);
    assert!(once(listener.closed()).await.is_none(), "it listens");
    listener.close();
    cx.step("the listener's end", listener.closed()).await;
    listener.close();
    cx.step("the listener's end, again", listener.closed()).await;
    for error in [
        cx.step("an accept", listener.accept()).await.expect_err("it is closed"),
        listener.try_accept().expect_err("it is closed"),
    ] {
        assert_eq!((error.kind(), error.origin()), (ErrorKind::Closed, Origin::Local), "{error:?}");
    }
    lives(cx, &old.0, &old.1).await;
    end(cx, old).await;
    drop(listener);
    let error = cx.step("a dial where nobody listens", cx.subject.dial(&url, &client, None)).await;
    let error = error.expect_err("nobody listens");
    assert!(!matches!(error.kind(), ErrorKind::Internal | ErrorKind::Blocked), "{error:?}");
    assert_ne!(error.message(), "", "{error:?}");
    let again = cx.step("listening there again", listen_again(cx, &url, &server)).await;
    let new = connect(cx, &again, &client).await;
    lives(cx, &new.0, &new.1).await;
    end(cx, new).await;
}

/// Where sessions share the listener's socket, its address is free once they are gone, which may take a moment.
async fn listen_again(cx: &Cx, url: &str, config: &Config) -> Listener {
    loop {
        match cx.subject.listen_again(url, config).await {
            Ok(listener) => return listener,
            Err(error) => assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error:?}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

async fn sessions_accepted_once(cx: &Cx) {
    const COUNT: u8 = 8;
    let (client, server) = cx.subject.configs(|_| ());
    let listener = cx.subject.listen(&server).await.expect("listens");
    let dialing = async {
        let mut dialed = Vec::new();
        for at in 0..COUNT {
            let session = cx.subject.dial(listener.url(), &client, None).await.expect("dials");
            cx.watch("a dialed session", &session);
            let mut near = session.open().await.expect("opens");
            near.write_all(&[at]).await.expect("writes");
            dialed.push((session, near));
        }
        dialed
    };
    let accepting = async {
        let (mut seen, mut accepted) = (Vec::new(), Vec::new());
        while seen.len() < usize::from(COUNT) {
            assert!(once(listener.closed()).await.is_none(), "it listens");
            let Some(session) = once(listener.accept()).await else {
                tokio::time::sleep(std::time::Duration::from_micros(200)).await;
                continue;
            };
            let session = session.expect("accepts");
            cx.watch("an accepted session", &session);
            let mut far = session.accept().await.expect("accepts a channel");
            let mut byte = [0];
            assert_eq!(far.read(&mut byte).await.expect("reads"), 1);
            seen.push(byte[0]);
            accepted.push((session, far));
        }
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..COUNT), "each once");
        accepted
    };
    let both = cx.step("dials against accepts that are dropped", async { tokio::join!(dialing, accepting) }).await;
    assert!(listener.try_accept().is_err(), "no more than were dialed");
    drop(both);
}

async fn listener_reloaded(cx: &Cx) {
    let (client, server) = cx.subject.configs(|_| ());
    let (new_client, mut new_server, new_certificate) = cx.subject.reloaded_configs();
    new_server.channel_backlog = 1;
    let listener = cx.subject.listen(&server).await.expect("listens");
    let old = connect(cx, &listener, &client).await;
    if let Err(error) = listener.reload(&new_server) {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
        cx.note("reload() of a listener is Unsupported and changes nothing");
        let still = connect(cx, &listener, &client).await;
        lives(cx, &still.0, &still.1).await;
        end(cx, still).await;
        return end(cx, old).await;
    }
    let new = connect(cx, &listener, &new_client).await;
    let (first, mut second) = two_unaccepted(cx, &new).await;
    let refused = cx.step("the refusal", second.read(&mut [0])).await.expect_err("the new backlog holds one");
    assert_refused(&refused, mux_api::codes::REFUSED);
    drop((first, second));
    let kept = two_unaccepted(cx, &old).await;
    for _ in 0..2 {
        cx.step("the old session keeps its limits", old.1.accept()).await.expect("accepts").close();
    }
    drop(kept);
    if new_certificate {
        let dialed = cx.step("a dial that trusts the old certificate", cx.subject.dial(listener.url(), &client, None));
        assert_eq!(dialed.await.expect_err("it is another").kind(), ErrorKind::Certificate);
        let mut broken = new_server.clone();
        broken.tls.identity_pem = Some((b"no certificate".to_vec(), b"no key".to_vec()));
        listener.reload(&broken).expect_err("cannot be used");
        let unchanged = connect(cx, &listener, &new_client).await;
        lives(cx, &unchanged.0, &unchanged.1).await;
        end(cx, unchanged).await;
    }
    end(cx, new).await;
    end(cx, old).await;
}

/// Opens two channels that nobody accepts, the second one once the first is known to wait.
async fn two_unaccepted(cx: &Cx, (dialed, _): &(Session, Session)) -> (Channel, Channel) {
    let mut first = cx.step("opening", dialed.open()).await.expect("opens");
    cx.step("the answer to it", answer(dialed, &mut first)).await.expect("there is room for one");
    (first, cx.step("opening", dialed.open()).await.expect("opens"))
}
