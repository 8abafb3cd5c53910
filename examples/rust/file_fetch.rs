//! file_fetch URL PATH OUTPUT: fetches a file from a file_server (see examples/README.md).

use std::process::ExitCode;

use libmux::{Capabilities, Config, ErrorKind, OpenOptions, Session, WriteFlags};
use tokio::io::AsyncWriteExt;

const NO_SUCH_FILE: u64 = 2;

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
    let [url, path, output] = args.as_slice() else { return Err("usage: file_fetch URL PATH OUTPUT".into()) };
    let session = libmux::dial(url, &Config::default()).await?;

    // Written under another name: only what is complete gets the name of the whole.
    let part = format!("{output}.part");
    match fetch(&session, path, &part).await {
        Ok(()) => tokio::fs::rename(&part, output).await?,
        Err(error) => {
            let _ = tokio::fs::remove_file(&part).await;
            return Err(format!("{path}: {error}").into());
        }
    }
    session.close(0, "done")?;
    session.closed().await;
    Ok(())
}

async fn fetch(session: &Session, path: &str, part: &str) -> Result<()> {
    if !session.capabilities().contains(Capabilities::RESET_VISIBLE) {
        return Err("this session cannot tell an aborted transfer from a complete one".into());
    }
    let mut channel = session.open_with(&OpenOptions::new().label("file")).await?;
    channel.send_half().write_all_with(path.as_bytes(), WriteFlags::FIN).await?;
    let mut file = tokio::fs::File::create(part).await?;
    loop {
        match channel.recv_half().read_bytes(65536).await {
            Ok(Some(block)) => file.write_all(&block).await?,
            Ok(None) => break,
            Err(error) if error.kind() == ErrorKind::Reset && error.code() == Some(NO_SUCH_FILE) => {
                return Err("no such file".into());
            }
            Err(error) => return Err(error.into()),
        }
    }
    // tokio's files report a failed write only with the next operation.
    file.flush().await?;
    channel.close();
    Ok(())
}
