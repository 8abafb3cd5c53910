//! Who sends datagrams to a listener without being a dialer.

use std::collections::HashSet;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mux_api::{Config, Listener, Session};
use mux_transport::tls::{self, SelfSigned, Wants};
use quinn::crypto::rustls::QuicClientConfig;

use super::relay::address_of;
use super::{dial, within};

/// The first datagrams of so many dialers, none of which will ever say more.
pub fn first_datagrams(count: usize) -> Vec<Vec<u8>> {
    let mut trust = mux_api::TlsConfig::default();
    trust.insecure = true;
    let crypto = tls::client_config(&trust, Wants { alpn: &["libmux/1"], tls13_only: true }).expect("TLS");
    let crypto = Arc::new(QuicClientConfig::try_from(crypto).expect("TLS 1.3"));
    let client = quinn::ClientConfig::new(crypto);
    let mut endpoint = quinn_proto::Endpoint::new(Arc::default(), None, false, None);
    let (now, address) = (Instant::now(), "127.0.0.1:4433".parse().expect("an address"));
    (0..count)
        .map(|_| {
            let (_, mut conn) = endpoint.connect(now, client.clone(), address, "localhost").expect("connects");
            let mut datagram = Vec::new();
            let _ = conn.poll_transmit(now, 1, &mut datagram).expect("has something to say");
            datagram
        })
        .collect()
}

/// What a stranger's datagrams were answered with: connections begun, and Retry packets.
#[derive(Default)]
pub struct Answers {
    pub begun: HashSet<Vec<u8>>,
    pub retries: usize,
}

impl Answers {
    pub fn hear(&mut self, socket: &UdpSocket) {
        let mut buf = [0; 2048];
        while let Ok(len) = socket.recv(&mut buf) {
            // A long header: form and type, version, then the connection id of the one it is for.
            if buf[0] & 0xf0 == 0xf0 {
                self.retries += 1;
            } else if buf[0] & 0x80 != 0 && len > 6 {
                self.begun.insert(buf[6..6 + usize::from(buf[5])].to_vec());
            }
        }
    }
}

pub async fn connects(listener: &Listener, made: &SelfSigned) -> (Session, Session) {
    let mut config = Config::default();
    config.tls.pins = vec![made.pin];
    let (client, server) = tokio::join!(dial(listener.url(), &config), listener.accept());
    let (client, server) = (client.expect("dials"), server.expect("accepts"));
    within(client.ping()).await.expect("pings");
    (client, server)
}

pub fn stranger(listener: &Listener) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
    socket.connect(address_of(listener.url())).expect("connects");
    socket.set_nonblocking(true).expect("does not wait");
    socket
}

/// Sends at a pace that the listener's socket holds.
pub async fn send(socket: &UdpSocket, datagrams: &[Vec<u8>], answers: &mut Answers) {
    for some in datagrams.chunks(50) {
        for datagram in some {
            // A full buffer is a lost datagram.
            let _ = socket.send(datagram);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        answers.hear(socket);
    }
}
