//! A proxy in this process that does what the real ones were seen to do, all at once: a backend connection for every few
//! streams, frames cut and merged anew in a small buffer, resets turned into ends, both halves ended with the response, unknown
//! fields dropped.

use std::future::poll_fn;

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, SendStream, client, server};
use http::{Request, Response, StatusCode};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Streams that share a connection to the server.
const TOGETHER: usize = 3;
/// Bytes of a frame that it sends; they never match what it got.
const FRAME: usize = 1000;

/// Listens on a free port until the runtime ends; requests name the server's port as `p12345`.
pub(crate) async fn start() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(serve(tcp));
        }
    });
    port
}

/// One client: its connections to the server end with its own.
async fn serve(tcp: TcpStream) {
    // A failed socket fails below.
    let _ = tcp.set_nodelay(true);
    let mut settings = server::Builder::new();
    settings.max_concurrent_streams(4096).initial_connection_window_size(16 << 20);
    // What still comes on a request that it has ended is no attack: in masses h2 would take it for one.
    settings.max_local_error_reset_streams(None);
    let Ok(mut conn) = settings.handshake::<_, Bytes>(tcp).await else { return };
    let mut streams = Tasks(Vec::new());
    let mut backend: Option<(client::SendRequest<Bytes>, usize)> = None;
    while let Some(Ok((request, respond))) = conn.accept().await {
        let requests = match backend.take() {
            Some((requests, used)) if used < TOGETHER => {
                backend = Some((requests.clone(), used + 1));
                requests
            }
            _ => {
                let port =
                    request.uri().host().and_then(|host| host.strip_prefix('p')).and_then(|port| port.parse().ok());
                let Some(port) = port else { continue };
                let Ok(tcp) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
                let _ = tcp.set_nodelay(true);
                let mut settings = client::Builder::new();
                settings.enable_push(false).initial_connection_window_size(16 << 20);
                let Ok((requests, conn)) = settings.handshake(tcp).await else { continue };
                streams.0.push(tokio::spawn(async move {
                    // What it fails with, its streams say.
                    let _ = conn.await;
                }));
                backend = Some((requests.clone(), 1));
                requests
            }
        };
        streams.0.push(tokio::spawn(pass(requests, request, respond)));
    }
}

struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

async fn pass(
    requests: client::SendRequest<Bytes>,
    request: Request<RecvStream>,
    mut respond: server::SendResponse<Bytes>,
) {
    let (mut head, up) = request.into_parts();
    head.headers.insert("x-forwarded-for", http::HeaderValue::from_static("127.0.0.1"));
    head.headers.remove("priority");
    let Ok(mut requests) = requests.ready().await else { return };
    let Ok((response, to_server)) = requests.send_request(Request::from_parts(head, ()), false) else { return };
    let upward = tokio::spawn(copy(up, to_server));
    let upward = Tasks(vec![upward]);
    let (head, down) = match response.await {
        Ok(response) => response.into_parts(),
        Err(_) => {
            let mut failed = Response::new(());
            *failed.status_mut() = StatusCode::BAD_GATEWAY;
            // The client may have gone too.
            let _ = respond.send_response(failed, true);
            return;
        }
    };
    let Ok(to_client) = respond.send_response(Response::from_parts(head, ()), false) else { return };
    copy(down, to_client).await;
    // The response is over: so is the request.
    drop(upward);
}

/// Passes what comes, in pieces of its own size; whatever the end was, it becomes a clean one.
async fn copy(mut from: RecvStream, mut to: SendStream<Bytes>) {
    let mut held = BytesMut::new();
    loop {
        let more = match poll_fn(|cx| from.poll_data(cx)).await {
            Some(Ok(bytes)) => {
                held.extend_from_slice(&bytes);
                // Returned on arrival: what is passed on is bounded by the loop.
                let _ = from.flow_control().release_capacity(bytes.len());
                true
            }
            Some(Err(_)) | None => false,
        };
        while !held.is_empty() {
            to.reserve_capacity(held.len().min(FRAME));
            match poll_fn(|cx| to.poll_capacity(cx)).await {
                Some(Ok(0)) => continue,
                Some(Ok(room)) => {
                    let piece = held.split_to(room.min(held.len()).min(FRAME)).freeze();
                    if to.send_data(piece, false).is_err() {
                        return;
                    }
                }
                Some(Err(_)) | None => return,
            }
        }
        if !more {
            // Fails only when the other side has gone.
            let _ = to.send_data(Bytes::new(), true);
            return;
        }
    }
}
