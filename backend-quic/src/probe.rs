//! Whether anybody listens at an address, as far as the network says so.
//!
//! The socket of a QUIC connection is not connected to its peer, so the kernel keeps from it that a port is closed. A
//! second socket that is connected asks, if the handshake was not answered at once, by an empty datagram, which every
//! implementation of QUIC ignores.

use std::io::{Error, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::sleep;

/// The handshake's head start: on most links it is over before anything is asked. It also is the time by which an answer
/// to the handshake may be later than that to the question.
const PATIENCE: Duration = Duration::from_millis(100);

/// As often as the question may be lost.
const QUESTIONS: u32 = 3;

/// Any port of any of our addresses that can reach `peer`.
pub(crate) fn any_address(peer: SocketAddr) -> SocketAddr {
    match peer {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// Returns when the network says that `peer` cannot be reached or takes nothing; for ever silent otherwise.
///
/// Cancel-safe.
pub(crate) async fn unreachable(peer: SocketAddr) -> Error {
    let asked = async {
        let socket = UdpSocket::bind(any_address(peer)).await.map_err(|_| None)?;
        // Sends nothing; fails where there is no way.
        socket.connect(peer).await.map_err(Some)?;
        for _ in 0..QUESTIONS {
            sleep(PATIENCE).await;
            let answered = async {
                socket.send(&[]).await?;
                socket.recv(&mut [0; 1]).await
            };
            tokio::select! {
                Err(error) = answered => return Err(Some(error)),
                () = sleep(PATIENCE * 4) => {}
            }
        }
        Ok::<(), Option<Error>>(())
    };
    match asked.await {
        Err(Some(error)) if is_final(&error) => error,
        _ => std::future::pending().await,
    }
}

fn is_final(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
            | ErrorKind::AddrNotAvailable
            | ErrorKind::PermissionDenied
    )
}
