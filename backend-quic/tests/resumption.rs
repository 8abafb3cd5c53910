//! Dials that follow others: tickets, early data (0-RTT), a socket in common.

mod common;

use std::sync::atomic::Ordering;
use std::time::Duration;

use common::relay::{Relay, Way, address_of};
use common::{certificate, dial, listen, server_config, within};
use mux_api::{ClientAuth, Config, ErrorKind, Listener, Session};
use mux_transport::tls::SelfSigned;

fn trusting(made: &SelfSigned) -> Config {
    let mut config = Config::default();
    config.tls.pins = vec![made.pin];
    config
}

/// Echoes one channel, whose answer says that the peer has our ticket.
async fn exchange(client: &Session, server: &Session) {
    within(async {
        let mut near = client.open().await.expect("opens");
        near.write_all(b"ask").await.expect("writes");
        let mut far = server.accept().await.expect("accepts");
        let mut buf = [0; 3];
        assert_eq!(far.read(&mut buf).await.expect("reads"), 3);
        far.write_all(&buf).await.expect("writes");
        assert_eq!(near.read(&mut buf).await.expect("reads"), 3);
        client.ping().await.expect("pings");
    })
    .await;
}

/// A listener that takes early data, a way to it, and a dialer's configuration with a ticket.
async fn early(server: &Config, config: &Config) -> (Listener, Relay, String) {
    let listener = listen("quic://127.0.0.1:0?resume=early", server).await;
    let relay = Relay::start(address_of(listener.url()), Way::default()).await;
    let url = format!("quic://{}?resume=early", relay.address);
    let (client, accepted) = tokio::join!(dial(&url, config), listener.accept());
    let (client, accepted) = (client.expect("dials"), accepted.expect("accepts"));
    exchange(&client, &accepted).await;
    client.close(0, "").expect("closes");
    within(accepted.closed()).await;
    (listener, relay, url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn early_data_arrives_before_the_peer_has_said_anything() {
    let made = certificate();
    let config = trusting(&made);
    let (listener, relay, url) = early(&server_config(&made), &config).await;
    relay.mute.store(true, Ordering::Relaxed);
    let client = dial(&url, &config).await.expect("needs no answer");
    let mut near = client.open().await.expect("opens");
    near.write_all(b"early").await.expect("writes");
    let server = within(listener.accept()).await.expect("accepts");
    let mut far = within(server.accept()).await.expect("accepts");
    let mut buf = [0; 5];
    within(far.read(&mut buf)).await.expect("reads");
    assert_eq!(&buf, b"early");
    relay.mute.store(false, Ordering::Relaxed);
    far.write_all(b"late").await.expect("writes");
    assert_eq!(within(near.read(&mut buf)).await.expect("reads"), 4);
    exchange(&client, &server).await;
    assert_eq!(client.info().tls.as_ref().expect("TLS").alpn, "libmux/1");
    client.close(0, "").expect("closes");
    within(server.closed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn early_data_that_is_not_taken_is_an_error_that_allows_another_try() {
    let made = certificate();
    let config = trusting(&made);
    let (listener, _relay, url) = early(&server_config(&made), &config).await;
    // What rustls kept of the tickets is gone.
    listener.reload(&server_config(&made)).expect("reloads");
    let client = dial(&url, &config).await.expect("needs no answer");
    // The answer may have come before the channel is opened, or after.
    let read = match client.open().await {
        Ok(mut near) => within(near.read(&mut [0; 8])).await,
        Err(error) => Err(error),
    };
    let error = read.expect_err("nothing can be read");
    assert_eq!((error.kind(), error.is_retry_safe()), (ErrorKind::Refused, true), "{error:?}");
    assert_eq!(within(client.closed()).await.kind(), ErrorKind::Refused);
    drop(within(listener.accept()).await.expect("the handshake itself is complete"));
    let (client, server) = tokio::join!(dial(&url, &config), listener.accept());
    exchange(&client.expect("dials"), &server.expect("accepts")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dialer_that_must_show_a_certificate_is_not_met_early() {
    let (made, known) = (certificate(), certificate());
    let mut server = server_config(&made);
    server.tls.client_auth = ClientAuth::Require;
    server.tls.pins = vec![known.pin];
    let mut config = server_config(&known);
    config.tls.pins = vec![made.pin];
    let (listener, relay, url) = early(&server, &config).await;
    relay.mute.store(true, Ordering::Relaxed);
    let client = dial(&url, &config).await.expect("needs no answer");
    let accepting = tokio::time::timeout(Duration::from_millis(300), listener.accept());
    assert!(accepting.await.is_err(), "accepted before the handshake was complete");
    relay.mute.store(false, Ordering::Relaxed);
    let server = within(listener.accept()).await.expect("accepts");
    exchange(&client, &server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dials_that_share_a_socket_do_not_share_their_end() {
    let made = certificate();
    let config = trusting(&made);
    let listeners = [
        listen("quic://127.0.0.1:0", &server_config(&made)).await,
        listen("quic://127.0.0.1:0", &server_config(&made)).await,
    ];
    let mut pairs = Vec::new();
    for listener in [&listeners[0], &listeners[1], &listeners[0]] {
        let url = format!("{}?shared_socket=1", listener.url());
        let (client, server) = tokio::join!(dial(&url, &config), listener.accept());
        pairs.push((client.expect("dials"), server.expect("accepts")));
    }
    let ports: Vec<_> =
        pairs.iter().map(|(client, _)| client.info().local_addr.rsplit(':').next().map(str::to_owned)).collect();
    assert!(ports[0].is_some() && ports.iter().all(|port| *port == ports[0]), "{ports:?}");
    let (client, server) = pairs.remove(0);
    client.close(7, "enough").expect("closes");
    assert_eq!(within(server.closed()).await.code(), Some(7));
    within(client.closed()).await;
    let (client, server) = pairs.remove(0);
    drop(client);
    within(server.closed()).await;
    exchange(&pairs[0].0, &pairs[0].1).await;
}

#[cfg(feature = "qlog")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_session_leaves_a_qlog_file() {
    let directory = std::env::temp_dir().join(format!("libmux-qlog-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("makes a directory");
    let options = format!("qlog={}", directory.display());
    let (client, server, listener) = common::pair(&options).await;
    exchange(&client, &server).await;
    client.close(0, "").expect("closes");
    within(server.closed()).await;
    drop((client, server, listener));
    let whole = |end: &str| {
        std::fs::read_dir(&directory).expect("reads").any(|entry| {
            let path = entry.expect("an entry").path();
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            path.to_string_lossy().ends_with(end) && text.contains("packet_sent") && text.contains("packet_received")
        })
    };
    within(async {
        while !(whole("dialer.sqlog") && whole("acceptor.sqlog")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    std::fs::remove_dir_all(&directory).expect("removes what it made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_may_have_every_dialer_prove_its_address() {
    let made = certificate();
    let listener = listen("quic://127.0.0.1:0?retry=1", &server_config(&made)).await;
    let config = trusting(&made);
    let (client, server) = tokio::join!(dial(listener.url(), &config), listener.accept());
    exchange(&client.expect("dials"), &server.expect("accepts")).await;
}
