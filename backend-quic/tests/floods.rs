//! Dialers with forged addresses take little of a listener, and nobody's place.

mod common;

use common::strangers::{Answers, connects, first_datagrams, send, stranger};
use common::{certificate, listen, server_config};

/// Pages that this process holds.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dialers_with_forged_addresses_are_asked_to_prove_them_and_take_no_memory() {
    let made = certificate();
    let mut config = server_config(&made);
    // A quarter of it: so many strangers are believed.
    config.session_backlog = 64;
    let listener = listen("quic://127.0.0.1:0", &config).await;
    let datagrams = first_datagrams(6000);
    let (socket, mut answers) = (stranger(&listener), Answers::default());
    send(&socket, &datagrams[..2000], &mut answers).await;
    let before = resident();
    send(&socket, &datagrams[2000..], &mut answers).await;
    let _live = connects(&listener, &made).await;
    answers.hear(&socket);
    assert!(answers.begun.len() <= 16, "{} handshakes with strangers", answers.begun.len());
    assert!(answers.retries > 1000, "{} of 6000 were asked to prove their address", answers.retries);
    let grown = resident().saturating_sub(before) * 4096;
    assert!(grown < 4 << 20, "4000 strangers took {grown} bytes");
}
