//! Failed handshakes say why, to whoever dials.

mod common;

use std::time::Duration;

use common::{certificate, dial, dial_error, listen, server_config, within};
use mux_api::{ClientAuth, Config, ErrorKind, Origin};
use mux_transport::tls::SelfSigned;

fn trusting(made: &SelfSigned) -> Config {
    let mut config = Config::default();
    config.tls.ca_pem = Some(made.cert_pem.clone().into_bytes());
    config
}

fn expired() -> SelfSigned {
    let key = rcgen::KeyPair::generate().expect("makes a key");
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("names");
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let cert = params.self_signed(&key).expect("signs");
    let pin = mux_transport::tls::pin_of(cert.der());
    SelfSigned { cert_pem: cert.pem(), key_pem: key.serialize_pem(), pin }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_or_a_pin_or_insecure_connects() {
    let made = certificate();
    let listener = listen("quic://127.0.0.1:0", &server_config(&made)).await;
    let mut pinned = Config::default();
    pinned.tls.pins = vec![[0; 32], made.pin];
    pinned.tls.server_name = Some("any.name".into());
    let mut insecure = Config::default();
    insecure.tls.insecure = true;
    for config in [trusting(&made), pinned, insecure] {
        let client = dial(listener.url(), &config).await.expect("dials");
        let server = within(listener.accept()).await.expect("accepts");
        let tls = client.info().tls.clone().expect("TLS");
        assert_eq!(tls.alpn, "libmux/1");
        assert_eq!(mux_transport::tls::pin_of(&tls.peer_certificate.expect("a certificate")), made.pin);
        assert_eq!(client.info().peer_addr, server.info().local_addr);
        assert_eq!(server.info().peer_addr, client.info().local_addr.replace("0.0.0.0", "127.0.0.1"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_certificate_is_rejected_with_its_reason() {
    let (made, other) = (certificate(), certificate());
    let listener = listen("quic://127.0.0.1:0", &server_config(&made)).await;
    let mut wrong_name = trusting(&made);
    wrong_name.tls.server_name = Some("example.org".into());
    let mut wrong_pin = Config::default();
    wrong_pin.tls.pins = vec![other.pin];
    for (config, said) in [
        (trusting(&other), "unknown issuer"),
        (Config::default(), "unknown issuer"),
        (wrong_name, "not valid for name"),
        (wrong_pin, "pin mismatch"),
    ] {
        let error = dial_error(listener.url(), &config).await;
        assert_eq!((error.kind(), error.origin()), (ErrorKind::Certificate, Origin::Local), "{error}");
        assert!(error.message().contains(said), "{error}");
    }
    let gone = expired();
    let listener = listen("quic://127.0.0.1:0", &server_config(&gone)).await;
    let mut by_ca = trusting(&gone);
    by_ca.tls.server_name = Some("localhost".into());
    let mut by_pin = Config::default();
    by_pin.tls.pins = vec![gone.pin];
    for config in [by_ca, by_pin] {
        let error = dial_error(listener.url(), &config).await;
        assert_eq!(error.kind(), ErrorKind::Certificate, "{error}");
        assert!(error.message().contains("expired"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_common_protocol_is_said() {
    let made = certificate();
    let listener = listen("quic://127.0.0.1:0", &server_config(&made)).await;
    let mut config = trusting(&made);
    config.tls.alpn = vec!["something-else".into()];
    let error = dial_error(listener.url(), &config).await;
    assert_eq!(error.kind(), ErrorKind::Alpn, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_is_demanded_and_verified() {
    let (made, known, unknown) = (certificate(), certificate(), certificate());
    let mut by_ca = server_config(&made);
    by_ca.tls.client_auth = ClientAuth::Require;
    by_ca.tls.ca_pem = Some(known.cert_pem.clone().into_bytes());
    let mut by_pin = server_config(&made);
    by_pin.tls.client_auth = ClientAuth::Require;
    by_pin.tls.pins = vec![known.pin];
    for server in [by_ca, by_pin] {
        let listener = listen("quic://127.0.0.1:0", &server).await;
        let error = dial_error(listener.url(), &trusting(&made)).await;
        assert_eq!((error.kind(), error.origin()), (ErrorKind::Certificate, Origin::Peer), "{error}");
        assert!(error.message().contains("presented none"), "{error}");

        let mut wrong = trusting(&made);
        wrong.tls.identity_pem = server_config(&unknown).tls.identity_pem;
        let error = dial_error(listener.url(), &wrong).await;
        assert_eq!((error.kind(), error.origin()), (ErrorKind::Certificate, Origin::Peer), "{error}");

        let mut right = trusting(&made);
        right.tls.identity_pem = server_config(&known).tls.identity_pem;
        let _client = dial(listener.url(), &right).await.expect("dials");
        let session = within(listener.accept()).await.expect("accepts");
        let tls = session.info().tls.clone().expect("TLS");
        assert_eq!(mux_transport::tls::pin_of(&tls.peer_certificate.expect("a certificate")), known.pin);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listeners_certificate_can_be_replaced_while_it_runs() {
    let (old, new) = (certificate(), certificate());
    let dir = std::env::temp_dir().join(format!("libmux-quic-cert-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("makes a directory");
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let put = |made: &SelfSigned| {
        std::fs::write(&cert, &made.cert_pem).expect("writes");
        std::fs::write(&key, &made.key_pem).expect("writes");
    };
    put(&old);
    let url = format!("quic://127.0.0.1:0?cert={}&key={}", cert.display(), key.display());
    let listener = listen(&url, &Config::default()).await;
    let pinned = |made: &SelfSigned| {
        let mut config = Config::default();
        config.tls.pins = vec![made.pin];
        config
    };
    let held = dial(listener.url(), &pinned(&old)).await.expect("dials");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    put(&new);
    let _renewed = dial(listener.url(), &pinned(&new)).await.expect("the new certificate is in use");
    held.ping().await.expect("old sessions live on");
    std::fs::remove_dir_all(&dir).expect("cleans up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_used_is_said_before_anything_is_sent() {
    let error = dial_error("quic://127.0.0.1:1?ca=/nonexistent/ca.pem", &Config::default()).await;
    assert!(error.message().contains("/nonexistent/ca.pem"), "{error}");
    let error = dial_error("quic://127.0.0.1:1/path", &trusting(&certificate())).await;
    assert_eq!(error.kind(), ErrorKind::Url);
    let mut config = trusting(&certificate());
    config.tls.server_name = Some("not a name".into());
    assert_eq!(dial_error("quic://127.0.0.1:1", &config).await.kind(), ErrorKind::InvalidInput);
}
