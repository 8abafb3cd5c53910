//! The way from a listener's connections to its sessions: a session is its id, whichever connections carry its streams
//! (docs/h2.md, section 2).

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode};
use mux_api::backend::ByteStream;
use mux_api::{Config, Role, Session, SessionInfo};

use super::wire::Incoming;
use crate::backend::{CAPABILITIES, RAW, new_shared, session_info};
use crate::headers::{self, Endpoint, SessionId};
use crate::io::Line;
use crate::ready::Ready;
use crate::record::Outgoing;
use crate::session::{H2Session, Shared};

/// How long requests wait for the control stream that their session begins with: connections overtake each other.
const EARLY: Duration = Duration::from_secs(2);

/// Requests of a listener that wait so.
const MAX_EARLY: usize = 1024;

/// What all connections of a listener share: where its endpoints are, and its sessions by their ids.
pub(crate) struct House {
    pub(crate) prefix: String,
    /// The path that answers a load balancer's question whether we live.
    pub(crate) health: Option<String>,
    /// What requests must call us, if not anything.
    pub(crate) authority: Option<String>,
    sessions: Mutex<Sessions>,
}

#[derive(Default)]
struct Sessions {
    places: HashMap<SessionId, Place>,
    early: usize,
}

enum Place {
    /// Requests that came before the one for the control stream.
    Early(Vec<Asked>),
    Live(Arc<Mailbox>),
}

/// Requests for a session that came on connections which are not its own.
pub(crate) struct Mailbox {
    asked: Mutex<Vec<Asked>>,
    ready: Arc<Ready>,
    peer: Option<Bytes>,
}

impl Mailbox {
    pub(super) fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, asked: Asked) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
        self.ready.poke_session();
    }
}

/// Hands a session to whoever accepts.
pub(crate) type Give = Box<dyn FnOnce(Session) + Send>;

/// Takes a session; the guard is kept as long as it lives.
pub(crate) struct Entry {
    pub(crate) give: Give,
    pub(crate) live: Box<dyn Send>,
}

/// Makes the entries for the further sessions of a connection.
pub(crate) type MoreEntries = Box<dyn Fn() -> Option<Entry> + Send + Sync>;

/// One connection's way in.
pub(crate) struct Door {
    pub(super) house: Arc<House>,
    config: Config,
    info: SessionInfo,
    line: Arc<Line>,
    first: Mutex<Option<Entry>>,
    /// What counts a connection that has only carried others' streams so far.
    live: Mutex<Option<Box<dyn Send>>>,
    more: MoreEntries,
    /// Held by each stream of this connection that belongs to a session of another, or of none.
    streams: Arc<()>,
}

/// A request that belongs to a session, or is one for a raw channel.
pub(crate) struct Asked {
    pub(super) id: Option<SessionId>,
    pub(super) endpoint: Endpoint,
    pub(super) fields: HeaderMap,
    pub(super) respond: SendResponse<Outgoing>,
    pub(super) body: RecvStream,
    /// The certificate of whoever sent it.
    pub(super) peer: Option<Bytes>,
    /// It came on a connection that is not the session's own.
    pub(super) carried: Option<Arc<()>>,
}

impl Asked {
    /// Whether a session begins with it.
    pub(super) fn begins(&self) -> bool {
        self.id.is_none() || self.endpoint == Endpoint::Control
    }

    pub(super) fn refuse(self, status: StatusCode, text: &str) {
        reject(self.respond, status, text.to_owned());
    }
}

/// What a session needs to begin.
pub(crate) struct Admission {
    pub(super) shared: Arc<Shared>,
    pub(super) entry: Entry,
    pub(super) session: Session,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) early: Vec<Asked>,
}

