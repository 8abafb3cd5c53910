//! `mux connect`: stdin and stdout are a channel.

use libmux::{Config, OpenOptions};

use crate::dial::dial;
use crate::exit::Exit;
use crate::stdio;

/// Open a channel and connect it to stdin and stdout
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to, such as qmux://127.0.0.1:4000
    url: String,

    /// A label that the accepting side sees before any data
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
}

/// Dials, carries one channel, closes.
pub(crate) async fn run(args: Args) -> Result<(), Exit> {
    let session = dial(&args.url, &Config::default()).await?;
    tracing::info!("connected to {}: {}", session.info().peer_addr, session.capabilities());
    let options = OpenOptions::new().label(args.label.unwrap_or_default());
    let channel = session
        .open_with(&options)
        .await
        .map_err(|error| Exit::from_mux(&format!("cannot open a channel to {}", args.url), &error))?;
    // Nothing is served here: a channel that the peer opens is refused at once instead of waiting for nobody.
    let refusing = async {
        while let Ok(channel) = session.accept().await {
            tracing::info!("refused channel {} of the peer: connect serves none", channel.id());
            drop(channel);
        }
        std::future::pending::<()>().await;
    };
    let carried = tokio::select! {
        carried = stdio::carry(channel) => carried,
        () = refusing => Ok(()),
    };
    stdio::close(&session, carried).await
}
