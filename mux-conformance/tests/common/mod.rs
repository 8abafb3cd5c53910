//! Every backend and transport of the registry, as the suite and the table of `docs/conformance.md` see them.
#![allow(unreachable_pub, dead_code, reason = "shared by the tests and the example, each using its part")]

use backend_qmux::Qmux;
use libmux::{Config, Role, Session, SessionInfo};
use mux_conformance::Subject;
use mux_transport::tls::self_signed;

/// The names of the subjects, in the order of the table.
pub const NAMES: &[&str] = &["qmux+tcp", "qmux+unix", "qmux-pipe", "qmux-plain", "quic", "h2", "h2c", "h2c+unix"];

/// What is known to fail: subject, scenario, and why.
pub const KNOWN: &[(&str, &str, &str)] = &[(
    "quic",
    "open-beyond-the-credit",
    "quinn announces free places only when an eighth of them is free, so an open may wait although there is room",
)];

pub fn subject(name: &str) -> Subject {
    match name {
        "qmux+tcp" => of("qmux+tcp://127.0.0.1:0"),
        "qmux+unix" => of(&format!("qmux+unix://{}", socket())),
        "qmux-plain" => of("qmux://127.0.0.1:0?ext=off").named("qmux-plain"),
        "qmux-pipe" => Subject::streams("qmux-pipe", pipe_end),
        "quic" => secured("quic://127.0.0.1:0").over_udp(),
        "h2" => secured("h2://127.0.0.1:0"),
        "h2c" => of("h2c://127.0.0.1:0"),
        "h2c+unix" => of(&format!("h2c+unix://{}", socket())),
        other => panic!("no subject is called {other}"),
    }
}

fn of(url: &str) -> Subject {
    let scheme = url.split("://").next().unwrap_or_default();
    Subject::backend(libmux::registry().backend(scheme).expect("is registered"), url)
}

/// With a certificate made for the occasion, which the dialer trusts by its pin.
fn secured(url: &str) -> Subject {
    let made = self_signed(&["localhost", "127.0.0.1"]).expect("makes a certificate");
    let (mut client, mut server) = (Config::default(), Config::default());
    server.tls.identity_pem = Some((made.cert_pem.into_bytes(), made.key_pem.into_bytes()));
    client.tls.pins = vec![made.pin];
    of(url).client(client).server(server)
}

fn socket() -> String {
    std::env::temp_dir().join(format!("mux-conformance-{}-{{n}}.sock", std::process::id())).display().to_string()
}

async fn pipe_end(stream: tokio::io::DuplexStream, role: Role, config: Config) -> libmux::Result<Session> {
    let (reader, writer) = tokio::io::split(stream);
    let stream = mux_driver::Stream { reader: Box::new(reader), writer: Box::new(writer), guard: None };
    let capabilities = |_| {
        let schemes = libmux::registry().scheme("qmux").expect("is registered");
        schemes.capabilities
    };
    let profile = mux_driver::Profile { wire: Qmux, extension: Some(true), capabilities };
    mux_driver::establish(stream, profile, SessionInfo::new(role, "qmux-pipe"), &config).await
}
