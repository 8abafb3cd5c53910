//! Two processes' worth of sessions in one: the contract in its simplest form, on every scheme of the registry.

use std::time::Duration;

use libmux::{Capabilities, Config, ErrorKind, OpenOptions, Session};

async fn pair(url: &str, config: &Config) -> (Session, Session, libmux::Listener) {
    let listener = libmux::listen(url, config).await.expect("listens");
    let dialed = libmux::dial(listener.url(), config);
    let (client, server) = tokio::join!(dialed, listener.accept());
    (client.expect("dials"), server.expect("accepts"), listener)
}

fn urls(name: &str) -> Vec<String> {
    let dir = std::env::temp_dir();
    let socket = dir.join(format!("libmux-{name}-{}.sock", std::process::id()));
    vec!["qmux://127.0.0.1:0".into(), format!("qmux+unix://{}", socket.display())]
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("finishes in time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_open_and_echo() {
    for url in urls("echo") {
        let (client, server, _listener) = pair(&url, &Config::default()).await;
        for (opener, acceptor) in [(client.clone(), server.clone()), (server, client)] {
            within(async {
                let mut near = opener.open_with(&OpenOptions::new().label("rpc")).await.expect("opens");
                let mut far = acceptor.accept().await.expect("accepts");
                assert_eq!(&far.label()[..], b"rpc");
                assert!(opener.capabilities().contains(Capabilities::RESET_CODE | Capabilities::LABEL));
                near.write_all(b"hello").await.expect("writes");
                near.finish().expect("finishes");
                let mut buf = [0; 64];
                let len = far.read(&mut buf).await.expect("reads");
                assert_eq!(&buf[..len], b"hello");
                assert_eq!(far.read(&mut buf).await.expect("end"), 0);
                assert_eq!(far.read(&mut buf).await.expect("end stays"), 0);
                far.write_all(b"world").await.expect("other direction goes on");
                far.finish().expect("finishes");
                let len = near.read(&mut buf).await.expect("reads");
                assert_eq!(&buf[..len], b"world");
                assert_eq!(near.read(&mut buf).await.expect("end"), 0);
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_arrives_whole_in_both_directions() {
    const LEN: usize = 64 << 20;
    for url in urls("bulk") {
        let (client, server, _listener) = pair(&url, &Config::default()).await;
        let near = client.open().await.expect("opens");
        let far = server.accept().await.expect("accepts");
        let ((mut s1, mut r1), (mut s2, mut r2)) = (near.split(), far.split());
        let pattern = |at: usize| (at.wrapping_mul(2654435761) >> 7) as u8;
        let data: Vec<u8> = (0..LEN).map(pattern).collect();
        let send = tokio::spawn(async move {
            for chunk in data.chunks(100_000) {
                s1.write_all(chunk).await.expect("writes");
            }
            s1.finish().expect("finishes");
            s1
        });
        let echo = tokio::spawn(async move {
            while let Some(bytes) = r2.read_bytes(usize::MAX).await.expect("reads") {
                s2.write_bytes(bytes).await.expect("echoes");
            }
            s2.finish().expect("finishes");
        });
        let mut buf = vec![0; 70_000];
        let mut at = 0;
        within(async {
            loop {
                let len = r1.read(&mut buf).await.expect("reads");
                if len == 0 {
                    break;
                }
                for (i, byte) in buf[..len].iter().enumerate() {
                    assert_eq!(*byte, pattern(at + i), "at {}", at + i);
                }
                at += len;
            }
        })
        .await;
        assert_eq!(at, LEN);
        send.await.expect("sender");
        echo.await.expect("echo");
        drop(r1);
        within(async {
            while client.stats().channels_open + server.stats().channels_open > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        assert_eq!((client.stats().budget_used, server.stats().budget_used), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codes_travel_and_dropping_is_aborting() {
    for url in urls("codes") {
        let (client, server, _listener) = pair(&url, &Config::default()).await;
        within(async {
            let (mut s1, mut r1) = client.open().await.expect("opens").split();
            let (mut s2, mut r2) = server.accept().await.expect("accepts").split();
            s1.write_all(b"partial").await.expect("writes");
            s1.reset(7).expect("resets");
            let mut buf = [0; 64];
            let error = loop {
                match r2.read(&mut buf).await {
                    Ok(0) => panic!("a reset is never an end"),
                    Ok(_) => {}
                    Err(error) => break error,
                }
            };
            assert_eq!((error.kind(), error.code()), (ErrorKind::Reset, Some(7)));
            r1.stop(9).expect("stops");
            let error = loop {
                if let Err(error) = s2.write_all(b"x").await {
                    break error;
                }
                tokio::task::yield_now().await;
            };
            assert_eq!((error.kind(), error.code()), (ErrorKind::Stopped, Some(9)));

            let mut near = client.open().await.expect("opens");
            near.write_all(b"half").await.expect("writes");
            let mut far = server.accept().await.expect("accepts");
            drop(near);
            let error = loop {
                match far.read(&mut buf).await {
                    Ok(0) => panic!("a drop is never an end"),
                    Ok(_) => {}
                    Err(error) => break error,
                }
            };
            assert_eq!(error.code(), Some(libmux::codes::DROPPED));
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_a_session_loses_nothing_that_was_finished() {
    for url in urls("close") {
        let (client, server, _listener) = pair(&url, &Config::default()).await;
        within(async {
            let mut near = client.open().await.expect("opens");
            let data = vec![5; 3 << 20];
            let reader = tokio::spawn(async move {
                let mut far = server.accept().await.expect("accepts");
                let (mut total, mut buf) = (0, vec![0; 9000]);
                loop {
                    match far.read(&mut buf).await.expect("no error before the end") {
                        0 => break,
                        len => total += len,
                    }
                }
                (total, server.closed().await)
            });
            near.write_all(&data).await.expect("writes");
            near.close();
            client.close(42, "done").expect("closes");
            assert_eq!(client.closed().await.origin(), libmux::Origin::Local);
            let (total, cause) = reader.await.expect("reader");
            assert_eq!(total, data.len());
            assert_eq!((cause.origin(), cause.code(), cause.message()), (libmux::Origin::Peer, Some(42), "done"));
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_channels_echo_and_leave_nothing() {
    let mut config = Config::default();
    config.max_channels = 10_000;
    config.channel_backlog = 10_000;
    for url in urls("many") {
        let (client, server, _listener) = pair(&url, &config).await;
        within(async {
            let accepting = tokio::spawn(async move {
                let mut channels = Vec::new();
                for _ in 0..10_000 {
                    channels.push(server.accept().await.expect("accepts"));
                }
                for channel in &mut channels {
                    let mut buf = [0; 8];
                    assert_eq!(channel.read(&mut buf).await.expect("reads"), 8);
                    channel.write_all(&buf).await.expect("writes");
                    channel.finish().expect("finishes");
                    assert_eq!(channel.read(&mut buf).await.expect("end"), 0);
                }
                drop(channels);
                server
            });
            let mut channels = Vec::new();
            for at in 0..10_000u64 {
                let mut channel = client.open().await.expect("opens");
                channel.write_all(&at.to_be_bytes()).await.expect("writes");
                channels.push(channel);
            }
            for (at, channel) in channels.iter_mut().enumerate() {
                let mut buf = [0; 8];
                assert_eq!(channel.read(&mut buf).await.expect("reads"), 8);
                assert_eq!(u64::from_be_bytes(buf), at as u64);
                channel.finish().expect("finishes");
                assert_eq!(channel.read(&mut buf).await.expect("end"), 0);
            }
            drop(channels);
            let server = accepting.await.expect("accepting");
            while client.stats().channels_open + server.stats().channels_open > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert_eq!((client.stats().budget_used, server.stats().budget_used), (0, 0));
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_peers_goodbye_is_heard_by_one_that_keeps_writing() {
    for url in urls("goodbye") {
        for _ in 0..40 {
            let (client, server, _listener) = pair(&url, &Config::default()).await;
            let cause = within(async {
                let mut near = client.open().await.expect("opens");
                let _far = server.accept().await.expect("accepts");
                let writing = tokio::spawn(async move { while near.write_all(&[1; 3000]).await.is_ok() {} });
                server.close(5, "enough").expect("closes");
                let cause = client.closed().await;
                writing.await.expect("writer");
                cause
            })
            .await;
            assert_eq!(
                (cause.origin(), cause.code()),
                (libmux::Origin::Peer, Some(5)),
                "{url}: {cause}; {:?} {:?}",
                server.cause(),
                client.stats()
            );
        }
    }
}
