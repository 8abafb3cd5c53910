//! Messages that cost the sender little and must not cost the receiver more.

use libmux::{Config, ErrorKind, Origin, codes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::raw::{Attacked, coded, labeled, message, open, push, read_to_end, within};

async fn ends_for_the_violation(session: &libmux::Session) {
    let cause = within(session.closed()).await;
    assert_eq!(
        (cause.kind(), cause.origin(), cause.code()),
        (ErrorKind::Protocol, Origin::Peer, Some(codes::PROTOCOL))
    );
    assert_eq!(session.stats().budget_used, session.stats().recv_buffered);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unsolicited_answers_end_the_session_and_block_nobody() {
    let attacked = Attacked::new(&Config::default()).await;
    for answer in
        [message(101, &[0, 60, 1000, 1000]), message(102, &[0]), message(101, &[99, 1, 1, 1]), message(102, &[99])]
    {
        let (mut stream, session, _channel) = attacked.attacker_with_channel().await;
        push(&mut stream, &answer.repeat(1000)).await;
        ends_for_the_violation(&session).await;
    }
    attacked.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_huge_length_ends_the_session_within_the_header() {
    let attacked = Attacked::new(&Config::default()).await;
    for header in
        [message(104, &[0, u32::MAX]), message(112, &[u32::MAX]), message(110, &[u32::MAX]), message(128, &[u32::MAX])]
    {
        let (mut stream, session, _channel) = attacked.attacker_with_channel().await;
        push(&mut stream, &header).await;
        ends_for_the_violation(&session).await;
        assert_eq!(session.stats().recv_buffered, 0);
    }
    attacked.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_and_credit_beyond_the_bounds_end_the_session() {
    let attacked = Attacked::new(&Config::default()).await;
    let mut over = Vec::new();
    for _ in 0..5 {
        over.extend(message(104, &[0, 65_536]));
        over.resize(over.len() + 65_536, 1);
    }
    for bytes in [over, message(103, &[0, u32::MAX]), message(104, &[55, 1])] {
        let (mut stream, session, _channel) = attacked.attacker_with_channel().await;
        push(&mut stream, &bytes).await;
        ends_for_the_violation(&session).await;
        assert!(session.stats().recv_buffered <= 256 * 1024);
    }
    attacked.assert_unharmed().await;
}

/// A message of `LEN` bytes; open credit may come before it.
async fn but_credit<const LEN: usize>(stream: &mut tokio::net::TcpStream) -> [u8; LEN] {
    let mut message = [0; LEN];
    loop {
        within(stream.read_exact(&mut message[..1])).await.expect("a message");
        if message[0] != 119 {
            within(stream.read_exact(&mut message[1..])).await.expect("whole");
            return message;
        }
        within(stream.read_exact(&mut [0; 8])).await.expect("open credit");
    }
}

/// Rows where each message provokes an answer, from a peer that reads none of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_reads_are_bounded() {
    let attacked = Attacked::new(&Config::default()).await;
    let probe = open(5, 0, 0);
    let refused = open(5, 1000, 1000);
    let too_long = labeled(5, &[1; 2000]);
    for provoking in [probe, refused, too_long] {
        let (mut stream, session) = attacked.attacker().await;
        let burst = provoking.repeat(1000);
        let mut bursts = 0;
        while session.cause().is_none() && push(&mut stream, &burst).await {
            bursts += 1;
            assert!(bursts < 100_000, "the victim answers for ever");
            assert!(session.stats().channels_open <= 128);
        }
        let cause = within(session.closed()).await;
        assert_eq!((cause.kind(), cause.code()), (ErrorKind::LimitExceeded, Some(codes::LIMIT)), "{cause}");
    }
    attacked.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opens_given_up_at_once_are_never_accepted_and_leave_nothing() {
    let attacked = Attacked::new(&Config::default()).await;
    let (mut stream, session) = attacked.attacker().await;
    for _ in 0..2000 {
        stream.write_all(&open(5, 1000, 1000)).await.expect("opens");
        let confirm = but_credit::<17>(&mut stream).await;
        let to = u32::from_be_bytes([confirm[5], confirm[6], confirm[7], confirm[8]]);
        let ends = [coded(112, to), coded(113, to), message(106, &[to])].concat();
        stream.write_all(&ends).await.expect("gives up");
        assert_eq!(but_credit::<5>(&mut stream).await, [106, 0, 0, 0, 5]);
    }
    assert!(session.try_accept().is_err_and(|error| error.kind() == ErrorKind::Blocked));
    let stats = session.stats();
    assert_eq!((stats.channels_open, stats.budget_used), (0, 0));
    attacked.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_label_above_the_limit_is_refused_and_one_in_pieces_is_whole() {
    let attacked = Attacked::new(&Config::default()).await;
    let (mut stream, session) = attacked.attacker().await;
    push(&mut stream, &labeled(5, &[1; 1025])).await;
    let mut refusal = [0; 17];
    within(stream.read_exact(&mut refusal)).await.expect("a refusal");
    assert_eq!((refusal[0], &refusal[5..9]), (111, &[0, 0, 0, 5][..]));
    for byte in labeled(6, &[2; 1024]) {
        push(&mut stream, &[byte]).await;
    }
    let channel = within(session.accept()).await.expect("accepts");
    assert_eq!(&channel.label()[..], [2; 1024]);
    attacked.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tiny_data_on_an_unread_channel_takes_no_more_than_the_window() {
    let attacked = Attacked::new(&Config::default()).await;
    let (mut stream, session, channel) = attacked.attacker_with_channel().await;
    let before = session.stats().budget_used;
    let mut tiny = message(104, &[0, 1]);
    tiny.push(1);
    assert!(push(&mut stream, &tiny.repeat(100_000)).await);
    while session.stats().recv_buffered < 100_000 {
        assert_eq!(session.cause().map(|cause| cause.to_string()), None);
        tokio::task::yield_now().await;
    }
    assert_eq!(session.stats().budget_used, before);
    drop(channel);
    attacked.assert_unharmed().await;
}

/// Messages that carry nothing: up to a rate they cost nothing that stays, above it they end the session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_that_carry_nothing_are_cut_off() {
    let attacked = Attacked::new(&Config::default()).await;
    let ping = message(115, &[8, 0, 9]);
    let pong = message(116, &[8, 0, 9]);
    let goaway = message(117, &[12, 0, 1, 0]);
    for talk in [message(104, &[0, 0]), message(103, &[0, 1]), ping, pong, goaway, message(128, &[0])] {
        let (mut stream, session, mut channel) = attacked.attacker_with_channel().await;
        assert!(push(&mut stream, &talk.repeat(1000)).await);
        channel.write_all(b"still here").await.expect("the channel lives");
        let burst = talk.repeat(10_000);
        let mut bursts = 0;
        while session.cause().is_none() && push(&mut stream, &burst).await {
            bursts += 1;
            assert!(bursts < 100_000, "the victim listens for ever");
        }
        let cause = within(session.closed()).await;
        assert_eq!((cause.kind(), cause.code()), (ErrorKind::LimitExceeded, Some(codes::LIMIT)), "{cause}");
    }
    attacked.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn early_data_of_an_open_that_was_refused_is_skipped() {
    let mut config = Config::default();
    config.channel_backlog = 1;
    let attacked = Attacked::new(&config).await;
    let (mut stream, session) = attacked.attacker().await;
    let mut said = Vec::new();
    for number in 5..8 {
        said.extend(open(number, 1000, 1000));
        said.extend(message(120, &[4 + 3000, number]));
        said.resize(said.len() + 3000, number as u8);
        said.extend(message(121, &[4, number]));
    }
    assert!(push(&mut stream, &said).await);
    let mut channel = within(session.accept()).await.expect("one is accepted");
    let mut got = vec![0; 3000];
    within(channel.read_exact(&mut got)).await.expect("its data");
    assert_eq!(got, [5; 3000]);
    assert_eq!(session.stats().channels_open, 1);
    attacked.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_are_bounded_in_number_and_memory_whoever_never_accepts() {
    let mut config = Config::default();
    config.max_channels = 50;
    config.budget = 1 << 20;
    let attacked = Attacked::new(&config).await;
    let (mut stream, session) = attacked.attacker().await;
    let opens: Vec<u8> = (0..1000).flat_map(|number| open(number, 1000, 1000)).collect();
    push(&mut stream, &opens).await;
    let mut refused = 0;
    let mut head = [0; 5];
    for _ in 0..1000 {
        within(stream.read_exact(&mut head)).await.expect("an answer for each");
        let rest = match head[0] {
            101 => 12,
            _ => {
                refused += 1;
                u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize
            }
        };
        within(stream.read_exact(&mut vec![0; rest])).await.expect("whole");
    }
    assert_eq!(refused, 950);
    assert!(session.stats().budget_used <= 1 << 20);
    assert_eq!(session.stats().channels_open, 50);
    attacked.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_cut_off_is_told_why() {
    let attacked = Attacked::new(&Config::default()).await;
    let (mut stream, _session) = attacked.attacker().await;
    push(&mut stream, &message(106, &[77])).await;
    let said = read_to_end(&mut stream).await;
    assert_eq!(said[0], 114, "the session's end");
    let reason = String::from_utf8_lossy(&said[13..]).into_owned();
    assert!(reason.contains("channel 77"), "{reason}");
}
