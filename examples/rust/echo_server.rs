//! echo_server URL: sends back what arrives on channels labelled "echo".

use std::process::ExitCode;

use libmux::{Channel, Config, Session};

const NOT_UNDERSTOOD: u64 = 1;

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
    let [url] = args.as_slice() else { return Err("usage: echo_server URL".into()) };
    let listener = libmux::listen(url, &Config::default()).await?;
    println!("{}", listener.url());
    loop {
        tokio::spawn(serve_session(listener.accept().await?));
    }
}

async fn serve_session(session: Session) {
    while let Ok(channel) = session.accept().await {
        tokio::spawn(async move {
            if let Err(error) = echo(channel).await {
                eprintln!("echo: {error}");
            }
        });
    }
}

async fn echo(mut channel: Channel) -> libmux::Result<()> {
    if channel.label() != "echo" {
        return channel.abort(NOT_UNDERSTOOD);
    }
    // As it arrived, without a copy. A failure drops the channel, which the peer sees as a reset.
    while let Some(block) = channel.recv_half().read_bytes(65536).await? {
        channel.send_half().write_bytes(block).await?;
    }
    channel.close();
    Ok(())
}
