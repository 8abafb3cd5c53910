//! What goes beyond channels of libmux: other protocols by ALPN, datagrams, options, a listener's new settings.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{certificate, dial, dial_error, listen, pair, server_config, within};
use mux_api::{Capabilities, Config, ErrorKind, Listener, OpenOptions, Origin, Session, codes};
use mux_transport::tls::{self, SelfSigned, Wants};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, Endpoint, VarInt};

fn quinn_client(made: &SelfSigned, alpn: &str) -> quinn::ClientConfig {
    let mut trust = mux_api::TlsConfig::default();
    trust.pins = vec![made.pin];
    let crypto = tls::client_config(&trust, Wants { alpn: &[alpn], tls13_only: true }).expect("TLS");
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(crypto).expect("TLS 1.3")))
}

fn quinn_server(made: &SelfSigned, alpn: &str) -> Endpoint {
    let crypto = tls::server_config(&server_config(made).tls, Wants { alpn: &[alpn], tls13_only: true }).expect("TLS");
    let server = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(crypto).expect("TLS 1.3")));
    Endpoint::server(server, "127.0.0.1:0".parse().expect("an address")).expect("binds")
}

/// Sessions with plain quinn that speaks `alpn`: we accept it, we dial it.
async fn both_roles(alpn: &str) -> Vec<(Session, Connection, Option<Listener>, Endpoint)> {
    let made = certificate();
    let listener = listen(&format!("quic://127.0.0.1:0?alpn=libmux/1,{alpn}"), &server_config(&made)).await;
    let endpoint = Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("binds");
    let address = listener.url().strip_prefix("quic://").expect("quic").parse().expect("an address");
    let connecting = endpoint.connect_with(quinn_client(&made, alpn), address, "localhost").expect("dials");
    let (conn, session) = tokio::join!(connecting, within(listener.accept()));
    let accepted = (session.expect("accepts"), conn.expect("connects"), Some(listener), endpoint);

    let endpoint = quinn_server(&made, alpn);
    let mut config = Config::default();
    config.tls.pins = vec![made.pin];
    let url = format!("quic://{}?alpn={alpn}", endpoint.local_addr().expect("bound"));
    let accepting = async { endpoint.accept().await.expect("comes").await.expect("connects") };
    let (session, conn) = tokio::join!(dial(&url, &config), accepting);
    vec![accepted, (session.expect("dials"), conn, None, endpoint)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qtalk_and_plain_streams_are_spoken_in_both_roles() {
    for (alpn, preface) in [("qtalk-quic", &b"!"[..]), ("echo", b"")] {
        for (session, conn, _listener, endpoint) in both_roles(alpn).await {
            within(async {
                assert_eq!(session.info().tls.as_ref().expect("TLS").alpn, alpn);
                assert!(!session.capabilities().contains(Capabilities::LABEL));
                let labelled = session.open_with(&OpenOptions::new().label("x")).await;
                assert_eq!(labelled.expect_err("no labels").kind(), ErrorKind::Unsupported);
                assert_eq!(session.ping().await.expect_err("no ping").kind(), ErrorKind::Unsupported);

                let mut near = session.open().await.expect("opens");
                near.write_all(b"question").await.expect("writes");
                near.finish().expect("finishes");
                let (mut send, mut recv) = conn.accept_bi().await.expect("accepts");
                assert_eq!(recv.read_to_end(100).await.expect("reads"), [preface, b"question"].concat());
                send.write_all(b"answer").await.expect("writes");
                send.finish().expect("finishes");
                let mut buf = [0; 16];
                assert_eq!(near.read(&mut buf).await.expect("reads"), 6);
                assert_eq!(near.read(&mut buf).await.expect("end"), 0);

                let (mut send, mut recv) = conn.open_bi().await.expect("opens");
                send.write_all(&[preface, b"hello"].concat()).await.expect("writes");
                let mut far = session.accept().await.expect("accepts");
                assert_eq!(far.read(&mut buf).await.expect("reads"), 5);
                far.write_all(b"world").await.expect("writes");
                far.send_half().reset(77).expect("resets");
                assert!(recv.read_to_end(100).await.is_err());
                send.reset(VarInt::from_u32(78)).expect("resets");
                assert_eq!(far.read(&mut buf).await.expect_err("reset").code(), Some(78));

                let mut last = session.open().await.expect("opens");
                last.write_all(b"last").await.expect("writes");
                last.close();
                session.close(0, "done").expect("closes");
                let (_send, mut recv) = conn.accept_bi().await.expect("accepts");
                assert_eq!(recv.read_to_end(100).await.expect("reads"), [preface, b"last"].concat());
                assert_eq!(session.closed().await.origin(), Origin::Local);
                let code = if alpn == "qtalk-quic" { 42 } else { 0 };
                match conn.closed().await {
                    quinn::ConnectionError::ApplicationClosed(close) => assert_eq!(close.error_code.into_inner(), code),
                    other => panic!("expected a code: {other}"),
                }
                drop(endpoint);
            })
            .await;
        }
        for (session, conn, _listener, _endpoint) in both_roles(alpn).await {
            conn.close(VarInt::from_u32(if alpn == "qtalk-quic" { 42 } else { 0 }), b"");
            let error = within(session.accept()).await.expect_err("over");
            assert_eq!((error.origin(), error.code()), (Origin::Peer, Some(codes::NO_ERROR)), "{error:?}");
        }
    }
    for (session, conn, _listener, _endpoint) in both_roles("qtalk-quic").await {
        // Not one of its channels, nor one of ours.
        for bytes in [&b"?"[..], b"\x23", b"\x22\x03\x01x"] {
            let (mut send, mut recv) = conn.open_bi().await.expect("opens");
            send.write_all(bytes).await.expect("writes");
            assert!(within(recv.read_to_end(10)).await.is_err());
        }
        assert!(session.cause().is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_come_and_go() {
    let (client, server, _listener) = pair("").await;
    within(async {
        for (from, to) in [(&client, &server), (&server, &client)] {
            assert!(from.capabilities().contains(Capabilities::DATAGRAM));
            let max = from.max_datagram().expect("has datagrams");
            from.send_datagram(vec![7; max]).expect("sends");
            assert_eq!(to.recv_datagram().await.expect("receives"), vec![7; max]);
            let error = from.send_datagram(vec![0; max + 70_000]).expect_err("too big");
            assert_eq!(error.kind(), ErrorKind::TooBig);
        }
        // Nobody takes these: they give way, and nothing waits for them.
        for at in 0..5000u32 {
            client.send_datagram(vec![at as u8; 1000]).expect("sends");
        }
        let mut near = client.open().await.expect("opens");
        near.write_all(b"x").await.expect("writes");
        server.accept().await.expect("accepts");
        assert!(client.stats().rtt.expect("measured") < Duration::from_secs(10));
        let waiting = server.clone();
        let waiting = tokio::spawn(async move { while waiting.recv_datagram().await.is_ok() {} });
        client.close(3, "").expect("closes");
        waiting.await.expect("ends with the session");
        server.closed().await;
        assert_eq!(server.recv_datagram().await.expect_err("over").code(), Some(3));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_option_connects() {
    for options in
        ["congestion=newreno", "congestion=bbr", "mtu=1200", "mtu=6500&window=16m", "reuse_port=1", "keylog=1"]
    {
        let (client, server, _listener) = pair(options).await;
        within(async {
            let mut near = client.open().await.expect("opens");
            let writing = tokio::spawn(async move {
                near.write_all(&vec![1; 3 << 20]).await.expect("writes");
                near.close();
            });
            let mut far = server.accept().await.expect("accepts");
            let (mut total, mut buf) = (0, vec![0; 60_000]);
            loop {
                match far.read(&mut buf).await.expect("reads") {
                    0 => break,
                    len => total += len,
                }
            }
            assert_eq!(total, 3 << 20, "{options}");
            writing.await.expect("writer");
        })
        .await;
    }
    let error = dial_error("quic://127.0.0.1:1?congestion=vegas", &Config::default()).await;
    assert!(error.message().contains("newreno"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_share_a_port_when_all_of_them_say_so() {
    let made = certificate();
    let first = listen("quic://127.0.0.1:0?reuse_port=1", &server_config(&made)).await;
    let second = listen(&format!("{}?reuse_port=1", first.url()), &server_config(&made)).await;
    assert_eq!(first.url(), second.url());
    let mut config = Config::default();
    config.tls.pins = vec![made.pin];
    within(async {
        // Each dial has a port of its own, by which the kernel chooses: in the end both were chosen.
        let (mut seen, mut kept) = ([false; 2], Vec::new());
        while seen != [true; 2] {
            kept.push(dial(first.url(), &config).await.expect("dials"));
            tokio::select! {
                session = first.accept() => { seen[0] = true; kept.push(session.expect("accepts")); }
                session = second.accept() => { seen[1] = true; kept.push(session.expect("accepts")); }
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listeners_settings_can_be_replaced_while_it_runs() {
    let (old, new) = (certificate(), certificate());
    let listener = listen("quic://127.0.0.1:0", &server_config(&old)).await;
    let mut trusting = [Config::default(), Config::default()];
    trusting[0].tls.pins = vec![old.pin];
    trusting[1].tls.pins = vec![new.pin];
    let before = dial(listener.url(), &trusting[0]).await.expect("dials");
    assert!(listener.reload(&Config::default()).is_err(), "no certificate");
    dial(listener.url(), &trusting[0]).await.expect("nothing has changed");
    listener.reload(&server_config(&new)).expect("reloads");
    assert_eq!(dial_error(listener.url(), &trusting[0]).await.kind(), ErrorKind::Certificate);
    dial(listener.url(), &trusting[1]).await.expect("dials");
    within(before.ping()).await.expect("sessions that exist are not touched");
}
