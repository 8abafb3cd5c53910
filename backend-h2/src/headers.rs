//! Requests and responses: paths and header fields (docs/h2.md, section 2).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, TE};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use mux_api::Priority;

const SESSION: HeaderName = HeaderName::from_static("mux-session");
const CREDIT: HeaderName = HeaderName::from_static("mux-credit");
const LABEL: HeaderName = HeaderName::from_static("mux-label");
const TOKEN: HeaderName = HeaderName::from_static("mux-token");
const REFUSED: HeaderName = HeaderName::from_static("mux-refused");
const PRIORITY: HeaderName = HeaderName::from_static("priority");

/// What intermediaries that pass streams both ways know best.
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// The path prefix unless the URL names one.
pub(crate) const DEFAULT_PREFIX: &str = "/mux/1";

/// A session's name, and what lets a request join it: 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SessionId([u8; 16]);

impl SessionId {
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok().filter(|text| text.len() == 32 && text.is_ascii())?;
        u128::from_str_radix(text, 16).ok().map(|number| Self(number.to_be_bytes()))
    }

    fn value(self) -> HeaderValue {
        let text = format!("{:032x}", u128::from_be_bytes(self.0));
        // 32 hexadecimal digits are a valid value.
        HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or(HeaderValue::from_static(""))
    }
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Control,
    Channel,
    Park,
}

impl Endpoint {
    /// The endpoint that `path` names under `prefix`.
    pub(crate) fn of(path: &str, prefix: &str) -> Option<Self> {
        match path.strip_prefix(prefix)? {
            "/ctl" => Some(Self::Control),
            "/ch" => Some(Self::Channel),
            "/park" => Some(Self::Park),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Control => "ctl",
            Self::Channel => "ch",
            Self::Park => "park",
        }
    }
}

/// Makes the requests of one session.
#[derive(Clone, Debug)]
pub(crate) struct Requests {
    control: Uri,
    channel: Uri,
    park: Uri,
    session: HeaderValue,
}

impl Requests {
    pub(crate) fn new(scheme: &str, authority: &str, prefix: &str, session: SessionId) -> Result<Self, http::Error> {
        let uri = |endpoint: Endpoint| {
            Uri::builder()
                .scheme(scheme)
                .authority(authority)
                .path_and_query(format!("{prefix}/{}", endpoint.name()))
                .build()
        };
        Ok(Self {
            control: uri(Endpoint::Control)?,
            channel: uri(Endpoint::Channel)?,
            park: uri(Endpoint::Park)?,
            session: session.value(),
        })
    }

    /// A request whose HEADERS do not end the stream; `credit` is what the answering side may send at once.
    pub(crate) fn make(&self, endpoint: Endpoint, credit: u64) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = match endpoint {
            Endpoint::Control => &self.control,
            Endpoint::Channel => &self.channel,
            Endpoint::Park => &self.park,
        }
        .clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, GRPC);
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(SESSION, self.session.clone());
        headers.insert(CREDIT, HeaderValue::from(credit));
        request
    }
}

/// The answer that accepts a request of a libmux peer; `credit` is what it may send.
pub(crate) fn accepted(credit: u64) -> Response<()> {
    let mut response = Response::new(());
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response.headers_mut().insert(CREDIT, HeaderValue::from(credit));
    response
}

/// The answer that accepts a raw request.
pub(crate) fn accepted_raw() -> Response<()> {
    let mut response = Response::new(());
    response.headers_mut().insert(CONTENT_TYPE, OCTETS);
    response
}

/// The answer that refuses a channel.
pub(crate) fn refusal(code: u64) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response.headers_mut().insert(REFUSED, HeaderValue::from(code));
    response
}

