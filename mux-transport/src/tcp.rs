//! TCP.

use std::net::{Shutdown, SocketAddr};

use async_trait::async_trait;
use mux_api::{Error, ErrorKind, Origin, Result, Url};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};

use crate::socket::{SocketWriter, widen_backlog};
use crate::{Acceptor, ByteStream};

pub(crate) async fn connect(url: &Url) -> Result<ByteStream> {
    let mut last = None;
    for address in resolve(url).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                return wrap(stream).map_err(|error| Error::from_io(format!("connecting to {address}"), error));
            }
            Err(error) => last = Some(Error::from_io(format!("connecting to {address}"), error)),
        }
    }
    Err(last.unwrap_or_else(|| no_address(url)))
}

pub(crate) async fn bind(url: &Url) -> Result<Box<dyn Acceptor>> {
    let mut last = None;
    for address in resolve(url).await? {
        let bound = async {
            let listener = TcpListener::bind(address).await?;
            widen_backlog(&listener)?;
            let address = format!("//{}", listener.local_addr()?);
            Ok(TcpAcceptor { listener, address })
        };
        match bound.await {
            Ok(acceptor) => return Ok(Box::new(acceptor)),
            Err(error) => last = Some(Error::from_io(format!("listening on {address}"), error)),
        }
    }
    Err(last.unwrap_or_else(|| no_address(url)))
}

async fn resolve(url: &Url) -> Result<Vec<SocketAddr>> {
    if !matches!(url.path(), "" | "/") {
        return Err(Error::url(format!("URL '{url}' has a path, which TCP does not know; write host:port")));
    }
    let (host, port) = url.host_port()?;
    let found = tokio::net::lookup_host((host, port)).await.map_err(|error| {
        Error::new(ErrorKind::Dns, Origin::Os, format!("resolving '{host}': {error}")).with_source(error)
    })?;
    Ok(found.collect())
}

fn no_address(url: &Url) -> Error {
    Error::new(ErrorKind::Dns, Origin::Os, format!("'{}' has no address", url.authority()))
}

struct TcpAcceptor {
    listener: TcpListener,
    address: String,
}

#[async_trait]
impl Acceptor for TcpAcceptor {
    fn address(&self) -> &str {
        &self.address
    }

    async fn accept(&self) -> std::io::Result<ByteStream> {
        let (stream, _) = self.listener.accept().await?;
        wrap(stream)
    }

    fn close(&self) {
        // A socket that is closed already has nothing to stop.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
    }
}

fn wrap(stream: TcpStream) -> std::io::Result<ByteStream> {
    // Frames are gathered above; the kernel must not hold a lone small one back.
    stream.set_nodelay(true)?;
    let (local_addr, peer_addr) = (stream.local_addr()?.to_string(), stream.peer_addr()?.to_string());
    let (reader, writer) = stream.into_split();
    Ok(ByteStream { reader: Box::new(reader), writer: Box::new(SocketWriter::new(writer)), local_addr, peer_addr })
}
