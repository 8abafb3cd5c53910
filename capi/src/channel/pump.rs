//! A channel whose bytes go through a socket of the application's.

use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::task::Poll;

use bytes::Bytes;
use libmux::{RecvHalf, codes};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Channel;
use crate::callback::Holding;
use crate::carrier::SocketEnd;
use crate::status::Fault;

/// Looks at a half, which is locked meanwhile: wakers come afterwards.
fn held<T>(look: impl FnOnce() -> T) -> T {
    let _holding = Holding::new();
    look()
}

impl Channel {
    /// From now on the bytes go through a socket.
    pub(crate) fn hand_over(&self) -> Result<(), Fault> {
        let recv = self.reading()?;
        drop(self.writing()?);
        self.handed_over.store(true, Ordering::SeqCst);
        drop(recv);
        // Whoever sleeps in a read or write finds out.
        self.hub.wake_all();
        Ok(())
    }

    /// Carries what comes to the application's socket, up to the end.
    pub(crate) async fn pump_out(&self, mut socket: SocketEnd) {
        const PART: usize = 64 * 1024;
        loop {
            let next = poll_fn(|cx| {
                held(|| match self.recv() {
                    Err(fault) => Poll::Ready(Err(fault)),
                    Ok(mut recv) => match recv.rest.pop_front() {
                        Some(slice) => Poll::Ready(Ok(Some(slice))),
                        None => recv.half.poll_read_bytes(cx, PART).map_err(|error| self.recv_failed(error)),
                    },
                })
            });
            let Ok(Some(data)) = next.await else { break };
            if socket.write_all(&data).await.is_err() {
                // The application has closed it.
                if self.stop(codes::NO_ERROR).is_err() {
                    self.lock_recv_anyway(RecvHalf::close);
                }
                return;
            }
        }
        self.recv_is_over();
        let _ = socket.shutdown().await;
    }

    /// Carries what the application writes into its socket, up to the end.
    pub(crate) async fn pump_in(&self, mut socket: SocketEnd) {
        let mut room = vec![0; 64 * 1024];
        loop {
            let count = match socket.read(&mut room).await {
                Ok(0) | Err(_) => break,
                Ok(count) => count,
            };
            let mut data = Bytes::copy_from_slice(&room[..count]);
            while !data.is_empty() {
                let written = poll_fn(|cx| {
                    held(|| match self.send() {
                        Err(fault) => Poll::Ready(Err(fault)),
                        Ok(mut half) => half.poll_write_bytes(cx, &mut data).map_err(|error| self.send_failed(error)),
                    })
                });
                if written.await.is_err() {
                    return;
                }
            }
        }
        let _ = self.finish();
    }
}
