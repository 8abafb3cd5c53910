//! One HTTP/2 stream as the driver holds it, and the connection under all of them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use h2::client::{self, ResponseFuture};
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::Request;
use tokio::time::Instant;

use crate::channel::Channel;
use crate::io::Io;
use crate::ready::{Counters, Link, Tie};
use crate::record::{Outgoing, Parser};

/// An incoming request, not answered yet.
pub(super) type Incoming = (Request<RecvStream>, SendResponse<Outgoing>);

/// What a stream is for.
pub(super) enum Kind {
    /// The session's control records.
    Control,
    Channel(Arc<Channel>),
    /// A request of ours that waits for the server to open a channel.
    Park,
    /// A request of the client's that waits for us to open a channel.
    Slot,
    /// Nothing more is said on it, what arrives is dropped: it waits for the peer's end.
    Ending,
}

pub(super) struct Wire {
    pub(super) kind: Kind,
    pub(super) link: Tie,
    /// A request that h2 has not sent yet: until then it gives its stream no window.
    pub(super) fresh: bool,
    /// It has data that h2 had no room for, and stands in line.
    pub(super) held_back: bool,
    pub(super) in_line: bool,
    /// The response we wait for.
    pub(super) response: Option<ResponseFuture>,
    pub(super) send: Option<SendStream<Outgoing>>,
    pub(super) recv: Option<RecvStream>,
    pub(super) parser: Parser,
    /// Bytes received whose HTTP/2 window was not returned yet.
    pub(super) unreturned: usize,
    /// We have said END_STREAM; the peer has.
    pub(super) send_ended: bool,
    pub(super) recv_ended: bool,
    /// It is a stream of a connection that is not the session's own.
    pub(super) carried: Option<Arc<()>>,
    /// A request made because the server asked for it, so that it is not one of the pool.
    pub(super) asked: bool,
    /// Something was sent since the last look for idle streams.
    pub(super) busy: bool,
    /// When it is dropped, whatever the peer does.
    pub(super) until: Option<Instant>,
}

impl Wire {
    pub(super) fn new(kind: Kind, key: usize, counters: &Arc<Counters>) -> Self {
        let link = match &kind {
            Kind::Channel(channel) => Tie::Channel(Arc::clone(channel)),
            _ => Tie::Stream(Arc::new(Link::new(Arc::clone(counters)))),
        };
        link.tie(key);
        Self {
            kind,
            link,
            fresh: false,
            held_back: false,
            in_line: false,
            response: None,
            send: None,
            recv: None,
            parser: Parser::default(),
            unreturned: 0,
            send_ended: false,
            recv_ended: false,
            carried: None,
            asked: false,
            busy: true,
            until: None,
        }
    }

    /// A parked request carries a channel from now on.
    pub(super) fn become_channel(&mut self, channel: Arc<Channel>) {
        channel.link.tie(self.link.key());
        self.link = Tie::Channel(Arc::clone(&channel));
        self.kind = Kind::Channel(channel);
    }

    /// Hands a frame to h2. `false`: the stream is gone; its receiving side says why.
    pub(super) fn say(&mut self, frame: Outgoing, end: bool) -> bool {
        let Some(send) = &mut self.send else { return false };
        (self.busy, self.fresh) = (true, false);
        self.send_ended |= end;
        send.send_data(frame, end).is_ok()
    }

    /// Returns HTTP/2's window for everything that was received.
    pub(super) fn return_window(&mut self) {
        let bytes = std::mem::take(&mut self.unreturned);
        if let Some(recv) = self.recv.as_mut().filter(|_| bytes > 0) {
            // A stream that failed meanwhile has none.
            let _ = recv.flow_control().release_capacity(bytes);
        }
    }

    /// Ends our direction of the stream, if it has not ended.
    pub(super) fn end(&mut self) {
        if !self.send_ended {
            let permit = self.link.permit(0, false);
            self.say(Outgoing::new().with_permit(permit), true);
        }
    }

    /// Whether both directions of the stream have ended and all is written, so that it can be let go without a reset.
    pub(super) fn is_done(&self) -> bool {
        self.send_ended && self.recv_ended && self.response.is_none() && self.link.is_flushed()
    }
}

/// The HTTP/2 connection.
pub(super) enum Conn {
    Client(client::Connection<Io, Outgoing>),
    Server(server::Connection<Io, Outgoing>),
    /// The session's streams are on connections of others.
    Elsewhere,
    /// It is released.
    Gone,
}

impl Conn {
    /// Reads and writes, and adds the requests that came; ready with why, once the connection has ended.
    pub(super) fn poll(&mut self, requests: &mut Vec<Incoming>, cx: &mut Context<'_>) -> Poll<Option<h2::Error>> {
        match self {
            Self::Client(conn) => Pin::new(conn).poll(cx).map(Result::err),
            Self::Server(conn) => loop {
                match ready!(conn.poll_accept(cx)) {
                    Some(Ok(request)) => requests.push(request),
                    Some(Err(error)) => return Poll::Ready(Some(error)),
                    None => return Poll::Ready(None),
                }
            },
            Self::Elsewhere | Self::Gone => Poll::Ready(None),
        }
    }

    /// Changes the window of every stream; `false` if that is not possible at present, and at the accepting end, which never
    /// does ([`accepting_most`](crate::limits::Limits::accepting_most)).
    pub(super) fn set_stream_window(&mut self, size: u32) -> bool {
        match self {
            Self::Client(conn) => conn.set_initial_window_size(size).is_ok(),
            Self::Server(_) | Self::Elsewhere | Self::Gone => false,
        }
    }

    /// Begins its end; a client's ends by itself once nobody holds a stream.
    pub(super) fn shut_down(&mut self) {
        if let Self::Server(conn) = self {
            conn.abrupt_shutdown(Reason::NO_ERROR);
        }
    }
}