/// The answer to what is not for us, with a text for people.
pub(crate) fn rejection(status: StatusCode) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(http::header::ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

/// The answer to a parked request that has waited long enough.
pub(crate) fn expired() -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Adds what the accepting side sees before any data.
pub(crate) fn describe(headers: &mut HeaderMap, label: &Bytes, priority: Priority) {
    if !label.is_empty()
        && let Ok(mut value) = HeaderValue::from_maybe_shared(Bytes::from(STANDARD.encode(label)))
    {
        // Labels differ from channel to channel: they have no place in the compression table.
        value.set_sensitive(true);
        headers.insert(LABEL, value);
    }
    if priority != Priority::default() {
        let incremental = if priority.incremental { ", i" } else { "" };
        let text = format!("u={}{incremental}", priority.urgency());
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(text)) {
            headers.insert(PRIORITY, value);
        }
    }
}

pub(crate) fn set_token(headers: &mut HeaderMap, token: u64) {
    headers.insert(TOKEN, HeaderValue::from(token));
}

/// The session that a request names: `None` without the header, `Err` when it is malformed.
pub(crate) fn session(headers: &HeaderMap) -> Option<Result<SessionId, ()>> {
    headers.get(SESSION).map(|value| SessionId::parse(value.as_bytes()).ok_or(()))
}

/// Whether the content type is that of libmux's own requests.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(GRPC.as_bytes()))
}

pub(crate) fn credit(headers: &HeaderMap) -> Option<u64> {
    number(headers, &CREDIT)
}

pub(crate) fn token(headers: &HeaderMap) -> Option<u64> {
    number(headers, &TOKEN)
}

pub(crate) fn refused(headers: &HeaderMap) -> Option<u64> {
    number(headers, &REFUSED).filter(|code| *code <= mux_api::codes::MAX)
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// The label, empty without one; `Err` when it is not base64.
pub(crate) fn label(headers: &HeaderMap) -> Result<Bytes, base64::DecodeError> {
    headers.get(LABEL).map_or(Ok(Bytes::new()), |value| STANDARD.decode(value.as_bytes()).map(Bytes::from))
}

/// The priority of RFC 9218. What is malformed or unknown is ignored, as it says there.
pub(crate) fn priority(headers: &HeaderMap) -> Priority {
    let Some(text) = headers.get(PRIORITY).and_then(|value| value.to_str().ok()) else { return Priority::default() };
    let (mut urgency, mut incremental) = (Priority::DEFAULT_URGENCY, false);
    for item in text.split(',').map(str::trim) {
        match item.split_once('=').unwrap_or((item, "?1")) {
            ("u", number) => urgency = number.parse().unwrap_or(urgency),
            ("i", "?1") => incremental = true,
            _ => {}
        }
    }
    Priority::new(urgency, incremental).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_and_priority_come_back() {
        let mut headers = HeaderMap::new();
        let (text, urgent) = (Bytes::from_static(b"\0rpc\xff"), Priority::new(1, false).expect("valid"));
        describe(&mut headers, &text, urgent);
        assert_eq!(label(&headers), Ok(text));
        assert_eq!(priority(&headers), urgent);
        assert_eq!(priority(&HeaderMap::new()), Priority::default());
        headers.insert(PRIORITY, HeaderValue::from_static("u=9, i=?0, x"));
        assert_eq!(priority(&headers).urgency(), Priority::DEFAULT_URGENCY);
    }

    #[test]
    fn a_session_id_is_32_hex_digits() {
        let id = SessionId::random().expect("random");
        assert!(SessionId::parse(id.value().as_bytes()) == Some(id));
        for bad in ["", "12", "g0000000000000000000000000000000", "+0000000000000000000000000000000x"] {
            assert!(SessionId::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn endpoints_lie_under_the_prefix() {
        assert_eq!(Endpoint::of("/mux/1/ch", "/mux/1"), Some(Endpoint::Channel));
        assert_eq!(Endpoint::of("/mux/1/ch/", "/mux/1"), None);
        assert_eq!(Endpoint::of("/ctl", ""), Some(Endpoint::Control));
        assert_eq!(Endpoint::of("/other/ctl", "/mux/1"), None);
    }
}
