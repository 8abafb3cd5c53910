//! echo_client URL [TEXT]: sends TEXT on a channel labelled "echo" and prints what comes back.

use std::process::ExitCode;

use libmux::{Config, OpenOptions, WriteFlags};
use tokio::io::AsyncReadExt;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (url, text) = match args.as_slice() {
        [url] => (url, "hello"),
        [url, text] => (url, text.as_str()),
        _ => return Err("usage: echo_client URL [TEXT]".into()),
    };
    let session = libmux::dial(url, &Config::default()).await?;
    let (mut send, mut recv) = session.open_with(&OpenOptions::new().label("echo")).await?.split();

    // One task sends while another receives, so a text of any size passes. Data and end travel together.
    let text = text.to_owned();
    let sending = tokio::spawn(async move { send.write_all_with(text.as_bytes(), WriteFlags::FIN).await });
    let mut answer = Vec::new();
    recv.read_to_end(&mut answer).await?;
    sending.await??;
    println!("{}", String::from_utf8_lossy(&answer));

    session.close(0, "done")?;
    session.closed().await;
    Ok(())
}
