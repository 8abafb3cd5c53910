//! file_server URL DIRECTORY: serves the files below DIRECTORY (see examples/README.md).

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use libmux::{Channel, Config, Session};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

const NOT_UNDERSTOOD: u64 = 1;
const NO_SUCH_FILE: u64 = 2;
const READ_FAILED: u64 = 3;
const LONGEST_PATH: u64 = 4096;

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
    let [url, directory] = args.as_slice() else { return Err("usage: file_server URL DIRECTORY".into()) };
    let root: Arc<Path> = Path::new(directory).canonicalize()?.into();
    let listener = libmux::listen(url, &Config::default()).await?;
    println!("{}", listener.url());
    loop {
        tokio::spawn(serve_session(listener.accept().await?, Arc::clone(&root)));
    }
}

async fn serve_session(session: Session, root: Arc<Path>) {
    while let Ok(channel) = session.accept().await {
        let root = Arc::clone(&root);
        tokio::spawn(async move {
            if let Err(error) = serve_file(channel, &root).await {
                eprintln!("file: {error}");
            }
        });
    }
}

async fn serve_file(mut channel: Channel, root: &Path) -> Result<()> {
    if channel.label() != "file" {
        return Ok(channel.abort(NOT_UNDERSTOOD)?);
    }
    let mut request = String::new();
    let read = (&mut channel).take(LONGEST_PATH + 1).read_to_string(&mut request).await;
    if read.is_err() || request.is_empty() || request.len() as u64 > LONGEST_PATH {
        return Ok(channel.abort(NOT_UNDERSTOOD)?);
    }
    let Some(mut file) = open_confined(root, &request).await else { return Ok(channel.abort(NO_SUCH_FILE)?) };
    let mut block = vec![0; 65536];
    loop {
        match file.read(&mut block).await {
            Ok(0) => break,
            Ok(n) => channel.write_all(&block[..n]).await?,
            // The client must not take the part for the whole.
            Err(_) => return Ok(channel.abort(READ_FAILED)?),
        }
    }
    channel.close();
    Ok(())
}

/// Opens a regular file below the root: where the path leads to, links resolved, decides.
async fn open_confined(root: &Path, request: &str) -> Option<File> {
    let path: PathBuf = tokio::fs::canonicalize(root.join(request)).await.ok()?;
    let inside = path.starts_with(root) && tokio::fs::metadata(&path).await.ok()?.is_file();
    if inside { File::open(path).await.ok() } else { None }
}
