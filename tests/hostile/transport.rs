//! Peers that stop reading, never close, or read slowly: nobody here waits for them for ever, or loses a byte to them.

use bytes::Bytes;
use libmux::{Config, ErrorKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::raw::{Attacked, message, push, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_never_closes_does_not_keep_a_session_that_ended() {
    let attacked = Attacked::new(&Config::default()).await;
    let (_stream, session) = attacked.attacker().await;
    session.abort(1).expect("aborts");
    assert_eq!(within(session.closed()).await.code(), Some(1));
    let (mut stream, session) = attacked.attacker().await;
    push(&mut stream, &message(106, &[77])).await;
    assert_eq!(within(session.closed()).await.kind(), ErrorKind::Protocol);
}

/// Opens `count` channels towards a raw peer that confirms them with a large window.
async fn confirmed(stream: &mut tokio::net::TcpStream, session: &libmux::Session, count: u32) -> Vec<libmux::Channel> {
    let mut channels = Vec::new();
    for at in 0..count {
        let mut channel = session.open().await.expect("opens");
        let mut open = [0; 13];
        within(stream.read_exact(&mut open)).await.expect("an open");
        let number = u32::from_be_bytes([open[1], open[2], open[3], open[4]]);
        push(stream, &message(101, &[number, at, 1 << 30, 65_536])).await;
        within(channel.opened()).await.expect("is confirmed");
        channels.push(channel);
    }
    channels
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_the_transport_ends_when_the_session_does() {
    let attacked = Attacked::new(&Config::default()).await;
    let (mut stream, session) = attacked.attacker().await;
    let channels = confirmed(&mut stream, &session, 60).await;
    // Nobody reads: some ends are handed over to a transport that takes no more, others are still queued.
    let mut halves = Vec::new();
    for channel in channels {
        let (mut send, recv) = channel.split();
        let data = Bytes::from(vec![1; 200_000]);
        let written = tokio::time::timeout(std::time::Duration::from_millis(30), send.write_bytes(data)).await;
        if written.is_ok() {
            send.finish().expect("finishes");
        }
        halves.push((send, recv));
    }
    let waiting: Vec<_> = halves
        .into_iter()
        .map(|(mut send, recv)| {
            tokio::spawn(async move {
                let ended = send.ended().await;
                let flushed = send.flush().await;
                drop(recv);
                (ended.is_ok(), flushed.is_ok())
            })
        })
        .collect();
    tokio::task::yield_now().await;
    session.abort(3).expect("aborts");
    let mut failed = 0;
    for task in waiting {
        let (ended, flushed) = within(task).await.expect("comes back");
        failed += usize::from(!ended);
        assert!(ended || !flushed, "what was not taken was not flushed");
    }
    assert!(failed > 0, "60 x 200 kB do not fit a socket");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_does_not_wait_for_what_others_write() {
    let config = Config::default();
    let listener = libmux::listen("qmux://127.0.0.1:0", &config).await.expect("listens");
    let (near, far) = tokio::join!(libmux::dial(listener.url(), &config), listener.accept());
    let (near, far) = (near.expect("dials"), far.expect("accepts"));
    let drain = tokio::spawn(async move {
        loop {
            let Ok(channel) = far.accept().await else { return };
            tokio::spawn(async move {
                let (_send, mut recv) = channel.split();
                while let Ok(Some(_)) = recv.read_bytes(usize::MAX).await {}
            });
        }
    });
    let bulk: Vec<_> = (0..4)
        .map(|_| {
            let near = near.clone();
            tokio::spawn(async move {
                let mut channel = near.open().await.expect("opens");
                let data = vec![1; 3000];
                while channel.write_all(&data).await.is_ok() {}
            })
        })
        .collect();
    for _ in 0..50 {
        let (mut send, _recv) = near.open().await.expect("opens").split();
        send.write_all(b"urgent").await.expect("writes");
        within(send.flush()).await.expect("flushes");
        send.finish().expect("finishes");
        within(send.ended()).await.expect("ends");
    }
    bulk.iter().for_each(|task| task.abort());
    drop(near);
    within(drain).await.expect("ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_polite_close_reaches_a_peer_that_writes_before_it_reads() {
    let attacked = Attacked::new(&Config::default()).await;
    let (mut stream, session) = attacked.attacker().await;
    let mut channels = confirmed(&mut stream, &session, 1).await;
    let mut channel = channels.pop().expect("one");
    let data = vec![5; 8 << 20];
    let sending = tokio::spawn(async move {
        channel.write_all(&data).await.expect("writes");
        channel.close();
        session.close(0, "").expect("closes");
        within(session.closed()).await
    });
    // What a later version says needs no answer; a peer that is blocked sending it would never come to read.
    let (mut reader, mut writer) = stream.split();
    let mut later = message(128, &[100_000]);
    later.resize(later.len() + 100_000, 0);
    for _ in 0..100 {
        within(writer.write_all(&later)).await.expect("the victim goes on reading");
    }
    let mut seen = 0;
    loop {
        let kind = within(reader.read_u8()).await.expect("nothing is cut short");
        match kind {
            104 => {
                let _ = reader.read_u32().await.expect("number");
                let len = reader.read_u32().await.expect("length");
                within(reader.read_exact(&mut vec![0; len as usize])).await.expect("body");
                seen += len;
            }
            105 => break,
            113 | 114 => {
                let len = reader.read_u32().await.expect("length");
                within(reader.read_exact(&mut vec![0; len as usize])).await.expect("body");
            }
            other => panic!("message {other}"),
        }
    }
    assert_eq!(seen, 8 << 20);
    drop(stream);
    sending.await.expect("ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_written_with_many_slices_is_an_end() {
    use libmux::WriteFlags;
    use std::future::poll_fn;
    use std::io::IoSlice;
    let config = Config::default();
    let listener = libmux::listen("qmux://127.0.0.1:0", &config).await.expect("listens");
    let (near, far) = tokio::join!(libmux::dial(listener.url(), &config), listener.accept());
    let (near, far) = (near.expect("dials"), far.expect("accepts"));
    for (empty, full) in [(20, 1), (0, 17), (17, 0), (1, 16)] {
        let (mut send, _recv) = near.open().await.expect("opens").split();
        let mut slices = vec![IoSlice::new(b""); empty];
        slices.extend(vec![IoSlice::new(b"x"); full]);
        slices.push(IoSlice::new(b""));
        let taken = poll_fn(|cx| send.poll_write(cx, &slices, WriteFlags::FIN)).await.expect("writes");
        assert!(taken > 0 || full == 0);
        let mut rest = full - taken;
        while rest > 0 {
            let more = vec![IoSlice::new(b"x"); rest];
            rest -= poll_fn(|cx| send.poll_write(cx, &more, WriteFlags::FIN)).await.expect("writes");
        }
        let mut channel = within(far.accept()).await.expect("accepts");
        let mut got = Vec::new();
        within(AsyncReadExt::read_to_end(&mut channel, &mut got)).await.expect("a clean end");
        assert_eq!(got.len(), full);
    }
}
