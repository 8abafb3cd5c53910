//! Connections that are no sessions.

use libmux::{Config, ErrorKind};
use tokio::io::AsyncWriteExt;

use crate::raw::{Attacked, HELLO, message, push, read_to_end, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_does_not_reach_accept_and_the_listener_goes_on() {
    let attacked = Attacked::new(&Config::default()).await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x02\x00\x01", b"SSH-2.0-x\r\n", &[0; 100]] {
        let mut stream = attacked.connect().await;
        push(&mut stream, garbage).await;
        read_to_end(&mut stream).await;
    }
    assert!(attacked.listener.try_accept().is_err_and(|error| error.kind() == ErrorKind::Blocked));
    attacked.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_vanish_at_once_do_not_stop_the_listener() {
    let attacked = Attacked::new(&Config::default()).await;
    for _ in 0..1500 {
        let stream = attacked.connect().await;
        // Closing with no linger time resets the connection, often before it was accepted.
        stream.set_zero_linger().expect("sets");
        drop(stream);
    }
    attacked.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_connections_wait_beside_the_others() {
    let attacked = Attacked::new(&Config::default()).await;
    let mut held = Vec::new();
    for at in 0..300 {
        let mut stream = attacked.connect().await;
        // Cut at every byte of the announcement, also before the first.
        stream.write_all(&HELLO[..at % HELLO.len()]).await.expect("sends");
        held.push(stream);
    }
    let (near, far) = within(async {
        let near = libmux::dial(attacked.listener.url(), &Config::default()).await.expect("dials");
        let mut channel = near.open().await.expect("opens");
        channel.write_all(b"honest").await.expect("writes");
        // The silent ones become plain sessions after a while and may come first.
        loop {
            let far = attacked.listener.accept().await.expect("accepts");
            if far.info().peer_addr == near.info().local_addr {
                break ((near, channel), far);
            }
        }
    })
    .await;
    let mut channel = within(far.accept()).await.expect("accepts");
    let mut got = [0; 6];
    channel.read(&mut got).await.expect("reads");
    assert_eq!(&got, b"honest");
    drop((near, held));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_comes_byte_by_byte_holds_only_itself() {
    let attacked = Attacked::new(&Config::default()).await;
    let (mut stream, session, _channel) = attacked.attacker_with_channel().await;
    let before = session.stats().budget_used;
    let mut message = message(104, &[0, 1000]);
    message.resize(message.len() + 500, 3);
    for byte in message {
        push(&mut stream, &[byte]).await;
    }
    attacked.assert_unharmed().await;
    while session.stats().recv_buffered < 500 {
        tokio::task::yield_now().await;
    }
    assert_eq!(session.stats().budget_used, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_listener_hangs_up_on_those_who_were_not_through() {
    let attacked = Attacked::new(&Config::default()).await;
    let mut stream = attacked.connect().await;
    push(&mut stream, &HELLO[..3]).await;
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    attacked.listener.close();
    read_to_end(&mut stream).await;
}
