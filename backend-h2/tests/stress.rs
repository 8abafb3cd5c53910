//! Many tasks on one session, from both sides, in every order: no hang, no wrong byte, nothing left.

mod common;

use std::time::{Duration, Instant};

use common::{idle, pair, within};
use mux_api::{Channel, Config, ErrorKind, Session};

/// A small random source, so that a failing run can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Echoes, until the other side finishes, resets or stops.
async fn echo(channel: Channel) {
    let (mut send, mut recv) = channel.split();
    while let Ok(Some(bytes)) = recv.read_bytes(50_000).await {
        if send.write_bytes(bytes).await.is_err() {
            return;
        }
    }
    send.close();
}

async fn serve(session: Session) {
    while let Ok(channel) = session.accept().await {
        tokio::spawn(echo(channel));
    }
}

async fn client(session: Session, mut random: Random, until: Instant) -> u64 {
    let mut done = 0;
    while Instant::now() < until {
        let mut channel = match session.open().await {
            Ok(channel) => channel,
            Err(error) => panic!("{error:?}"),
        };
        let data = vec![random.below(256) as u8; random.below(300_000) as usize];
        match random.below(5) {
            0 => drop(channel),
            1 => {
                let _ = channel.write_all(&data).await;
                channel.send_half().reset(5).expect("resets");
            }
            2 => {
                let _ = channel.write_all(&data).await;
                let _ = channel.recv_half().stop(6);
                channel.close();
            }
            _ => {
                let (mut send, mut recv) = channel.split();
                let copy = data.clone();
                let writing = async move {
                    send.write_all(&copy).await?;
                    send.finish()?;
                    send.ended().await
                };
                let reading = async move {
                    let mut all = Vec::new();
                    while let Some(bytes) = recv.read_bytes(usize::MAX).await? {
                        all.extend_from_slice(&bytes);
                    }
                    Ok::<_, mux_api::Error>(all)
                };
                match tokio::join!(writing, reading) {
                    (Ok(()), Ok(all)) => assert!(all == data, "{} of {} bytes", all.len(), data.len()),
                    // The backlog may be full for a moment.
                    (Err(error), _) | (_, Err(error)) => {
                        assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
                    }
                }
                done += 1;
            }
        }
    }
    done
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_on_one_session() {
    let (one, two, _listener) = pair(&Config::default()).await;
    let serving = [tokio::spawn(serve(one.clone())), tokio::spawn(serve(two.clone()))];
    let until = Instant::now() + Duration::from_secs(4);
    let tasks: Vec<_> = (0..40)
        .map(|at| {
            let session = if at % 2 == 0 { one.clone() } else { two.clone() };
            tokio::spawn(client(session, Random(at * 7919 + 1), until))
        })
        .collect();
    let mut done = 0;
    within(async {
        for task in tasks {
            done += task.await.expect("a task");
        }
    })
    .await;
    assert!(done > 0);
    idle([&one, &two]).await;
    for task in serving {
        task.abort();
    }
}

/// The transport may take everything between a look at what is under way and the wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_flush_never_misses_that_all_was_taken() {
    let (client, server, _listener) = pair(&Config::default()).await;
    within(async {
        let mut near = client.open().await.expect("opens");
        let mut far = server.accept().await.expect("accepts");
        let reading = tokio::spawn(async move { while far.read(&mut [0; 4096]).await.expect("reads") > 0 {} });
        for _ in 0..5_000 {
            near.write_all(b"x").await.expect("writes");
            near.send_half().flush().await.expect("flushes");
        }
        near.finish().expect("finishes");
        reading.await.expect("reads");
    })
    .await;
}
