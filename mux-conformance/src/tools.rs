//! What scenarios have in common: data that shows every loss, and ends that are told apart.

use std::time::Duration;

use mux_api::{Capabilities, Channel, Error, ErrorKind, RecvHalf, Result, SendHalf, Session, codes};

use crate::context::Cx;
use crate::random::{pattern, patterned};

/// Writes `len` bytes of the pattern, 50,000 at a time.
pub(crate) async fn write_pattern(send: &mut SendHalf, len: usize) -> Result<()> {
    let mut at = 0;
    while at < len {
        let some = (len - at).min(50_000);
        send.write_all(&patterned(at, some)).await?;
        at += some;
    }
    Ok(())
}

/// Checks that `bytes` are the pattern from `at` on.
pub(crate) fn check_pattern(at: usize, bytes: &[u8]) {
    let wrong = bytes.iter().enumerate().find(|(i, byte)| **byte != pattern(at + i));
    if let Some((i, byte)) = wrong {
        panic!("byte {} is {byte}, not {}: lost, repeated or out of order", at + i, pattern(at + i));
    }
}

/// Reads the pattern until the end or an error; how many bytes came.
pub(crate) async fn read_pattern(recv: &mut RecvHalf) -> (usize, Result<()>) {
    let mut buf = vec![0; 60_000];
    let mut at = 0;
    loop {
        match recv.read(&mut buf).await {
            Ok(0) => return (at, Ok(())),
            Ok(len) => {
                check_pattern(at, &buf[..len]);
                at += len;
            }
            Err(error) => return (at, Err(error)),
        }
    }
}

/// Reads `len` bytes of the pattern and then the end.
pub(crate) async fn read_whole(recv: &mut RecvHalf, len: usize) {
    let (at, end) = read_pattern(recv).await;
    if let Err(error) = end {
        panic!("failed after {at} of {len} bytes: {error:?}");
    }
    assert_eq!(at, len, "a clean end after {at} of {len} bytes");
}

/// Reads exactly `expected`.
pub(crate) async fn read_exactly(recv: &mut RecvHalf, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    let mut at = 0;
    while at < got.len() {
        let len = recv.read(&mut got[at..]).await.unwrap_or_else(|error| panic!("after {at} bytes: {error:?}"));
        assert!(len > 0, "an end after {at} of {} bytes", expected.len());
        at += len;
    }
    assert!(got == expected, "other bytes arrived than were sent");
}

/// Reads the end, which must come before any other byte.
pub(crate) async fn read_end(recv: &mut RecvHalf) {
    let len = recv.read(&mut [0; 64]).await.expect("the end");
    assert_eq!(len, 0, "{len} bytes where the end should be");
}

/// Reads until the direction fails. A clean end is what must never be seen.
pub(crate) async fn read_failure(recv: &mut RecvHalf) -> Error {
    let mut buf = vec![0; 60_000];
    loop {
        match recv.read(&mut buf).await {
            Ok(0) => panic!("a clean end where the direction was abandoned"),
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}

/// Writes until the direction fails.
pub(crate) async fn write_failure(send: &mut SendHalf) -> Error {
    loop {
        if let Err(error) = send.write_all(&[7; 1000]).await {
            return error;
        }
        tokio::task::yield_now().await;
    }
}

/// Whether `session` has this ability.
pub(crate) fn can(session: &Session, capability: Capabilities) -> bool {
    session.capabilities().contains(capability)
}

/// Opens a channel from one end and accepts it at the other.
pub(crate) async fn channel(opener: &Session, acceptor: &Session) -> (Channel, Channel) {
    let near = opener.open().await.unwrap_or_else(|error| panic!("open: {error:?}"));
    let far = acceptor.accept().await.unwrap_or_else(|error| panic!("accept: {error:?}"));
    (near, far)
}

/// Waits until the peer's answer to an open is known: `Err` if it refused.
pub(crate) async fn answer(session: &Session, channel: &mut Channel) -> Result<()> {
    if can(session, Capabilities::OPENED) {
        return channel.opened().await;
    }
    // Without a confirmation silence is consent; a refusal shows at both halves. A round trip later it is here.
    session.ping().await?;
    channel.send_half().write(&[]).await.map(|_| ())
}

/// Pings where the wire can; what is documented without it is that the call says so.
pub(crate) async fn ping(cx: &Cx, what: &str, session: &Session) -> Option<Duration> {
    match cx.step(what, session.ping()).await {
        Ok(rtt) => Some(rtt),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{what}: {error:?}");
            cx.note("no ping on this wire: ping() is Unsupported");
            None
        }
    }
}

/// Asserts that `error` is a refusal which may be retried.
pub(crate) fn assert_refused(error: &Error, code: u64) {
    assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
    assert!(error.is_retry_safe(), "a refusal is safe to retry: {error:?}");
    if let Some(said) = error.code() {
        assert_eq!(said, code, "{error:?}");
    }
}

/// Asserts that a direction failed because its writer was dropped.
pub(crate) fn assert_dropped(error: &Error) {
    assert_eq!((error.kind(), error.code()), (ErrorKind::Reset, Some(codes::DROPPED)), "{error:?}");
}

/// Polls `future` once and drops it: what cancelling it at its first wait comes to.
pub(crate) async fn once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        std::task::Poll::Ready(done) => std::task::Poll::Ready(Some(done)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

/// Writes until a write would wait; how much was taken.
pub(crate) async fn fill(send: &mut SendHalf) -> Result<usize> {
    let block = vec![7; 16 * 1024];
    let mut total = 0;
    while let Some(taken) = once(send.write(&block)).await {
        total += taken?;
    }
    Ok(total)
}
