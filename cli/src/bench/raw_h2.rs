//! h2 without libmux: a request is a channel, its bodies are the data. What a program of its own would do, with the
//! settings that the backend uses.

use std::future::poll_fn;
use std::io;

use bytes::Bytes;
use h2::client::{self, ResponseFuture, SendRequest};
use h2::server::{self, SendResponse};
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Mutex, mpsc};

use super::link::{Channels, Rx, Tx};
use super::scenario::Scenario;
use super::worker::Trouble;

/// As libmux asks for it.
const STREAM_WINDOW: u32 = (256 + 64) * 1024 / 2 * 3;
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
const FRAME: u32 = 65 * 1024;
const HEADER_LIST: u32 = 16 * 1024;
const CHANNELS: u32 = 1024;

/// Makes requests.
pub(super) struct Opening(SendRequest<Bytes>);

type Requested = (Request<RecvStream>, SendResponse<Bytes>);

/// Answers requests.
pub(super) struct Accepting(Mutex<mpsc::UnboundedReceiver<Requested>>);

/// A body that is sent.
pub(super) struct Sending(SendStream<Bytes>);

/// A body that is received, as soon as there is one.
pub(super) struct Receiving {
    response: Option<ResponseFuture>,
    body: Option<RecvStream>,
    rest: Bytes,
}

/// The client's end of `io`.
pub(super) async fn dial(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    window: Option<u32>,
) -> Result<Opening, Trouble> {
    let shaken = client::Builder::new()
        .initial_window_size(window.unwrap_or(STREAM_WINDOW))
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(HEADER_LIST)
        .enable_push(false)
        .initial_max_send_streams(100)
        .handshake(io)
        .await;
    let (requests, conn) = shaken.map_err(io::Error::other)?;
    // What it fails with is said by the streams too.
    tokio::spawn(async move { conn.await.is_ok() });
    Ok(Opening(requests))
}

/// The server's end of `io`.
pub(super) async fn accept(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    scenario: &Scenario,
    window: Option<u32>,
) -> Result<Accepting, Trouble> {
    let channels = u32::try_from(scenario.at_once()).unwrap_or(u32::MAX).max(CHANNELS);
    let shaken = server::Builder::new()
        .initial_window_size(window.unwrap_or(STREAM_WINDOW))
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(HEADER_LIST)
        .max_concurrent_streams(channels.saturating_mul(2).saturating_add(256))
        .handshake(io)
        .await;
    let mut conn = shaken.map_err(io::Error::other)?;
    let (queue, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(requested)) = conn.accept().await {
            if queue.send(requested).is_err() {
                break;
            }
        }
    });
    Ok(Accepting(Mutex::new(requests)))
}

impl Channels for Opening {
    type Tx = Sending;
    type Rx = Receiving;

    async fn next(&self) -> io::Result<(Sending, Receiving)> {
        let mut request = Request::new(());
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = http::Uri::from_static("http://localhost/ch");
        let mut requests = self.0.clone().ready().await.map_err(io::Error::other)?;
        let (response, send) = requests.send_request(request, false).map_err(io::Error::other)?;
        Ok((Sending(send), Receiving { response: Some(response), body: None, rest: Bytes::new() }))
    }
}

impl Channels for Accepting {
    type Tx = Sending;
    type Rx = Receiving;

    async fn next(&self) -> io::Result<(Sending, Receiving)> {
        let requested = self.0.lock().await.recv().await;
        let (request, mut respond) = requested.ok_or(io::ErrorKind::UnexpectedEof)?;
        let send = respond.send_response(Response::new(()), false).map_err(io::Error::other)?;
        Ok((Sending(send), Receiving { response: None, body: Some(request.into_body()), rest: Bytes::new() }))
    }
}

impl Sending {
    async fn send(&mut self, data: &[u8], last: bool) -> io::Result<()> {
        let mut data = Bytes::copy_from_slice(data);
        while !data.is_empty() {
            self.0.reserve_capacity(data.len());
            while self.0.capacity() == 0 {
                match poll_fn(|cx| self.0.poll_capacity(cx)).await {
                    Some(room) => room.map_err(io::Error::other)?,
                    None => return Err(io::ErrorKind::BrokenPipe.into()),
                };
            }
            let part = data.split_to(self.0.capacity().min(data.len()));
            self.0.send_data(part, last && data.is_empty()).map_err(io::Error::other)?;
            if data.is_empty() {
                return Ok(());
            }
        }
        if last { self.0.send_data(data, true).map_err(io::Error::other) } else { Ok(()) }
    }
}

impl Tx for Sending {
    async fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
        self.send(data, false).await
    }

    async fn write_last(&mut self, data: &[u8]) -> io::Result<()> {
        self.send(data, true).await
    }
}

impl Rx for Receiving {
    async fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if let Some(response) = self.response.take() {
            self.body = Some(response.await.map_err(io::Error::other)?.into_body());
        }
        let Some(body) = &mut self.body else { return Ok(0) };
        while self.rest.is_empty() {
            let Some(data) = body.data().await else { return Ok(0) };
            self.rest = data.map_err(io::Error::other)?;
            body.flow_control().release_capacity(self.rest.len()).map_err(io::Error::other)?;
        }
        let part = self.rest.split_to(self.rest.len().min(buf.len()));
        buf[..part.len()].copy_from_slice(&part);
        Ok(part.len())
    }
}
