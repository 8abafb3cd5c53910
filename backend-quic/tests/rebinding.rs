//! A dialer whose address changes keeps its session.

mod common;

use std::sync::atomic::Ordering;

use common::relay::{Relay, Way, address_of};
use common::{certificate, dial, listen, server_config, within};
use mux_api::{Channel, Config};

const LEN: usize = 8 << 20;

async fn write_all(channel: &mut Channel) {
    channel.write_all(&vec![7; LEN]).await.expect("writes");
    channel.finish().expect("finishes");
}

async fn read_all(channel: &mut Channel) {
    let (mut total, mut buf) = (0, vec![0; 60_000]);
    loop {
        match channel.read(&mut buf).await.expect("reads") {
            0 => break,
            len => total += len,
        }
    }
    assert_eq!(total, LEN);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_address_in_mid_transfer_loses_nothing() {
    for down in [false, true] {
        let made = certificate();
        let listener = listen("quic://127.0.0.1:0", &server_config(&made)).await;
        let relay = Relay::start(address_of(listener.url()), Way { rebind: 1000, ..Way::default() }).await;
        let mut config = Config::default();
        config.tls.pins = vec![made.pin];
        let client = dial(&format!("quic://{}", relay.address), &config).await.expect("dials");
        let server = within(listener.accept()).await.expect("accepts");
        let first = server.peer_addr();
        assert_eq!(first, server.info().peer_addr);
        within(async {
            let mut near = client.open().await.expect("opens");
            let mut far = server.accept().await.expect("accepts");
            if down {
                tokio::join!(write_all(&mut far), read_all(&mut near));
            } else {
                tokio::join!(write_all(&mut near), read_all(&mut far));
            }
            client.ping().await.expect("pings");
            server.ping().await.expect("pings");
        })
        .await;
        assert!(relay.rebound.load(Ordering::Relaxed) > 0, "the address has changed");
        assert_ne!(server.peer_addr(), first, "and the session says so");
        assert_eq!(client.peer_addr(), relay.address.to_string());
    }
}
