//! HTTP/2's windows beside the credit of records: whatever a channel may send has room in the stream window of the hop
//! before its receiver. A hop that lacks it may stop reading the connection, and with it the window it waits for.

mod common;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use common::{dial, listen, within};
use mux_api::{Config, Session};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

const DATA: u8 = 0;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const CREDIT: u8 = 4;

/// What a hop knows of one direction of a stream.
#[derive(Default)]
struct Flow {
    /// Bytes of DATA, and what WINDOW_UPDATE gave.
    sent: i64,
    returned: i64,
    /// Payload of data records so far, and what the records in between look like.
    payload: i64,
    held: Vec<u8>,
    skip: usize,
}

/// The direction towards one end.
#[derive(Default)]
struct Towards {
    initial: i64,
    flows: HashMap<u32, Flow>,
}

/// A hop's view; 0 is the direction to the client.
#[derive(Default)]
struct Hop {
    towards: [Towards; 2],
    /// The least room that a credit was ever given with: the stream window less what may come.
    least: Option<i64>,
    credits: usize,
    /// SETTINGS of each end that ask for an acknowledgement.
    settings: [usize; 2],
}

impl Hop {
    /// A frame that comes from the end `from`.
    fn frame(&mut self, from: usize, kind: u8, flags: u8, stream: u32, body: &[u8]) {
        let number = |bytes: &[u8]| i64::from(u32::from_be_bytes(bytes.try_into().expect("4 bytes")));
        match kind {
            SETTINGS if flags & 1 == 0 => {
                self.settings[from] += 1;
                for setting in body.chunks_exact(6).filter(|setting| setting[..2] == [0, 4]) {
                    self.towards[from].initial = number(&setting[2..]);
                }
            }
            WINDOW_UPDATE if stream > 0 => {
                self.towards[from].flows.entry(stream).or_default().returned += number(body);
            }
            DATA => {
                let flow = self.towards[1 - from].flows.entry(stream).or_default();
                flow.sent += body.len() as i64;
                for credit in flow.records(body) {
                    let towards = &mut self.towards[from];
                    let flow = towards.flows.entry(stream).or_default();
                    let room = towards.initial + flow.returned - flow.sent - (credit - flow.payload);
                    self.least = Some(self.least.map_or(room, |least| least.min(room)));
                    self.credits += 1;
                }
            }
            _ => {}
        }
    }
}

impl Flow {
    /// Cuts the records of a DATA frame; the credits among them.
    fn records(&mut self, mut body: &[u8]) -> Vec<i64> {
        let mut credits = Vec::new();
        while !body.is_empty() {
            let take = self.skip.min(body.len());
            self.skip -= take;
            self.payload += take as i64;
            body = &body[take..];
            while self.skip == 0 && !body.is_empty() {
                self.held.push(body[0]);
                body = &body[1..];
                let Some(head) = self.held.first_chunk::<5>() else { continue };
                let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
                if head[0] == 0 {
                    self.skip = len;
                    self.held.clear();
                } else if self.held.len() == 5 + len {
                    if self.held[5] == CREDIT {
                        credits.push(i64::from_be_bytes(self.held[6..14].try_into().expect("8 bytes")));
                    }
                    self.held.clear();
                }
            }
        }
        credits
    }
}

/// Passes everything on, and looks at it.
async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, end: usize, hop: Arc<Mutex<Hop>>) -> Option<()> {
    if end == 0 {
        let mut preface = [0; 24];
        from.read_exact(&mut preface).await.ok()?;
        to.write_all(&preface).await.ok()?;
    }
    loop {
        let mut frame = vec![0; 9];
        from.read_exact(&mut frame).await.ok()?;
        let len = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]) as usize;
        frame.resize(9 + len, 0);
        from.read_exact(&mut frame[9..]).await.ok()?;
        let stream = u32::from_be_bytes([frame[5], frame[6], frame[7], frame[8]]);
        hop.lock().expect("hop").frame(end, frame[3], frame[4], stream, &frame[9..]);
        to.write_all(&frame).await.ok()?;
    }
}

/// Bytes go to and fro in pieces of many sizes, on a channel that `opener` opens.
/// Returns the largest window that its receiver held meanwhile.
async fn echo(opener: &Session, acceptor: &Session, len: usize, pieces: &[usize]) -> u64 {
    let near = opener.open().await.expect("opens");
    let ((mut send, mut recv), accepting) = (near.split(), acceptor.accept());
    let there = async {
        let mut at = 0;
        for piece in pieces.iter().cycle() {
            let piece = vec![7; (*piece).min(len - at)];
            send.write_all(&piece).await.expect("writes");
            at += piece.len();
            if at == len {
                break;
            }
        }
        send.finish().expect("finishes");
    };
    let far = async {
        let (mut send, mut recv) = accepting.await.expect("accepts").split();
        while let Some(bytes) = recv.read_bytes(usize::MAX).await.expect("reads") {
            send.write_bytes(bytes).await.expect("echoes");
        }
        send.finish().expect("finishes");
        send.ended().await.expect("is taken");
    };
    let back = async {
        let (mut got, mut held) = (0, 0);
        while let Some(bytes) = recv.read_bytes(70_000).await.expect("reads") {
            got += bytes.len();
            held = held.max(opener.stats().budget_used);
        }
        assert_eq!(got, len);
        held
    };
    tokio::join!(there, far, back).2
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credit_never_exceeds_the_stream_window_that_a_hop_knows() {
    for window in [16 << 10, 256 << 10, 1 << 20] {
        let mut config = Config::default();
        config.window = window;
        let listener = listen("h2c://127.0.0.1:0", &config).await.expect("listens");
        let between = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let url = format!("h2c://{}", between.local_addr().expect("address"));
        let target = listener.url().split_once("://").expect("scheme").1.to_owned();
        let hop = Arc::new(Mutex::new(Hop::default()));
        let seen = Arc::clone(&hop);
        tokio::spawn(async move {
            let (near, _) = between.accept().await.expect("accepts");
            let far = TcpStream::connect(target).await.expect("connects");
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::join!(copy(near_in, far_out, 0, Arc::clone(&seen)), copy(far_in, near_out, 1, seen));
        });
        let (client, server) = tokio::join!(dial(&url, &config), listener.accept());
        let (client, server) = (client.expect("dials"), server.expect("accepts"));
        let len = 16 * window as usize;
        let up = within(echo(&client, &server, len, &[10, 100_000, 3, 65_536, 300_000, 1])).await;
        let down = within(echo(&server, &client, len, &[50_000, 7])).await;
        assert!(up.max(down) > u64::from(window), "no window grew: {up} and {down} bytes at most");
        let hop = hop.lock().expect("hop");
        // An end that has some to acknowledge reads nothing before it could write: never both at once.
        assert_eq!(hop.settings[1], 1, "the accepting end changed its settings");
        assert!(hop.credits > 10, "{} credits", hop.credits);
        assert!(hop.least >= Some(0), "window {window}: a credit exceeded the stream window by {:?}", hop.least);
    }
}
