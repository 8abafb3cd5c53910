//! A listener with an honest session, and peers that write what they like.

use std::time::Duration;

use libmux::{Config, Listener, Session};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The announcement (docs/qmux.md 3.1).
pub(crate) const HELLO: [u8; 13] = [100, 255, 255, 255, 255, b'l', b'm', b'u', b'1', 0, 0, 0, 0];

pub(crate) struct Attacked {
    pub(crate) listener: Listener,
    honest: (Session, Session),
}

impl Attacked {
    pub(crate) async fn new(config: &Config) -> Self {
        let listener = libmux::listen("qmux://127.0.0.1:0", config).await.expect("listens");
        let (near, far) = tokio::join!(libmux::dial(listener.url(), config), listener.accept());
        Self { honest: (near.expect("dials"), far.expect("accepts")), listener }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        let address = self.listener.url().split("//").nth(1).expect("host and port");
        TcpStream::connect(address).await.expect("connects")
    }

    /// An attacker that announced the extension, and the session it attacks.
    pub(crate) async fn attacker(&self) -> (TcpStream, Session) {
        let mut stream = self.connect().await;
        stream.write_all(&HELLO).await.expect("announces");
        let session = within(self.listener.accept()).await.expect("accepts");
        let mut greeting = [0; 39];
        stream.read_exact(&mut greeting).await.expect("their announcement, limits and first ping");
        assert_eq!(greeting[..13], HELLO);
        assert_eq!((greeting[13], greeting[26]), (118, 115));
        (stream, session)
    }

    /// As [`attacker`](Self::attacker), with a channel that both sides have: number 0 for the victim.
    pub(crate) async fn attacker_with_channel(&self) -> (TcpStream, Session, libmux::Channel) {
        let (mut stream, session) = self.attacker().await;
        stream.write_all(&open(7, 1 << 20, 65_536)).await.expect("opens");
        let channel = within(session.accept()).await.expect("accepts");
        let mut confirm = [0; 17];
        stream.read_exact(&mut confirm).await.expect("a confirmation");
        assert_eq!(confirm[..9], [101, 0, 0, 0, 7, 0, 0, 0, 0]);
        (stream, session, channel)
    }

    /// The honest session and the listener work as if nothing had happened.
    pub(crate) async fn assert_unharmed(&self) {
        let (near, far) = &self.honest;
        echo(near, far).await;
        let config = Config::default();
        let dial = libmux::dial(self.listener.url(), &config);
        let (near, far) = within(async { tokio::join!(dial, self.listener.accept()) }).await;
        echo(&near.expect("dials"), &far.expect("accepts")).await;
    }
}

async fn echo(near: &Session, far: &Session) {
    within(async {
        let mut near = near.open().await.expect("opens");
        let mut far = far.accept().await.expect("accepts");
        let data = vec![9; 100_000];
        let mut got = vec![0; data.len()];
        near.write_all(&data).await.expect("writes");
        far.read_exact(&mut got).await.expect("arrives");
        far.write_all(&got).await.expect("echoes");
        near.read_exact(&mut got).await.expect("comes back");
        assert_eq!(got, data);
    })
    .await;
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("finishes in time")
}

pub(crate) fn message(kind: u8, fields: &[u32]) -> Vec<u8> {
    let mut out = vec![kind];
    fields.iter().for_each(|field| out.extend_from_slice(&field.to_be_bytes()));
    out
}

pub(crate) fn open(number: u32, window: u32, max_packet: u32) -> Vec<u8> {
    message(100, &[number, window, max_packet])
}

pub(crate) fn labeled(number: u32, label: &[u8]) -> Vec<u8> {
    let mut out = message(110, &[13 + label.len() as u32, number, 1000, 1000]);
    out.push(11);
    out.extend_from_slice(label);
    out
}

/// Reset (112) or stop (113) with code 1.
pub(crate) fn coded(kind: u8, to: u32) -> Vec<u8> {
    message(kind, &[12, to, 0, 1])
}

/// Sends as much of `bytes` as the victim takes; `false` once it has hung up.
pub(crate) async fn push(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    within(stream.write_all(bytes)).await.is_ok()
}

/// Reads and forgets until the victim ends the connection.
pub(crate) async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut out = Vec::new();
    // A reset is an end too: what was sent after it found no reader.
    let _ = within(stream.read_to_end(&mut out)).await;
    out
}
