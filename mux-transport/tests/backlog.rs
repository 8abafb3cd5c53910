//! Connections that come faster than they are accepted.
#![cfg(target_os = "linux")]

use std::time::Duration;

use mux_api::Url;
use mux_transport::{bind, connect};
use tokio::time::timeout;

#[tokio::test]
async fn a_burst_of_connections_waits_until_it_is_accepted() {
    let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("reads");
    let count = allowed.trim().parse().map_or(500, |allowed: usize| allowed.min(500));
    let path = std::env::temp_dir().join(format!("mux-backlog-{}.sock", std::process::id()));
    for listening in ["qmux://127.0.0.1:0".to_owned(), format!("qmux+unix://{}", path.display())] {
        let acceptor = bind(&Url::parse(&listening).expect("parses")).await.expect("listens");
        let scheme = listening.split("://").next().unwrap_or_default();
        let url = Url::parse(&format!("{scheme}:{}", acceptor.address())).expect("parses");
        let mut made = Vec::new();
        for at in 0..count {
            let connected = timeout(Duration::from_secs(10), connect(&url)).await;
            made.push(connected.unwrap_or_else(|_| panic!("{url}: {at} of {count} were taken")).expect("connects"));
        }
        for _ in 0..count {
            drop(acceptor.accept().await.expect("accepts"));
        }
        acceptor.close();
    }
}
