//! A channel and a TCP connection that share their fate.
//!
//! The end of one direction is passed on as the end of that direction; everything else is passed on as a reset, so that
//! neither side can take a part for the whole.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use libmux::{Channel, Error, ErrorKind, RecvHalf, SendHalf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use crate::exit::explain;

/// The code of a channel whose TCP connection was reset.
pub(crate) const TCP_RESET: u64 = 1;
/// The code of a channel whose TCP connection could not be made.
pub(crate) const TCP_REFUSED: u64 = 2;

const CHUNK: usize = 64 * 1024;

/// How a direction ended, if not by the failure of both.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Every byte and the end were passed on.
    Clean,
    /// The peer of the channel has read enough (stop with code 0); what TCP may still send has no reader.
    Enough,
    /// As `Enough`, and bytes that TCP believes delivered are lost.
    Lost,
    /// TCP takes no more; what it had sent before may still be read.
    Deaf,
}

enum Broken {
    Tcp(io::Error),
    Channel(Error),
}

/// Carries both directions to their ends.
///
/// # Errors
/// What went wrong, in words; both sides have been told by then.
pub(crate) async fn carry(channel: Channel, mut tcp: TcpStream) -> Result<(), String> {
    // Without it small requests are merely slower, so a failure is not worth a word.
    let _ = tcp.set_nodelay(true);
    let (mut send, mut recv) = channel.split();
    // A write to TCP that fails takes the error from the socket, and a read would then see a clean end.
    let deaf = AtomicBool::new(false);
    let ended = {
        let (from_tcp, to_tcp) = tcp.split();
        tokio::try_join!(upward(from_tcp, &mut send, &deaf), downward(&mut recv, to_tcp, &deaf))
    };
    match ended {
        Ok((up, down)) if down == End::Deaf || up == End::Lost => {
            reset_tcp(tcp);
            Err("one side closed before it had taken everything".to_owned())
        }
        // An unread byte in the socket, now or later, makes the system answer with a reset by itself.
        Ok(_) => Ok(()),
        Err(broken) => {
            reset_tcp(tcp);
            abort(&mut send, &mut recv, TCP_RESET);
            Err(match broken {
                Broken::Tcp(error) => format!("the TCP connection broke: {error}"),
                Broken::Channel(error) => format!("the channel broke: {}", explain(&error)),
            })
        }
    }
}

/// Ends a connection so that its peer sees a reset, never a clean end.
pub(crate) fn reset_tcp(tcp: TcpStream) {
    // Refused only by a socket that is dead already.
    let _ = socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO));
    drop(tcp);
}

/// From TCP to the channel.
async fn upward(mut tcp: ReadHalf<'_>, send: &mut SendHalf, deaf: &AtomicBool) -> Result<End, Broken> {
    let mut buf = vec![0; CHUNK];
    loop {
        let read = tokio::select! {
            biased;
            read = tcp.read(&mut buf) => read.map_err(Broken::Tcp)?,
            // A peer that reads no more must be noticed while TCP is silent, too.
            ended = send.ended() => return over(ended, End::Enough),
        };
        if read == 0 {
            break;
        }
        if let Err(error) = send.write_all(&buf[..read]).await {
            return over(Err(error), End::Lost);
        }
    }
    if deaf.load(Ordering::Relaxed) {
        return Err(Broken::Tcp(io::ErrorKind::ConnectionReset.into()));
    }
    if let Err(error) = send.finish() {
        return over(Err(error), End::Enough);
    }
    over(send.ended().await, End::Enough)
}

/// A stop with code 0 means that the peer has read enough, as a TCP peer that closed; any other failure breaks both.
fn over(ended: Result<(), Error>, enough: End) -> Result<End, Broken> {
    match ended {
        Ok(()) => Ok(End::Clean),
        Err(error) if error.kind() == ErrorKind::Stopped && error.code() == Some(0) => Ok(enough),
        Err(error) => Err(Broken::Channel(error)),
    }
}

/// From the channel to TCP.
async fn downward(recv: &mut RecvHalf, mut tcp: WriteHalf<'_>, deaf: &AtomicBool) -> Result<End, Broken> {
    while let Some(chunk) = recv.read_bytes(CHUNK).await.map_err(Broken::Channel)? {
        if tcp.write_all(&chunk).await.is_err() {
            // A server that answers early and hangs up: its answer is still worth delivering, see `upward`.
            deaf.store(true, Ordering::Relaxed);
            stop(recv, TCP_RESET);
            return Ok(End::Deaf);
        }
    }
    match tcp.shutdown().await {
        Ok(()) => Ok(End::Clean),
        // Gone already: the other direction knows how.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(End::Clean),
        Err(error) => Err(Broken::Tcp(error)),
    }
}

/// Ends both directions of a channel with `code`, as far as the wire can say it.
fn abort(send: &mut SendHalf, recv: &mut RecvHalf, code: u64) {
    // Refused by a direction that is over, or by a wire without codes; dropping the half says the rest.
    let _ = send.reset(code);
    stop(recv, code);
}

/// Stops reading; where the peer cannot be told, what it sends is discarded.
fn stop(recv: &mut RecvHalf, code: u64) {
    if recv.stop(code).is_err() {
        recv.close();
    }
}
