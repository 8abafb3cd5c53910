//! Measuring over a link: the serving process runs at its other end, started by a `mux bench --serve` there.
//!
//! Whoever measures connects, sends an [`Order`] in a line, and then talks with the worker as if it were its child: lines
//! both ways. A connection that ends ends the worker.

use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::exit::{Exit, print_line};

/// Which worker to start.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// Both ends must be of the same version: they share no more than lines.
    version: String,
    backend: String,
    scenario: String,
    options: Vec<String>,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// How long the other end may take to answer at all.
const PATIENCE: Duration = Duration::from_secs(10);

/// Listens at `at`, prints the address, starts what is ordered, until it is interrupted.
pub(super) async fn serve(at: &str) -> Result<(), Exit> {
    let cannot = |error| Exit::failed(format!("cannot listen on {at}: {error}"));
    let listener = TcpListener::bind(at).await.map_err(cannot)?;
    print_line(&listener.local_addr().map_err(cannot)?.to_string())?;
    loop {
        let (tcp, from) = listener.accept().await.map_err(cannot)?;
        tokio::spawn(async move {
            if let Err(why) = work(tcp).await {
                tracing::warn!("{from}: {why}");
            }
        });
    }
}

async fn work(tcp: TcpStream) -> Result<(), String> {
    let told = |error: std::io::Error| error.to_string();
    tcp.set_nodelay(true).map_err(told)?;
    let place = std::net::SocketAddr::new(tcp.local_addr().map_err(told)?.ip(), 0);
    let (from, mut to) = tcp.into_split();
    let mut from = BufReader::new(from);
    let mut line = String::new();
    from.read_line(&mut line).await.map_err(told)?;
    let order: Order = serde_json::from_str(&line).map_err(|error| format!("no order: {error}"))?;
    if order.version != VERSION {
        return Err(format!("mux {} asks for a measurement, this is mux {VERSION}", order.version));
    }
    let backend =
        super::backend::Backend::parse(&order.backend).map_err(|_| format!("no backend {}", order.backend))?;
    let mut child = Command::new(std::env::current_exe().map_err(told)?)
        .args(["bench-worker", "server", "--backend", &order.backend, "--scenario", &order.scenario])
        .args(["--at", &backend.address(&place.to_string())])
        .args(order.options.iter().flat_map(|option| ["--option", option]))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(told)?;
    let (Some(mut stdin), Some(mut stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("no pipes".to_owned());
    };
    // Whichever ends first ends both: the worker has failed, or nobody wants it any more.
    tokio::select! {
        copied = tokio::io::copy_buf(&mut from, &mut stdin) => copied,
        copied = tokio::io::copy(&mut stdout, &mut to) => copied,
    }
    .map_err(told)?;
    Ok(())
}

/// Orders a worker at `at`.
pub(super) async fn order(
    at: &str,
    backend: &str,
    scenario: &str,
    options: &[String],
) -> std::io::Result<(OwnedWriteHalf, OwnedReadHalf)> {
    let tcp = tokio::time::timeout(PATIENCE, TcpStream::connect(at)).await??;
    tcp.set_nodelay(true)?;
    let (from, mut to) = tcp.into_split();
    let order = Order {
        version: VERSION.to_owned(),
        backend: backend.to_owned(),
        scenario: scenario.to_owned(),
        options: options.to_vec(),
    };
    to.write_all(format!("{}\n", serde_json::to_string(&order)?).as_bytes()).await?;
    Ok((to, from))
}
