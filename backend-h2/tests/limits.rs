//! Many channels, unread channels, memory, and the pool of parked requests.

mod common;

use std::time::Duration;

use common::{SCHEMES, idle, pair, pair_over, within};
use mux_api::{Config, ErrorKind, OpenOptions, Session};

fn many() -> Config {
    let mut config = Config::default();
    config.max_channels = 2_500;
    config.channel_backlog = 2_500;
    config
}

async fn echo_many(opener: &Session, acceptor: &Session, count: u64) {
    let acceptor = acceptor.clone();
    let accepting = tokio::spawn(async move {
        let mut channels = Vec::new();
        for _ in 0..count {
            channels.push(acceptor.accept().await.expect("accepts"));
        }
        for channel in &mut channels {
            let mut buf = [0; 8];
            assert_eq!(channel.read(&mut buf).await.expect("reads"), 8);
            channel.write_all(&buf).await.expect("writes");
            channel.finish().expect("finishes");
            assert_eq!(channel.read(&mut buf).await.expect("end"), 0);
        }
    });
    let mut channels = Vec::new();
    for at in 0..count {
        let mut channel = opener.open().await.expect("opens");
        channel.write_all(&at.to_be_bytes()).await.expect("writes");
        channels.push(channel);
    }
    let mut seen = vec![false; count as usize];
    for channel in &mut channels {
        let mut buf = [0; 8];
        assert_eq!(channel.read(&mut buf).await.expect("reads"), 8);
        assert!(!std::mem::replace(&mut seen[u64::from_be_bytes(buf) as usize], true));
        channel.finish().expect("finishes");
        assert_eq!(channel.read(&mut buf).await.expect("end"), 0);
    }
    assert!(opener.stats().channels_open >= count);
    accepting.await.expect("accepting");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_channels_from_each_side_leave_nothing() {
    for scheme in SCHEMES {
        let (client, server, _listener) = pair_over(scheme, &many()).await;
        within(echo_many(&client, &server, 2_000)).await;
        idle([&client, &server]).await;
        within(echo_many(&server, &client, 2_000)).await;
        idle([&client, &server]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_unread_channels_leave_another_moving() {
    for scheme in SCHEMES {
        let (client, server, _listener) = pair_over(scheme, &many()).await;
        unread_channels_leave_another_moving(&client, &server).await;
    }
}

async fn unread_channels_leave_another_moving(client: &Session, server: &Session) {
    for (opener, acceptor) in [(client, server), (server, client)] {
        within(async {
            let (mut near, mut far) = (Vec::new(), Vec::new());
            for _ in 0..200 {
                let mut channel = opener.open().await.expect("opens");
                let unread = acceptor.accept().await.expect("accepts");
                // All that the window and the buffer take.
                let chunk = vec![1; 64 * 1024];
                while tokio::time::timeout(Duration::from_millis(5), channel.write_all(&chunk)).await.is_ok() {}
                near.push(channel);
                far.push(unread);
            }
            let mut channel = opener.open_with(&OpenOptions::new().label("moving")).await.expect("opens");
            let mut other = acceptor.accept().await.expect("accepts");
            assert_eq!(&other.label()[..], b"moving");
            for _ in 0..50 {
                channel.write_all(&[7; 10_000]).await.expect("writes");
                let mut left = 10_000;
                let mut buf = [0; 4096];
                while left > 0 {
                    left -= other.read(&mut buf).await.expect("reads");
                }
                other.write_all(b"ack").await.expect("answers");
                assert_eq!(channel.read(&mut buf).await.expect("reads"), 3);
            }
            assert!(acceptor.stats().recv_buffered <= acceptor.stats().budget_used);
            assert!(acceptor.stats().budget_used <= 256 << 20);
        })
        .await;
        idle([client, server]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_bounds_what_the_peer_can_make_us_hold() {
    let mut config = many();
    config.budget = 4 << 20;
    let (client, server, _listener) = pair(&config).await;
    within(async {
        let (mut near, mut refused) = (Vec::new(), 0);
        let unlimited = 4_000;
        for _ in 0..unlimited {
            match client.open().await {
                Ok(channel) => near.push(channel),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
                    assert!(error.is_retry_safe());
                    refused += 1;
                }
            }
            assert!(server.stats().budget_used <= 4 << 20);
        }
        assert!(refused > 0, "the budget of 4 MiB does not hold 4,000 windows");
        assert!(near.len() > 400, "windows shrink before channels are refused: {}", near.len());
    })
    .await;
    drop(server.clone());
    idle_after_refusals(&client, &server).await;
}

/// Accepts what waits, so that nothing holds the channels.
async fn idle_after_refusals(client: &Session, server: &Session) {
    within(async {
        while let Ok(channel) = tokio::time::timeout(Duration::from_millis(300), server.accept()).await {
            drop(channel);
        }
    })
    .await;
    idle([client, server]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_pool_is_refilled_and_no_open_is_lost() {
    let (client, server, _listener) = pair(&many()).await;
    within(async {
        // Far more at once than requests are parked.
        let mut opened = Vec::new();
        for at in 0..300u32 {
            let mut channel = server.open().await.expect("opens");
            channel.write_all(&at.to_be_bytes()).await.expect("writes at once");
            opened.push(channel);
        }
        let mut seen = vec![false; 300];
        for _ in 0..300 {
            let mut channel = client.accept().await.expect("accepts");
            let mut buf = [0; 4];
            assert_eq!(channel.read(&mut buf).await.expect("reads"), 4);
            assert!(!std::mem::replace(&mut seen[u32::from_be_bytes(buf) as usize], true));
            channel.close();
        }
        for channel in &mut opened {
            channel.opened().await.expect("was confirmed");
        }
        drop(opened);
        // And again, one after the other.
        for _ in 0..200 {
            let (near, far) = tokio::join!(server.open(), client.accept());
            near.expect("opens").close();
            far.expect("accepts").close();
        }
    })
    .await;
    idle([&client, &server]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_unread_tiny_writes_do_not_end_the_connection() {
    let (client, server, _listener) = pair(&Config::default()).await;
    within(async {
        let mut near = client.open().await.expect("opens");
        let mut far = server.accept().await.expect("accepts");
        for _ in 0..100_000 {
            near.write_all(b"x").await.expect("writes");
            if near.send_half().buffered() == 0 {
                // A frame each, as far as timing allows.
                tokio::task::yield_now().await;
            }
        }
        near.finish().expect("finishes");
        near.send_half().flush().await.expect("flushes");
        let (mut total, mut buf) = (0, vec![0; 8192]);
        loop {
            match far.read(&mut buf).await.expect("reads") {
                0 => break,
                len => total += len,
            }
        }
        assert_eq!(total, 100_000);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_label_that_is_too_long_is_told_at_once() {
    let (client, _server, _listener) = pair(&Config::default()).await;
    let error = client.open_with(&OpenOptions::new().label(vec![0; 1025])).await.expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::TooBig);
    assert!(error.message().contains("1024"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_given_up_before_it_was_accepted_is_never_seen() {
    let (client, server, _listener) = pair(&Config::default()).await;
    for (opener, acceptor) in [(&client, &server), (&server, &client)] {
        within(async {
            for _ in 0..300 {
                // More than the backlog holds: what was given up takes no place in it.
                let mut near = opener.open().await.expect("opens");
                if near.opened().await.is_ok() {
                    near.write_all(b"never seen").await.expect("writes");
                }
            }
            let mut finished = opener.open_with(&OpenOptions::new().label("seen")).await.expect("opens");
            finished.write_all(b"all").await.expect("writes");
            finished.finish().expect("finishes");
            // Confirmed although all of it came at once.
            let confirmed = tokio::time::timeout(Duration::from_secs(10), finished.opened()).await;
            confirmed.expect("in time").expect("there is room");
            drop(finished);
            idle([opener, opener]).await;
            let mut far = acceptor.accept().await.expect("accepts");
            assert_eq!(&far.label()[..], b"seen");
            let mut buf = [0; 8];
            assert_eq!(far.read(&mut buf).await.expect("reads"), 3);
            assert_eq!(far.read(&mut buf).await.expect("ends"), 0);
            assert!(acceptor.try_accept().is_err());
        })
        .await;
    }
}
