//! An end at any moment, of the network or of either side, is never a short read with a clean end.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::relay::{Relay, Way, address_of};
use common::{certificate, dial, listen, server_config, within};
use mux_api::{Channel, Config, Error, ErrorKind, OpenOptions, Origin, Session};
use tokio::task::JoinSet;

/// What a transfer is made of.
const LEN: usize = 2 << 20;

/// What ends a transfer.
#[derive(Clone, Copy, Debug)]
enum Kill {
    /// The network, after so many datagrams.
    Network(u64),
    /// The dialer's process, after so many bytes.
    Dialer(usize),
    /// The acceptor's.
    Acceptor(usize),
}

/// What the two sides agree on, as the channel's label.
#[derive(Clone, Copy)]
struct Plan {
    down: bool,
    /// Where the acceptor goes.
    acceptor: usize,
}

impl Plan {
    fn label(self) -> Vec<u8> {
        format!("{}{}", if self.down { "down" } else { "up" }, self.acceptor).into_bytes()
    }

    fn read(label: &[u8]) -> Self {
        let label = std::str::from_utf8(label).expect("text");
        let down = label.starts_with("down");
        let acceptor = label.trim_start_matches(|letter: char| letter.is_alphabetic()).parse().expect("a number");
        Self { down, acceptor }
    }
}

/// How a transfer went here.
#[derive(Debug, PartialEq, Eq)]
enum Went {
    /// Whole, and the other side knows.
    Whole,
    /// The other side, or the way to it, was lost.
    Lost,
    /// This side goes, without a word.
    Gone,
}

/// Silence; or, where the peer has noticed it earlier on a busy machine and a last packet found it gone, that; or the
/// peer's last handle was dropped.
fn is_lost(error: &Error) -> bool {
    match error.origin() {
        Origin::Transport => matches!(error.kind(), ErrorKind::Idle | ErrorKind::Closed),
        Origin::Peer => matches!(error.kind(), ErrorKind::Closed | ErrorKind::Reset | ErrorKind::Stopped),
        _ => false,
    }
}

/// Reads to the end, to the error, or to the byte `until`.
async fn read_until(channel: &mut Channel, until: usize, what: &str) -> Went {
    let (mut total, mut buf) = (0, vec![0; 60_000]);
    loop {
        if total >= until {
            return Went::Gone;
        }
        match within(channel.read(&mut buf)).await {
            Ok(0) => break,
            Ok(len) => total += len,
            Err(error) => {
                assert!(is_lost(&error), "{what}: {error:?}");
                return Went::Lost;
            }
        }
    }
    assert_eq!(total, LEN, "{what}: a short read with a clean end");
    Went::Whole
}

async fn write_until(channel: &mut Channel, until: usize, what: &str) -> Went {
    let data = vec![7; LEN];
    let written = within(channel.write_all(&data[..until.min(LEN)])).await;
    if until <= LEN && written.is_ok() {
        return Went::Gone;
    }
    match written.and_then(|()| channel.finish()) {
        Ok(()) if within(channel.send_half().ended()).await.is_ok() => Went::Whole,
        Ok(()) => Went::Lost,
        Err(error) => {
            assert!(is_lost(&error), "{what}: {error:?}");
            Went::Lost
        }
    }
}

/// The dialer's side.
async fn transfer(url: String, pin: [u8; 32], down: bool, kill: Kill) {
    let what = format!("{kill:?}");
    let limit = if let Kill::Network(limit) = kill { limit } else { u64::MAX };
    let relay = Relay::start(address_of(&url), Way { limit, ..Way::default() }).await;
    let mut config = Config::default();
    config.tls.pins = vec![pin];
    config.keepalive = Duration::from_millis(250);
    config.connect_timeout = Duration::from_secs(2);
    let session = match dial(&format!("quic://{}", relay.address), &config).await {
        Ok(session) => session,
        Err(error) => {
            assert!(error.kind() == ErrorKind::TimedOut || is_lost(&error), "{what}: {error:?}");
            return;
        }
    };
    let acceptor = if let Kill::Acceptor(at) = kill { at } else { usize::MAX };
    let until = if let Kill::Dialer(at) = kill { at } else { usize::MAX };
    let label = Plan { down, acceptor }.label();
    let mut channel = session.open_with(&OpenOptions::new().label(label)).await.expect("opens");
    let went =
        if down { read_until(&mut channel, until, &what).await } else { write_until(&mut channel, until, &what).await };
    match went {
        Went::Whole => {}
        Went::Gone => assert!(matches!(kill, Kill::Dialer(_)), "{what}"),
        Went::Lost => {
            assert!(is_lost(&within(session.closed()).await), "{what}");
            assert!(channel.write_all(b"x").await.is_err(), "{what}");
            assert!(session.open().await.is_err(), "{what}");
        }
    }
}

/// The acceptor's side.
async fn serve(session: Session) {
    while let Ok(mut channel) = session.accept().await {
        let plan = Plan::read(channel.label());
        let what = format!("at the acceptor, until {}", plan.acceptor);
        let went = if plan.down {
            write_until(&mut channel, plan.acceptor, &what).await
        } else {
            read_until(&mut channel, plan.acceptor, &what).await
        };
        if went == Went::Gone {
            return;
        }
    }
    let cause = session.closed().await;
    assert!(matches!(cause.kind(), ErrorKind::Idle | ErrorKind::Closed), "{cause:?}");
}

async fn kill_at(points: usize) {
    let made = certificate();
    let mut server = server_config(&made);
    server.keepalive = Duration::from_millis(250);
    let listener = Arc::new(listen("quic://127.0.0.1:0", &server).await);
    let accepting = Arc::clone(&listener);
    let serving = tokio::spawn(async move {
        let mut sessions = JoinSet::new();
        while let Ok(session) = accepting.accept().await {
            sessions.spawn(serve(session));
        }
        sessions
    });
    let mut seed = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_nanos() as u64 | 1;
    println!("seed {seed}");
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    for _ in 0..points / 25 {
        let mut attempts = JoinSet::new();
        for at in 0..25 {
            let kill = match at % 5 {
                // In the handshake, in the first packets, anywhere in the transfer.
                0 => Kill::Network(random(20)),
                1 => Kill::Network(random(100)),
                2 => Kill::Network(random(2000)),
                3 => Kill::Dialer(random(LEN as u64) as usize),
                _ => Kill::Acceptor(random(LEN as u64) as usize),
            };
            attempts.spawn(transfer(listener.url().to_owned(), made.pin, random(2) == 0, kill));
        }
        while let Some(attempt) = attempts.join_next().await {
            attempt.expect("attempt");
        }
    }
    listener.close();
    let mut sessions = within(serving).await.expect("serving");
    while let Some(session) = within(sessions.join_next()).await {
        session.expect("the listener's side of an attempt");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_side_that_is_killed_in_mid_transfer_is_never_a_clean_end() {
    kill_at(100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn a_side_that_is_killed_at_a_thousand_points_is_never_a_clean_end() {
    kill_at(1000).await;
}
