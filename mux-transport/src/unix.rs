//! Unix sockets.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use mux_api::{Error, Result, Url};
use tokio::net::{UnixListener, UnixStream};

use crate::socket::{SocketWriter, widen_backlog};
use crate::{Acceptor, ByteStream};

pub(crate) async fn connect(url: &Url) -> Result<ByteStream> {
    let path = path_of(url)?;
    let stream = UnixStream::connect(path).await;
    let stream = stream.map_err(|error| Error::from_io(format!("connecting to {}", path.display()), error))?;
    Ok(wrap(stream, path))
}

pub(crate) async fn bind(url: &Url) -> Result<Box<dyn Acceptor>> {
    let path = path_of(url)?;
    let fail = |error| Error::from_io(format!("listening on {}", path.display()), error);
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path).await => {
            std::fs::remove_file(path).map_err(fail)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }
    .map_err(fail)?;
    widen_backlog(&listener).map_err(fail)?;
    let address = url.to_string().split_once(':').map_or_else(String::new, |(_, rest)| rest.to_owned());
    let address = address.split('?').next().unwrap_or_default().to_owned();
    Ok(Box::new(UnixAcceptor { listener, address, path: path.to_owned(), closed: AtomicBool::new(false) }))
}

/// Whether the path is a socket that a process left behind: nobody answers there.
async fn is_stale(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    is_socket && UnixStream::connect(path).await.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn path_of(url: &Url) -> Result<&Path> {
    if !url.authority().is_empty() || !url.path().starts_with('/') || url.path().len() < 2 {
        let scheme = url.scheme();
        return Err(Error::url(format!("URL '{url}' names no socket; write {scheme}:///path/of/the.sock")));
    }
    Ok(Path::new(url.path()))
}

struct UnixAcceptor {
    listener: UnixListener,
    address: String,
    path: PathBuf,
    /// The name was removed: it may be another listener's by now.
    closed: AtomicBool,
}

#[async_trait]
impl Acceptor for UnixAcceptor {
    fn address(&self) -> &str {
        &self.address
    }

    async fn accept(&self) -> io::Result<ByteStream> {
        let (stream, _) = self.listener.accept().await?;
        Ok(wrap(stream, Path::new("")))
    }

    fn close(&self) {
        if !self.closed.swap(true, Ordering::Relaxed) {
            // The name would otherwise outlive the listener. Somebody may have removed it before us.
            // Without its name nobody reaches the socket. It is not shut down as well: accepting on a Unix socket that is
            // answers EAGAIN while epoll keeps saying that it is readable.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Drop for UnixAcceptor {
    fn drop(&mut self) {
        self.close();
    }
}

fn wrap(stream: UnixStream, peer: &Path) -> ByteStream {
    let local = stream.local_addr().ok();
    let local_addr =
        local.and_then(|addr| addr.as_pathname().map(|path| path.display().to_string())).unwrap_or_default();
    let (reader, writer) = stream.into_split();
    ByteStream {
        reader: Box::new(reader),
        writer: Box::new(SocketWriter::new(writer)),
        local_addr,
        peer_addr: peer.display().to_string(),
    }
}
