//! A listener's connection while it is no session's own: a proxy's, whose streams belong to sessions of any client, or one
//! that has not named a session yet.

use std::sync::Arc;
use std::time::Duration;

use h2::Reason;
use h2::server::Connection;

use super::door::{Asked, Door};
use super::{Conn, Driver};
use crate::io::Io;
use crate::limits::Limits;
use crate::record::Outgoing;

/// How long a connection may go without a request before it names a session, and without a stream afterwards.
const UNUSED: Duration = Duration::from_secs(30);

/// Drives the connection to its end, handing its requests to their sessions. The first session that begins on it drives it
/// meanwhile.
pub(crate) async fn carry(mut conn: Connection<Io, Outgoing>, door: Arc<Door>) {
    loop {
        let asked = match tokio::time::timeout(UNUSED, next(&mut conn, &door)).await {
            Ok(Some(asked)) => asked,
            Ok(None) => return,
            Err(_) if door.carries() => continue,
            Err(_) => {
                conn.abrupt_shutdown(Reason::NO_ERROR);
                // A peer that does not end its side is left.
                let _ = tokio::time::timeout(Limits::LAST_WORDS, next(&mut conn, &door)).await;
                return;
            }
        };
        if !asked.begins() {
            door.carry_only();
            door.pass(asked);
            continue;
        }
        match door.admit(&asked) {
            Ok(admission) => {
                let own = Asked { carried: None, ..asked };
                match Driver::server(Arc::clone(&door), admission, Conn::Server(conn), own).await {
                    Some(back) => conn = back,
                    None => return,
                }
            }
            Err((status, text)) => asked.refuse(status, text),
        }
    }
}

/// The next request that is a session's; `None` at the end of the connection.
async fn next(conn: &mut Connection<Io, Outgoing>, door: &Door) -> Option<Asked> {
    loop {
        if let Some(asked) = door.sort(conn.accept().await?.ok()?) {
            return Some(asked);
        }
    }
}
