//! `qmux+tls`: ALPN says what both sides speak, certificates whom they trust.

use std::future::Future;
use std::time::Duration;

use backend_qmux::QmuxBackend;
use mux_api::backend::Backend;
use mux_api::{Capabilities, ClientAuth, Config, ErrorKind, Listener, OpenOptions, Origin, Session, Url};
use mux_transport::tls::{SelfSigned, self_signed};

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("finishes in time")
}

async fn dial(url: &str, config: &Config) -> mux_api::Result<Session> {
    QmuxBackend.dial(&Url::parse(url)?, config).await
}

async fn listen(config: &Config) -> mux_api::Result<Listener> {
    QmuxBackend.listen(&Url::parse("qmux+tls://127.0.0.1:0")?, config).await
}

fn certificate() -> SelfSigned {
    self_signed(&["localhost"]).expect("makes")
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

fn presenting(made: &SelfSigned, mut config: Config) -> Config {
    config.tls.identity_pem = Some((made.cert_pem.clone().into_bytes(), made.key_pem.clone().into_bytes()));
    config
}

/// Trusts `made` as an authority, for the name it was made for.
fn by_ca(made: &SelfSigned) -> Config {
    let mut config = Config::default();
    config.tls.ca_pem = Some(made.cert_pem.clone().into_bytes());
    config.tls.server_name = Some("localhost".into());
    config
}

fn by_pin(made: &SelfSigned) -> Config {
    let mut config = Config::default();
    config.tls.pins = vec![made.pin];
    config
}

/// A listener's configuration, and one that trusts it.
fn configs() -> (Config, Config) {
    let made = certificate();
    (presenting(&made, Config::default()), by_pin(&made))
}

async fn echo(near: &Session, far: &Session) {
    let near = near.open().await.expect("opens");
    let mut far = far.accept().await.expect("accepts");
    let echoing = tokio::spawn(async move {
        let mut buf = vec![0; 30_000];
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
    let data: Vec<u8> = (0..3_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 9) as u8).collect();
    let sending = async {
        send.write_all(&data).await.expect("writes");
        send.finish().expect("finishes");
    };
    let reading = async {
        let (mut got, mut buf) = (Vec::new(), vec![0; 20_000]);
        loop {
            match recv.read(&mut buf).await.expect("reads") {
                0 => break got,
                len => got.extend_from_slice(&buf[..len]),
            }
        }
    };
    let ((), got) = tokio::join!(sending, reading);
    assert!(got == data, "{} of {} bytes came back, or others", got.len(), data.len());
    drop(echoing.await.expect("echo"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_echo_and_know_how_they_are_protected() {
    let (serving, dialing) = configs();
    let listener = listen(&serving).await.expect("listens");
    within(async {
        let (near, far) = tokio::join!(dial(listener.url(), &dialing), listener.accept());
        let (near, far) = (near.expect("dials"), far.expect("accepts"));
        for session in [&near, &far] {
            let tls = session.info().tls.as_ref().expect("over TLS");
            assert_eq!(tls.alpn, "libmux-qmux/1");
            assert!(tls.summary.starts_with("TLS 1.3"), "{}", tls.summary);
            assert!(session.capabilities().contains(Capabilities::LABEL));
        }
        let labeled = near.open_with(&OpenOptions::new().label("x")).await.expect("opens");
        assert_eq!(&far.accept().await.expect("accepts").label()[..], b"x");
        drop(labeled);
        echo(&near, &far).await;
        echo(&far, &near).await;
        assert!(near.ping().await.expect("answers") > Duration::ZERO);
        near.close(7, "done").expect("closes");
        assert_eq!(far.closed().await.code(), Some(7));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alpn_settles_whether_the_extension_is_used() {
    for (near_ext, far_ext, alpn) in [("off", "auto", "qmux"), ("auto", "off", "qmux"), ("on", "auto", "libmux-qmux/1")]
    {
        let (mut serving, mut dialing) = configs();
        serving.extra.insert("ext".into(), far_ext.into());
        dialing.extra.insert("ext".into(), near_ext.into());
        let listener = listen(&serving).await.expect("listens");
        within(async {
            let (near, far) = tokio::join!(dial(listener.url(), &dialing), listener.accept());
            let (near, far) = (near.expect("dials"), far.expect("accepts"));
            for session in [&near, &far] {
                assert_eq!(session.info().tls.as_ref().expect("over TLS").alpn, alpn);
                assert_eq!(session.capabilities().contains(Capabilities::LABEL), alpn != "qmux");
            }
            echo(&near, &far).await;
        })
        .await;
    }
    let (mut serving, mut dialing) = configs();
    serving.extra.insert("ext".into(), "on".into());
    dialing.extra.insert("ext".into(), "off".into());
    let listener = listen(&serving).await.expect("listens");
    let error = within(dial(listener.url(), &dialing)).await.expect_err("nothing in common");
    assert_eq!(error.kind(), ErrorKind::Alpn, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_certificate_is_rejected_with_its_reason() {
    let (made, other, gone) = (certificate(), certificate(), expired());
    let mut wrong_name = by_ca(&made);
    wrong_name.tls.server_name = Some("example.org".into());
    let cases = [
        (&made, by_ca(&other), "unknown issuer"),
        (&made, Config::default(), "unknown issuer"),
        (&made, wrong_name, "not valid for name"),
        (&made, by_pin(&other), "pin mismatch"),
        (&gone, by_ca(&gone), "expired"),
        (&gone, by_pin(&gone), "expired"),
    ];
    for (presented, dialing, said) in cases {
        let listener = listen(&presenting(presented, Config::default())).await.expect("listens");
        let error = within(dial(listener.url(), &dialing)).await.expect_err(said);
        assert_eq!((error.kind(), error.origin()), (ErrorKind::Certificate, Origin::Local), "{error}");
        assert!(error.message().contains(said), "{error}");
    }
    let listener = listen(&presenting(&made, Config::default())).await.expect("listens");
    within(dial(listener.url(), &by_ca(&made))).await.expect("the right authority and name");
    let error = listen(&Config::default()).await.expect_err("no certificate");
    assert!(error.message().contains("cert="), "{error}");
}

/// With the extension and without, a dialer knows what became of its certificate when `dial` returns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_is_demanded_and_verified() {
    let (made, known, unknown, gone) = (certificate(), certificate(), certificate(), expired());
    let demanding = |trusting: Config| {
        let mut config = presenting(&made, trusting);
        config.tls.client_auth = ClientAuth::Require;
        config
    };
    for (serving, ext) in [(by_ca(&known), "auto"), (by_pin(&known), "auto"), (by_pin(&known), "off")] {
        let listener = listen(&demanding(serving)).await.expect("listens");
        let mut dialing = by_pin(&made);
        dialing.extra.insert("ext".into(), ext.into());
        let refused = [
            (dialing.clone(), "presented none"),
            (presenting(&unknown, dialing.clone()), "rejected our certificate"),
            (presenting(&gone, dialing.clone()), "rejected our certificate"),
        ];
        for (config, said) in refused {
            let error = within(dial(listener.url(), &config)).await.expect_err(said);
            assert_eq!((error.kind(), error.origin()), (ErrorKind::Certificate, Origin::Peer), "{error}");
            assert!(error.message().contains(said), "{error}");
        }
        within(async {
            let right = presenting(&known, dialing);
            let (near, far) = tokio::join!(dial(listener.url(), &right), listener.accept());
            let (near, far) = (near.expect("dials"), far.expect("accepts"));
            let shown = far.info().tls.clone().and_then(|tls| tls.peer_certificate).expect("a certificate");
            assert_eq!(mux_transport::tls::pin_of(&shown), known.pin);
            echo(&near, &far).await;
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_replaced_while_the_listener_runs() {
    let (serving, dialing) = configs();
    let (other, trusting_other) = configs();
    let listener = listen(&serving).await.expect("listens");
    within(async {
        let (near, far) = tokio::join!(dial(listener.url(), &dialing), listener.accept());
        let (near, far) = (near.expect("dials"), far.expect("accepts"));
        listener.reload(&other).expect("reloads");
        assert!(dial(listener.url(), &dialing).await.is_err(), "the old pin fits no more");
        let (again, _far) = tokio::join!(dial(listener.url(), &trusting_other), listener.accept());
        again.expect("dials");
        echo(&near, &far).await;
    })
    .await;
}
