//! What an opening costs on a long way, in steps of that way instead of time: a link that holds all bytes until it is told
//! to pass them on.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use backend_h2::H2Backend;
use mux_api::backend::{Backend, ByteStream};
use mux_api::{Channel, Config, Role, Session};
use tokio::io::{AsyncRead, AsyncWriteExt, DuplexStream, ReadBuf, duplex, split};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::advance;

/// The middle of the way: what it gets from either end reaches the other with the next step.
struct Way {
    ends: [DuplexStream; 2],
}

impl Way {
    /// What an end has said since the last step.
    async fn said(end: &mut DuplexStream) -> Vec<u8> {
        let (mut said, mut some) = (Vec::new(), [0; 4096]);
        poll_fn(|cx| {
            loop {
                let mut buf = ReadBuf::new(&mut some);
                match Pin::new(&mut *end).poll_read(cx, &mut buf) {
                    Poll::Ready(Ok(())) if !buf.filled().is_empty() => said.extend_from_slice(buf.filled()),
                    _ => return Poll::Ready(()),
                }
            }
        })
        .await;
        said
    }

    /// Everything that is under way arrives, and is worked on; how much the server and the client have said.
    async fn step(&mut self) -> [usize; 2] {
        settle().await;
        let [near, far] = &mut self.ends;
        let (up, down) = (Self::said(near).await, Self::said(far).await);
        far.write_all(&up).await.expect("there is room");
        near.write_all(&down).await.expect("there is room");
        settle().await;
        [down.len(), up.len()]
    }

    /// Steps until a task is done; how many.
    async fn until<T>(&mut self, task: JoinHandle<T>) -> (usize, T) {
        for steps in 0..50 {
            settle().await;
            if task.is_finished() {
                return (steps, task.await.expect("ends"));
            }
            self.step().await;
        }
        panic!("does not end");
    }
}

/// Lets every task of this thread go as far as it can.
async fn settle() {
    for _ in 0..200 {
        yield_now().await;
    }
}

async fn connect() -> (Session, Session, Way) {
    let ((client, near), (server, far)) = (duplex(1 << 20), duplex(1 << 20));
    let mut way = Way { ends: [near, far] };
    let [client, server] = [(client, Role::Client), (server, Role::Server)].map(|(stream, role)| {
        let (reader, writer) = split(stream);
        let stream = ByteStream::new(reader, writer);
        let mut config = Config::default();
        config.keepalive = Duration::ZERO;
        tokio::spawn(async move { H2Backend.adopt("h2c", stream, role, &config).await.expect("starts") })
    });
    let (_, client) = way.until(client).await;
    let (_, server) = way.until(server).await;
    // Until the requests are parked.
    for _ in 0..4 {
        way.step().await;
    }
    (client, server, way)
}

/// Opens so many channels at once, each of which is echoed a byte; after how many steps each had it, and the channels.
async fn open(opener: &Session, acceptor: &Session, way: &mut Way, count: usize) -> (Vec<usize>, Vec<Channel>) {
    let acceptor = acceptor.clone();
    let echoing = tokio::spawn(async move {
        let mut echoed = Vec::new();
        for _ in 0..count {
            let mut channel = acceptor.accept().await.expect("accepts");
            let mut byte = [0];
            channel.read(&mut byte).await.expect("reads");
            channel.write_all(&byte).await.expect("writes");
            echoed.push(channel);
        }
        echoed
    });
    let mut waiting = Vec::new();
    for _ in 0..count {
        let opener = opener.clone();
        waiting.push(tokio::spawn(async move {
            let mut channel = opener.open().await.expect("opens");
            channel.write_all(b"x").await.expect("writes");
            channel.read(&mut [0]).await.expect("reads");
            channel
        }));
    }
    let (mut steps, mut all, mut channels) = (0, Vec::new(), Vec::new());
    for one in waiting {
        let (more, channel) = way.until(one).await;
        steps += more;
        all.push(steps);
        channels.push(channel);
    }
    channels.extend(echoing.await.expect("echoes"));
    (all, channels)
}

/// There and back: one round trip.
const ROUND_TRIP: usize = 2;

#[tokio::test]
async fn an_open_of_the_servers_costs_one_round_trip_while_requests_are_parked() {
    let (client, server, mut way) = connect().await;
    let mut kept = Vec::new();
    for _ in 0..5 {
        // As many as are parked at first; they are replaced meanwhile.
        let (steps, channels) = open(&server, &client, &mut way, 8).await;
        assert_eq!(steps, [ROUND_TRIP; 8]);
        kept.push(channels);
    }
    let (steps, _channels) = open(&client, &server, &mut way, 100).await;
    assert_eq!(steps, [ROUND_TRIP; 100], "the client's opens need no parked request");
}

#[tokio::test]
async fn a_dry_pool_costs_one_round_trip_more_and_becomes_larger() {
    let (client, server, mut way) = connect().await;
    let (steps, kept) = open(&server, &client, &mut way, 16).await;
    assert_eq!(steps, [[ROUND_TRIP; 8], [2 * ROUND_TRIP; 8]].concat());
    drop(kept);
    for _ in 0..4 {
        way.step().await;
    }
    let (steps, _channels) = open(&server, &client, &mut way, 16).await;
    assert_eq!(steps, [ROUND_TRIP; 16], "the pool was doubled");
}

#[tokio::test(start_paused = true)]
async fn a_parked_request_is_turned_away_in_time_and_replaced() {
    let (client, server, mut way) = connect().await;
    // A hop may end a request that has been silent for 30 s.
    let (least, most) = (Duration::from_secs(20), Duration::from_secs(25));
    for _ in 0..3 {
        advance(least - Duration::from_millis(1)).await;
        assert_eq!(way.step().await, [0, 0], "nothing is due");
        advance(most - least + Duration::from_millis(1)).await;
        let [answers, _] = way.step().await;
        let [_, requests] = way.step().await;
        assert!(answers > 0 && requests > 0, "{answers} bytes from the server, {requests} from the client");
    }
    let (steps, _channels) = open(&server, &client, &mut way, 8).await;
    assert_eq!(steps, [ROUND_TRIP; 8], "as many are parked as before");
}
