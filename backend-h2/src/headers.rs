//! Requests and responses: paths and header fields (docs/h2.md, section 2).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, TE};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use mux_api::Priority;

const SESSION: HeaderName = HeaderName::from_static("mux-session");
const CREDIT: HeaderName = HeaderName::from_static("mux-credit");
const WINDOW: HeaderName = HeaderName::from_static("mux-window");
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

/// A session's name, and what lets a request join it: 128 random bits in hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SessionId([u8; 32]);

impl SessionId {
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        let mut text = [0; 32];
        for (at, digit) in text.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[usize::from(bytes[at / 2] >> (4 * (at % 2)) & 15)];
        }
        Ok(Self(text))
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let mut digits: [u8; 32] = text.try_into().ok()?;
        digits.make_ascii_lowercase();
        // Every channel's request has one, so there is no branch for each digit.
        let others = digits.iter().filter(|digit| !matches!(digit, b'0'..=b'9' | b'a'..=b'f')).count();
        (others == 0).then_some(Self(digits))
    }

    fn value(self) -> HeaderValue {
        // Hexadecimal digits are a valid value.
        HeaderValue::from_bytes(&self.0).unwrap_or(HeaderValue::from_static(""))
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

/// What the control stream says about every channel (docs/h2.md, section 4).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Credits {
    /// What a channel may send before the other side's HEADERS have come.
    pub(crate) early: u64,
    /// What it may send when they have come without a number.
    pub(crate) window: u64,
}

/// Makes the requests of one session, from one of each kind.
#[derive(Clone, Debug)]
pub(crate) struct Requests {
    control: Request<()>,
    channel: Request<()>,
    park: Request<()>,
    window: u64,
}

impl Requests {
    pub(crate) fn new(
        scheme: &str,
        authority: &str,
        prefix: &str,
        session: SessionId,
        ours: Credits,
    ) -> Result<Self, http::Error> {
        let make = |endpoint: Endpoint| {
            let uri = Uri::builder().scheme(scheme).authority(authority);
            let uri = uri.path_and_query(format!("{prefix}/{}", endpoint.name())).build()?;
            let mut request = Request::new(());
            *request.method_mut() = Method::POST;
            *request.uri_mut() = uri;
            let headers = request.headers_mut();
            headers.insert(CONTENT_TYPE, GRPC);
            headers.insert(TE, HeaderValue::from_static("trailers"));
            headers.insert(SESSION, session.value());
            Ok::<_, http::Error>(request)
        };
        let mut control = make(Endpoint::Control)?;
        set_credits(control.headers_mut(), ours);
        Ok(Self { control, channel: make(Endpoint::Channel)?, park: make(Endpoint::Park)?, window: ours.window })
    }

    /// The request for the control stream; none of these ends its stream in HEADERS.
    pub(crate) fn control(&self) -> Request<()> {
        self.control.clone()
    }

    /// The request for a channel; `credit` is what the other side may send.
    pub(crate) fn channel(&self, credit: u64) -> Request<()> {
        let mut request = self.channel.clone();
        set_credit(request.headers_mut(), credit, self.window);
        request
    }

    /// The request on which the server may open a channel; with a token if it asked for it.
    pub(crate) fn slot(&self, token: Option<u64>) -> Request<()> {
        let Some(token) = token else { return self.park.clone() };
        let mut request = self.channel.clone();
        request.headers_mut().insert(TOKEN, HeaderValue::from(token));
        request
    }
}

/// Makes the answers that accept what a libmux peer asks for.
#[derive(Clone, Debug)]
pub(crate) struct Answers {
    accepted: Response<()>,
    credits: Credits,
}

impl Answers {
    pub(crate) fn new(ours: Credits) -> Self {
        let mut accepted = Response::new(());
        accepted.headers_mut().insert(CONTENT_TYPE, GRPC);
        Self { accepted, credits: ours }
    }

    pub(crate) fn control(&self) -> Response<()> {
        let mut response = self.accepted.clone();
        set_credits(response.headers_mut(), self.credits);
        response
    }

    /// The answer that accepts a channel, or opens one; `credit` is what the client may send.
    pub(crate) fn channel(&self, credit: u64) -> Response<()> {
        let mut response = self.accepted.clone();
        set_credit(response.headers_mut(), credit, self.credits.window);
        response
    }
}

fn set_credits(headers: &mut HeaderMap, credits: Credits) {
    headers.insert(CREDIT, HeaderValue::from(credits.early));
    headers.insert(WINDOW, HeaderValue::from(credits.window));
}

/// The usual window needs no word.
fn set_credit(headers: &mut HeaderMap, credit: u64, usual: u64) {
    if credit != usual {
        headers.insert(CREDIT, HeaderValue::from(credit));
    }
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
    response
}

/// The answer to a method that the path does not take.
pub(crate) fn not_allowed(methods: &'static str) -> Response<()> {
    let mut response = rejection(StatusCode::METHOD_NOT_ALLOWED);
    response.headers_mut().insert(http::header::ALLOW, HeaderValue::from_static(methods));
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

/// The session that a request names: `None` without the header, `Err` when it is malformed.
pub(crate) fn session(headers: &HeaderMap) -> Option<Result<SessionId, ()>> {
    headers.get(SESSION).map(|value| SessionId::parse(value.as_bytes()).ok_or(()))
}

/// Whether the content type is that of libmux's own requests.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(GRPC.as_bytes()))
}

/// What the peer's control stream says; `untold` stands for what it does not say.
pub(crate) fn credits(headers: &HeaderMap, untold: u64) -> Credits {
    let early = number(headers, &CREDIT).unwrap_or(untold);
    Credits { early, window: number(headers, &WINDOW).unwrap_or(early) }
}

/// What the HEADERS of a channel let us send, where `usual` stands for nothing said.
pub(crate) fn credit(headers: &HeaderMap, usual: u64) -> u64 {
    number(headers, &CREDIT).unwrap_or(usual)
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
