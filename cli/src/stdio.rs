//! A channel on stdin and stdout.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::time::Duration;

use bytes::Bytes;
use libmux::{Channel, Error, ErrorKind, RecvHalf, SendHalf, Session};
use tokio::sync::mpsc;

use crate::exit::{Exit, explain, stdout_failed};

/// Bytes per read of stdin: what a pipe holds.
const CHUNK: usize = 64 * 1024;
/// Chunks between the threads of stdin and stdout and the channel.
const QUEUE: usize = 8;
/// The code of a session whose channel failed.
const FAILED: u64 = 1;
/// How long a failed session may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// Connects `channel` to stdin and stdout until both directions are over.
///
/// The end of stdin ends our direction only. The answer must come to its end: a reset or a session that died is an
/// error, whatever was received before.
pub(crate) async fn carry(channel: Channel) -> Result<(), Exit> {
    let (send, recv) = channel.split();
    let (sending, receiving) = (from_stdin(send), to_stdout(recv));
    tokio::pin!(sending, receiving);
    let mut sent = None;
    let received = loop {
        tokio::select! {
            received = &mut receiving => break received,
            ended = &mut sending, if sent.is_none() => match ended {
                // The peer wants no more, but may well answer; a session that died says so to the reader too.
                Err(SendFailed::Channel(error)) => sent = Some(Err(send_failed(&error))),
                Err(SendFailed::Stdin(error)) => return Err(Exit::failed(format!("cannot read stdin: {error}"))),
                Ok(()) => sent = Some(Ok(())),
            },
        }
    };
    // A broken answer ends everything: dropping our direction tells the peer that it is not complete.
    received?;
    match sent {
        Some(sent) => sent,
        None => sending.await.map_err(|failed| match failed {
            SendFailed::Stdin(error) => Exit::failed(format!("cannot read stdin: {error}")),
            SendFailed::Channel(error) => send_failed(&error),
        }),
    }
}

/// Ends a session after its only channel, and waits until the last byte is out and the peer was told how it went.
pub(crate) async fn close(session: &Session, carried: Result<(), Exit>) -> Result<(), Exit> {
    let (code, reason) = if carried.is_ok() { (0, "done") } else { (FAILED, "failed") };
    session.close(code, reason).map_err(|error| Exit::from_mux("cannot close the session", &error))?;
    // A failure is reported soon, whether or not the peer listens.
    let patience = if carried.is_ok() { Duration::MAX } else { GOODBYE };
    let cause = tokio::time::timeout(patience, session.closed()).await;
    if let Ok(cause) = &cause {
        tracing::info!("session over: {}", explain(cause));
    }
    carried?;
    match cause {
        // By us or by the peer, who may have been first to say that all is done.
        Ok(cause) if cause.kind() == ErrorKind::Closed => Ok(()),
        Ok(cause) => Err(Exit::from_mux("the session did not end cleanly", &cause)),
        Err(_) => Ok(()),
    }
}

fn send_failed(error: &Error) -> Exit {
    Exit::from_mux("not all of stdin was sent", error)
}

enum SendFailed {
    Stdin(io::Error),
    Channel(Error),
}

async fn from_stdin(mut send: SendHalf) -> Result<(), SendFailed> {
    let mut chunks = read_stdin();
    loop {
        // Watching the channel while stdin is silent: a peer that reads no more must not need another line to be noticed.
        let chunk = tokio::select! {
            biased;
            chunk = chunks.recv() => chunk,
            ended = send.ended() => return over(&send, ended).map_err(SendFailed::Channel),
        };
        match chunk {
            Some(Ok(chunk)) => send.write_bytes(chunk).await.map_err(SendFailed::Channel)?,
            Some(Err(error)) => return Err(SendFailed::Stdin(error)),
            None => break,
        }
    }
    send.finish().map_err(SendFailed::Channel)?;
    let ended = send.ended().await;
    over(&send, ended).map_err(SendFailed::Channel)
}

/// A peer that stops with code 0, or on a wire without codes, has read enough; that loses nothing when nothing of ours is
/// on its way.
fn over(send: &SendHalf, ended: libmux::Result<()>) -> libmux::Result<()> {
    match ended {
        Err(error) if error.kind() == ErrorKind::Stopped && error.code().unwrap_or(0) == 0 && send.buffered() == 0 => {
            Ok(())
        }
        ended => ended,
    }
}

/// Reads stdin on a thread of its own, because a read of it cannot be cancelled; the process ends without waiting for it.
fn read_stdin() -> mpsc::Receiver<io::Result<Bytes>> {
    let (chunks, receiver) = mpsc::channel(QUEUE);
    std::thread::spawn(move || {
        let mut buf = vec![0; CHUNK];
        // The descriptor itself: std's own buffer would only be in the way.
        let mut stdin = match io::stdin().as_fd().try_clone_to_owned().map(File::from) {
            Ok(stdin) => stdin,
            Err(error) => {
                // Fails only when the other end is gone, and then nobody cares.
                let _ = chunks.blocking_send(Err(error));
                return;
            }
        };
        loop {
            let chunk = match stdin.read(&mut buf) {
                Ok(0) => return,
                Ok(n) => Ok(Bytes::copy_from_slice(&buf[..n])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let last = chunk.is_err();
            if chunks.blocking_send(chunk).is_err() || last {
                return;
            }
        }
    });
    receiver
}

async fn to_stdout(mut recv: RecvHalf) -> Result<(), Exit> {
    let (chunks, mut receiver) = mpsc::channel::<Bytes>(QUEUE);
    let writer = tokio::task::spawn_blocking(move || -> io::Result<()> {
        let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        while let Some(chunk) = receiver.blocking_recv() {
            stdout.write_all(&chunk)?;
        }
        Ok(())
    });
    let ended = loop {
        match recv.read_bytes(CHUNK).await {
            Ok(Some(chunk)) => {
                // Refused by a writer that failed; its result says why.
                if chunks.send(chunk).await.is_err() {
                    break Ok(());
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    drop(chunks);
    // What arrived in order is written before anything is reported.
    match writer.await {
        Ok(written) => written.map_err(|error| stdout_failed(&error))?,
        Err(error) => return Err(Exit::failed(format!("the writer of stdout failed: {error}"))),
    }
    ended.map_err(|error| Exit::from_mux("the answer is not complete", &error))
}