impl House {
    pub(crate) fn new(prefix: String, health: Option<String>, authority: Option<String>) -> Self {
        Self { prefix, health, authority, sessions: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn forget(&self, id: SessionId) {
        self.lock().places.remove(&id);
    }

    /// Gives a request to its session, or keeps it a while until there is one.
    fn deliver(self: &Arc<Self>, id: SessionId, asked: Asked) {
        const STRANGER: &str = "no session of that id begins here: its requests reached different servers\n";
        let mut sessions = self.lock();
        let full = sessions.early >= MAX_EARLY;
        match sessions.places.entry(id) {
            MapEntry::Occupied(mut place) => match place.get_mut() {
                Place::Live(mailbox) => {
                    let mailbox = Arc::clone(mailbox);
                    drop(sessions);
                    if mailbox.peer == asked.peer {
                        mailbox.put(asked);
                    } else {
                        asked.refuse(StatusCode::CONFLICT, "that session is another client's\n");
                    }
                    return;
                }
                Place::Early(waiting) if !full => waiting.push(asked),
                Place::Early(_) => return asked.refuse(StatusCode::CONFLICT, STRANGER),
            },
            MapEntry::Vacant(_) if full => return asked.refuse(StatusCode::CONFLICT, STRANGER),
            MapEntry::Vacant(place) => {
                place.insert(Place::Early(vec![asked]));
                let house = Arc::clone(self);
                tokio::spawn(async move {
                    tokio::time::sleep(EARLY).await;
                    for asked in house.take_early(id) {
                        asked.refuse(StatusCode::CONFLICT, STRANGER);
                    }
                });
            }
        }
        sessions.early += 1;
    }

    fn take_early(&self, id: SessionId) -> Vec<Asked> {
        let mut sessions = self.lock();
        let MapEntry::Occupied(place) = sessions.places.entry(id) else { return Vec::new() };
        if let Place::Live(_) = place.get() {
            return Vec::new();
        }
        let Place::Early(waiting) = place.remove() else { return Vec::new() };
        sessions.early -= waiting.len();
        waiting
    }

    /// Puts a session into its place; `None` if the place is taken.
    fn settle(&self, id: SessionId, mailbox: &Arc<Mailbox>) -> Option<Vec<Asked>> {
        let mut sessions = self.lock();
        let sessions = &mut *sessions;
        let place = sessions.places.entry(id);
        if let MapEntry::Occupied(taken) = &place
            && let Place::Live(_) = taken.get()
        {
            return None;
        }
        let live = Place::Live(Arc::clone(mailbox));
        let early = match place {
            MapEntry::Occupied(mut taken) => taken.insert(live),
            MapEntry::Vacant(free) => {
                free.insert(live);
                return Some(Vec::new());
            }
        };
        let Place::Early(waiting) = early else { return Some(Vec::new()) };
        sessions.early -= waiting.len();
        Some(waiting)
    }
}

impl Door {
    pub(crate) fn new(
        house: &Arc<House>,
        config: &Config,
        info: SessionInfo,
        line: Arc<Line>,
        first: Entry,
        more: MoreEntries,
    ) -> Arc<Self> {
        Arc::new(Self {
            house: Arc::clone(house),
            config: config.clone(),
            info,
            line,
            first: Mutex::new(Some(first)),
            live: Mutex::default(),
            more,
            streams: Arc::default(),
        })
    }

    /// What is known of the client on `stream`.
    pub(crate) fn info(url: &str, stream: &ByteStream) -> SessionInfo {
        session_info(Role::Server, url.to_owned(), stream)
    }

    /// Whether streams of this connection belong to sessions that would outlive the one whose own it is.
    pub(super) fn carries(&self) -> bool {
        Arc::strong_count(&self.streams) > 1
    }

    /// The connection carries streams of other sessions: its place in the backlog is free for who begins one.
    pub(super) fn carry_only(&self) {
        if let Some(entry) = self.first.lock().unwrap_or_else(PoisonError::into_inner).take() {
            *self.live.lock().unwrap_or_else(PoisonError::into_inner) = Some(entry.live);
        }
    }

    /// Answers what is no session's; the rest comes back.
    pub(super) fn sort(&self, (request, respond): Incoming) -> Option<Asked> {
        let (head, body) = request.into_parts();
        let house = &self.house;
        if house.authority.as_ref().is_some_and(|ours| !names(&head, ours)) {
            reject(respond, StatusCode::MISDIRECTED_REQUEST, "this server has another name\n".to_owned());
            return None;
        }
        if house.health.as_deref() == Some(head.uri.path()) {
            if matches!(head.method, Method::GET | Method::HEAD) {
                let text = if head.method == Method::HEAD { "" } else { "ok\n" };
                reject(respond, StatusCode::OK, text.to_owned());
            } else {
                answer(respond, headers::not_allowed("GET, HEAD"), "health is asked by GET\n".to_owned());
            }
            return None;
        }
        let Some(endpoint) = Endpoint::of(head.uri.path(), &house.prefix) else {
            let text = format!("no libmux endpoint here; there are {0}/ctl, {0}/ch and {0}/park\n", house.prefix);
            reject(respond, StatusCode::NOT_FOUND, text);
            return None;
        };
        if head.method != Method::POST {
            answer(respond, headers::not_allowed("POST"), "libmux endpoints take POST\n".to_owned());
            return None;
        }
        let id = headers::session(&head.headers);
        let wrong = match (&id, endpoint) {
            (None, Endpoint::Channel) => None,
            (None, _) => Some((StatusCode::BAD_REQUEST, "the header mux-session is missing\n")),
            (Some(Err(())), _) => Some((
                StatusCode::BAD_REQUEST,
                "the header mux-session is malformed: 32 hexadecimal digits are allowed\n",
            )),
            (Some(Ok(_)), _) if !headers::is_grpc(&head.headers) => Some((
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the content type of a session's requests is application/grpc\n",
            )),
            (Some(Ok(_)), _) => None,
        };
        if let Some((status, text)) = wrong {
            reject(respond, status, text.to_owned());
            return None;
        }
        let id = id.and_then(Result::ok);
        let peer = self.info.tls.as_ref().and_then(|tls| tls.peer_certificate.clone());
        let carried = Some(Arc::clone(&self.streams));
        Some(Asked { id, endpoint, fields: head.headers, respond, body, peer, carried })
    }

    /// Makes room for the session that begins with a request.
    ///
    /// # Errors
    /// The answer to it.
    pub(super) fn admit(&self, asked: &Asked) -> Result<Admission, (StatusCode, &'static str)> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(entry) = first.or_else(|| (self.more)()) else {
            return Err((StatusCode::SERVICE_UNAVAILABLE, "no room for another session\n"));
        };
        let shared = new_shared(&self.config, Arc::clone(&self.line));
        let mailbox =
            Arc::new(Mailbox { asked: Mutex::default(), ready: Arc::clone(&shared.ready), peer: asked.peer.clone() });
        let mut early = Vec::new();
        if let Some(id) = asked.id {
            let Some(waiting) = self.house.settle(id, &mailbox) else {
                *self.first.lock().unwrap_or_else(PoisonError::into_inner) = Some(entry);
                return Err((StatusCode::CONFLICT, "the session has a control stream already\n"));
            };
            for asked in waiting {
                if asked.peer == mailbox.peer {
                    early.push(asked);
                } else {
                    asked.refuse(StatusCode::CONFLICT, "that session is another client's\n");
                }
            }
        }
        let capabilities = if asked.id.is_some() { CAPABILITIES } else { RAW };
        let session = Session::new(H2Session::new(Arc::clone(&shared), self.info.clone(), capabilities));
        Ok(Admission { shared, entry, session, mailbox, early })
    }

    /// Finds the session of a request that is not one of the connection's own.
    pub(super) fn pass(self: &Arc<Self>, asked: Asked) {
        match asked.id {
            None => asked.refuse(
                StatusCode::CONFLICT,
                "this connection belongs to a session: the header mux-session is missing\n",
            ),
            Some(_) if asked.begins() => match self.admit(&asked) {
                Ok(admission) => {
                    tokio::spawn(super::Driver::server(Arc::clone(self), admission, super::Conn::Elsewhere, asked));
                }
                Err((status, text)) => asked.refuse(status, text),
            },
            Some(id) => self.house.deliver(id, asked),
        }
    }
}

/// Whether a request calls the server by this name; without a port, any will do.
fn names(head: &Parts, name: &str) -> bool {
    let host = || head.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
    let Some(asked) = head.uri.authority().map(http::uri::Authority::as_str).or_else(host) else { return false };
    let bare =
        asked.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(asked, |at| at.0);
    asked.eq_ignore_ascii_case(name) || bare.eq_ignore_ascii_case(name)
}

pub(super) fn reject(respond: SendResponse<Outgoing>, status: StatusCode, text: String) {
    answer(respond, headers::rejection(status), text);
}

/// Answers and lets go; h2 tells the client that the rest of its request is not wanted.
pub(super) fn answer(mut respond: SendResponse<Outgoing>, response: Response<()>, text: String) {
    if let Ok(mut send) = respond.send_response(response, text.is_empty())
        && !text.is_empty()
    {
        // Fails only when the client has reset it.
        let _ = send.send_data(Outgoing::raw(Bytes::from(text)), true);
    }
}
