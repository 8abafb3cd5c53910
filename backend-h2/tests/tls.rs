//! `h2`: TLS with ALPN, and `h2c+unix`.

mod common;

use common::{dial, listen, within};
use mux_api::{ClientAuth, Config, ErrorKind, Origin, Session};
use mux_transport::tls::{SelfSigned, self_signed};

fn identity(config: &mut Config, made: &SelfSigned) {
    config.tls.identity_pem = Some((made.cert_pem.clone().into_bytes(), made.key_pem.clone().into_bytes()));
}

async fn echo_both_ways(client: Session, server: Session) {
    for (opener, acceptor) in [(client.clone(), server.clone()), (server, client)] {
        let near = opener.open().await.expect("opens");
        let mut far = acceptor.accept().await.expect("accepts");
        let data = vec![9; 3_000_000];
        let copy = data.clone();
        let echo = tokio::spawn(async move {
            let mut buf = vec![0; 20_000];
            loop {
                match far.read(&mut buf).await.expect("reads") {
                    0 => break,
                    len => far.write_all(&buf[..len]).await.expect("writes"),
                }
            }
            far.finish().expect("finishes");
            far
        });
        let (mut send, mut recv) = near.split();
        let sending = async {
            send.write_all(&copy).await.expect("writes");
            send.finish().expect("finishes");
        };
        let reading = async {
            let (mut total, mut buf) = (0, vec![0; 20_000]);
            loop {
                match recv.read(&mut buf).await.expect("reads") {
                    0 => break total,
                    len => total += len,
                }
            }
        };
        let ((), total) = tokio::join!(sending, reading);
        assert_eq!(total, data.len());
        drop(echo.await.expect("echo"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pinned_certificate_is_enough_and_the_session_says_how_it_is_protected() {
    let made = self_signed(&["localhost"]).expect("makes");
    let (mut serving, mut dialing) = (Config::default(), Config::default());
    identity(&mut serving, &made);
    dialing.tls.pins = vec![made.pin];
    let listener = listen("h2://127.0.0.1:0", &serving).await.expect("listens");
    within(async {
        let (client, server) = tokio::join!(dial(listener.url(), &dialing), listener.accept());
        let (client, server) = (client.expect("dials"), server.expect("accepts"));
        for session in [&client, &server] {
            let tls = session.info().tls.clone().expect("is protected");
            assert_eq!(tls.alpn, "h2");
            assert!(tls.summary.starts_with("TLS 1.3 "), "{}", tls.summary);
        }
        echo_both_ways(client, server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_certificate_is_said() {
    let made = self_signed(&["localhost"]).expect("makes");
    let mut serving = Config::default();
    identity(&mut serving, &made);
    let listener = listen("h2://127.0.0.1:0", &serving).await.expect("listens");
    let trusting = || {
        let mut config = Config::default();
        config.tls.ca_pem = Some(made.cert_pem.clone().into_bytes());
        config
    };
    within(async {
        let error = dial(listener.url(), &trusting()).await.expect_err("the name is wrong");
        assert_eq!((error.kind(), error.origin()), (ErrorKind::Certificate, Origin::Local), "{error:?}");
        let mut named = trusting();
        named.tls.server_name = Some("localhost".into());
        dial(listener.url(), &named).await.expect("the name is right");
        let mut wrong_pin = Config::default();
        wrong_pin.tls.pins = vec![[7; 32]];
        let error = dial(listener.url(), &wrong_pin).await.expect_err("the pin is wrong");
        assert_eq!(error.kind(), ErrorKind::Certificate, "{error:?}");
        let other = self_signed(&["localhost"]).expect("makes");
        let mut wrong_ca = Config::default();
        wrong_ca.tls.ca_pem = Some(other.cert_pem.into_bytes());
        let error = dial(listener.url(), &wrong_ca).await.expect_err("the issuer is unknown");
        assert_eq!(error.kind(), ErrorKind::Certificate, "{error:?}");
        let mut wrong_alpn = named.clone();
        wrong_alpn.tls.alpn = vec!["http/1.1".into()];
        let error = dial(listener.url(), &wrong_alpn).await.expect_err("no protocol in common");
        assert_eq!(error.kind(), ErrorKind::Alpn, "{error:?}");
    })
    .await;
    let error = listen("h2://127.0.0.1:0", &Config::default()).await.expect_err("no certificate");
    assert!(error.message().contains("cert=PATH"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_can_be_demanded() {
    let (made, mine) = (self_signed(&["localhost"]).expect("makes"), self_signed(&["me"]).expect("makes"));
    let mut serving = Config::default();
    identity(&mut serving, &made);
    serving.tls.client_auth = ClientAuth::Require;
    serving.tls.pins = vec![mine.pin];
    let listener = listen("h2://127.0.0.1:0", &serving).await.expect("listens");
    let mut dialing = Config::default();
    dialing.tls.pins = vec![made.pin];
    within(async {
        let error = dial(listener.url(), &dialing).await.expect_err("a certificate is demanded");
        assert_eq!((error.kind(), error.origin()), (ErrorKind::Certificate, Origin::Peer), "{error:?}");
        identity(&mut dialing, &mine);
        let (client, server) = tokio::join!(dial(listener.url(), &dialing), listener.accept());
        client.expect("dials");
        let tls = server.expect("accepts").info().tls.clone().expect("is protected");
        assert!(tls.peer_certificate.is_some());
    })
    .await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_socket_carries_h2c() {
    let socket = std::env::temp_dir().join(format!("libmux-h2-{}.sock", std::process::id()));
    let url = format!("h2c+unix://{}?path=/x", socket.display());
    within(async {
        let config = Config::default();
        let listener = listen(&url, &config).await.expect("listens");
        assert_eq!(listener.url(), url);
        let (client, server) = tokio::join!(dial(listener.url(), &config), listener.accept());
        echo_both_ways(client.expect("dials"), server.expect("accepts")).await;
    })
    .await;
}
