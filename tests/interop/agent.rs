//! The libmux side of the tests with peers that are not ours.
//!
//! `serve [URL]` prints the URL to dial, then for each session what its peer can do and for each channel how it ended; it
//! echoes every channel, and opens one of its own on each session. `check URL` runs every client check against a peer
//! that echoes, and opens a channel of its own which it closes without an end. `unaccepted URL` outlasts a peer that accepts
//! nothing, and reads nothing meanwhile. `streams URL` does so over QUIC against a peer
//! that speaks another protocol than ours.

use std::process::ExitCode;
use std::time::Duration;

use libmux::{Capabilities, Channel, Config, ErrorKind, OpenOptions, Session};

type Outcome<T = ()> = Result<T, String>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args[..] {
        ["serve"] => serve("qmux://127.0.0.1:0").await,
        ["serve", url] => serve(url).await,
        ["streams", url] => streams(url).await,
        ["check", url] => check(url).await,
        ["unaccepted", url] => unaccepted(url).await,
        _ => Err("usage: interop_agent serve [URL] | interop_agent check|unaccepted|streams URL".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(url: &str) -> Outcome {
    let listener = libmux::listen(url, &Config::default()).await.map_err(text("listen"))?;
    println!("{}", listener.url());
    loop {
        let session = listener.accept().await.map_err(text("accept"))?;
        let plain = session.capabilities() == plain_capabilities();
        println!("session {}", if plain { "plain" } else { "extended" });
        tokio::spawn(greet(session.clone()));
        tokio::spawn(async move {
            while let Ok(channel) = session.accept().await {
                tokio::spawn(async move { println!("channel {}", echo(channel).await) });
            }
            println!("over {}", session.closed().await);
        });
    }
}

/// The side that was dialed opens too.
async fn greet(session: Session) -> Outcome {
    let mut channel = session.open().await.map_err(text("open"))?;
    channel.write_all(b"from the server").await.map_err(text("write"))?;
    channel.finish().map_err(text("finish"))?;
    let answer = read_all(&mut channel).await?;
    println!("greeted {}", answer.len());
    Ok(())
}

/// Echoes until the end; says how many bytes came and how they ended.
async fn echo(channel: Channel) -> String {
    let (mut send, mut recv) = channel.split();
    let mut total = 0;
    let end = loop {
        match recv.read_bytes(usize::MAX).await {
            Ok(Some(bytes)) => {
                total += bytes.len();
                // A peer that closed takes no answer; what it sent still counts.
                let _ = send.write_bytes(bytes).await;
            }
            Ok(None) => break "eof".to_owned(),
            Err(error) => break error.to_string(),
        }
    };
    send.close();
    format!("{total} {end}")
}

fn plain_capabilities() -> Capabilities {
    Capabilities::HALF_CLOSE | Capabilities::OPENED | Capabilities::SERVER_OPEN
}

async fn check(url: &str) -> Outcome {
    let session = libmux::dial(url, &Config::default()).await.map_err(text("dial"))?;
    if session.capabilities() != plain_capabilities() {
        return Err(format!("a plain peer can do {:?}", session.capabilities()));
    }
    println!("ok capabilities");
    from_the_peer(&session).await?;
    println!("ok a channel of the peer's, closed without an end, ends cleanly");
    echoed(&session, 16 << 20).await?;
    println!("ok 16 MiB come back");
    let many: Vec<_> =
        (0..200).map(|_| session.clone()).map(|one| tokio::spawn(async move { echoed(&one, 10_000).await })).collect();
    for one in many {
        one.await.map_err(|error| error.to_string())??;
    }
    println!("ok 200 channels at once");
    unsupported(&session).await?;
    println!("ok labels, codes and stop are refused by us, in words");
    let closed = session.open().await.map_err(text("open"))?;
    closed.close();
    echoed(&session, 1).await?;
    println!("ok the session goes on after a close");
    session.close(0, "").map_err(text("close"))?;
    let cause = session.closed().await;
    if cause.origin() != libmux::Origin::Local {
        return Err(format!("ended by the peer: {cause}"));
    }
    Ok(())
}

/// A Go peer queues a few opens and reads nothing more until its application accepts: ten times the keepalive, all of it
/// silent.
async fn unaccepted(url: &str) -> Outcome {
    let session = libmux::dial(url, &Config::default()).await.map_err(text("dial"))?;
    let mut channels = Vec::new();
    for _ in 0..40 {
        let mut channel = session.open().await.map_err(text("open"))?;
        channel.write_all(b"anybody there?").await.map_err(text("write"))?;
        channels.push(channel);
    }
    let last = channels.last_mut().ok_or("no channel")?;
    if let Ok(answered) = tokio::time::timeout(Duration::from_secs(2), last.opened()).await {
        return Err(format!("a channel that nobody accepted: {answered:?}"));
    }
    session.cause().map_or(Ok(()), |cause| Err(format!("the session ended: {cause}")))
}

async fn streams(url: &str) -> Outcome {
    let session = libmux::dial(url, &Config::default()).await.map_err(text("dial"))?;
    let can = session.capabilities();
    if !can.contains(Capabilities::STOP | Capabilities::RESET_CODE) || can.contains(Capabilities::LABEL) {
        return Err(format!("streams of QUIC can do {can:?}"));
    }
    from_the_peer(&session).await?;
    echoed(&session, 16 << 20).await?;
    println!("ok 16 MiB come back");
    let many: Vec<_> =
        (0..200).map(|_| session.clone()).map(|one| tokio::spawn(async move { echoed(&one, 10_000).await })).collect();
    for one in many {
        one.await.map_err(|error| error.to_string())??;
    }
    println!("ok 200 channels, as many at once as the peer allows");
    let labeled = session.open_with(&OpenOptions::new().label("x")).await;
    refused("a label", labeled.map(drop), "label")?;
    let mut channel = session.open().await.map_err(text("open"))?;
    channel.write_all(b"reset").await.map_err(text("write"))?;
    match patience(channel.read(&mut [0; 8])).await? {
        Err(error) if error.code() == Some(77) => {}
        other => return Err(format!("a reset came as {other:?}")),
    }
    drop(channel);
    echoed(&session, 1).await?;
    println!("ok a reset carries its code, and the session goes on");
    session.close(0, "").map_err(text("close"))?;
    let cause = session.closed().await;
    if cause.origin() == libmux::Origin::Local { Ok(()) } else { Err(format!("ended by the peer: {cause}")) }
}

/// Writes `len` bytes, ends our direction, and reads all of them back up to the end.
async fn echoed(session: &Session, len: usize) -> Outcome {
    let (mut send, mut recv) = session.open().await.map_err(text("open"))?.split();
    let data: Vec<u8> = (0..len).map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let expected = data.clone();
    let sending = tokio::spawn(async move {
        send.write_all(&data).await?;
        send.finish()?;
        Ok::<_, libmux::Error>(send)
    });
    let mut got = Vec::with_capacity(len);
    while let Some(bytes) = patience(recv.read_bytes(usize::MAX)).await?.map_err(text("read"))? {
        got.extend_from_slice(&bytes);
    }
    sending.await.map_err(|error| error.to_string())?.map_err(text("write"))?;
    if got == expected { Ok(()) } else { Err(format!("{} of {len} bytes came back, or others", got.len())) }
}

async fn from_the_peer(session: &Session) -> Outcome {
    let mut channel = patience(session.accept()).await?.map_err(text("accept"))?;
    let said = read_all(&mut channel).await?;
    if said == b"from the peer" { Ok(()) } else { Err(format!("the peer said {said:?}")) }
}

/// What a plain peer cannot be told is an error that changes nothing.
async fn unsupported(session: &Session) -> Outcome {
    let labeled = session.open_with(&OpenOptions::new().label("x")).await;
    refused("a label", labeled.map(drop), "label")?;
    let (mut send, mut recv) = session.open().await.map_err(text("open"))?.split();
    refused("a reset code", send.reset(7), "code")?;
    refused("a stop", recv.stop(7), "stop")?;
    send.write_all(b"still open").await.map_err(text("write"))?;
    let mut got = [0; 10];
    let mut at = 0;
    while at < got.len() {
        at += patience(recv.read(&mut got[at..])).await?.map_err(text("read"))?;
    }
    send.reset(0).map_err(text("reset without a code"))
}

fn refused(what: &str, result: libmux::Result<()>, said: &str) -> Outcome {
    match result {
        Err(error) if error.kind() == ErrorKind::Unsupported && error.message().contains(said) => Ok(()),
        other => Err(format!("{what}: {other:?}")),
    }
}

async fn read_all(channel: &mut Channel) -> Outcome<Vec<u8>> {
    let mut out = Vec::new();
    let mut buf = [0; 4096];
    loop {
        match patience(channel.read(&mut buf)).await?.map_err(text("read"))? {
            0 => return Ok(out),
            len => out.extend_from_slice(&buf[..len]),
        }
    }
}

async fn patience<T>(future: impl Future<Output = T>) -> Outcome<T> {
    tokio::time::timeout(Duration::from_secs(60), future).await.map_err(|_| "nothing came for a minute".to_owned())
}

fn text(doing: &str) -> impl Fn(libmux::Error) -> String {
    move |error| format!("{doing}: {error:?}")
}
