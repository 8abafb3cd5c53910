//! `qmux+tls`: ALPN says what both sides speak, certificates whom they trust.

use std::future::Future;
use std::time::Duration;

use backend_qmux::QmuxBackend;
use mux_api::backend::Backend;
use mux_api::{Capabilities, Config, ErrorKind, Listener, OpenOptions, Session, Url};
use mux_transport::tls::self_signed;

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("finishes in time")
}

async fn dial(url: &str, config: &Config) -> mux_api::Result<Session> {
    QmuxBackend.dial(&Url::parse(url)?, config).await
}

async fn listen(config: &Config) -> mux_api::Result<Listener> {
    QmuxBackend.listen(&Url::parse("qmux+tls://127.0.0.1:0")?, config).await
}

/// A listener's configuration, and one that trusts it.
fn configs() -> (Config, Config) {
    let made = self_signed(&["localhost"]).expect("makes");
    let (mut serving, mut dialing) = (Config::default(), Config::default());
    serving.tls.identity_pem = Some((made.cert_pem.into_bytes(), made.key_pem.into_bytes()));
    dialing.tls.pins = vec![made.pin];
    (serving, dialing)
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
async fn a_stranger_is_not_trusted_and_a_listener_needs_a_certificate() {
    let (serving, _) = configs();
    let (_, dialing) = configs();
    let listener = listen(&serving).await.expect("listens");
    let error = within(dial(listener.url(), &dialing)).await.expect_err("another's pin");
    assert_eq!(error.kind(), ErrorKind::Certificate, "{error}");
    let error = listen(&Config::default()).await.expect_err("no certificate");
    assert!(error.message().contains("cert="), "{error}");
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
