//! Every backend and transport of the registry, as the suite and the table of `docs/conformance.md` see them.
#![allow(unreachable_pub, dead_code, reason = "shared by the tests and the example, each using its part")]

pub mod alone;
pub mod table;

use libmux::Config;
use libmux::backend::{ByteStream, NUMBERS};
use mux_conformance::Subject;
use mux_transport::tls::self_signed;

/// The names of the subjects, in the order of the table.
pub const NAMES: &[&str] =
    &["qmux+tcp", "qmux+unix", "qmux+tls", "qmux-pipe", "qmux-plain", "quic", "h2", "h2c", "h2c+unix", "h2c-pipe"];

/// What is known to fail, always or at times: subject, scenario, and why.
pub const KNOWN: &[(&str, &str, &str)] = &[];

pub fn subject(name: &str) -> Subject {
    let subject = match name {
        "qmux+tcp" => of("qmux+tcp://127.0.0.1:0"),
        "qmux+unix" => of(&format!("qmux+unix://{}", socket())),
        "qmux+tls" => secured("qmux+tls://127.0.0.1:0"),
        "qmux-plain" => of("qmux://127.0.0.1:0?ext=off").named("qmux-plain"),
        "qmux-pipe" => piped("qmux-pipe", "qmux"),
        "quic" => secured("quic://127.0.0.1:0").over_udp(),
        "h2" => secured("h2://127.0.0.1:0"),
        "h2c-pipe" => piped("h2c-pipe", "h2c"),
        "h2c" => of("h2c://127.0.0.1:0"),
        "h2c+unix" => of(&format!("h2c+unix://{}", socket())),
        other => panic!("no subject is called {other}"),
    };
    // QUIC has 2^60.
    if name == "quic" { subject } else { subject.few_numbers(few_numbers) }
}

fn few_numbers(config: &mut Config, left: u32) {
    config.extra.insert(NUMBERS.to_owned(), left.to_string());
}

fn of(url: &str) -> Subject {
    let scheme = url.split("://").next().unwrap_or_default();
    Subject::backend(libmux::registry().backend(scheme).expect("is registered"), url)
}

/// With a certificate made for the occasion, which the dialer trusts by its pin.
fn secured(url: &str) -> Subject {
    let (client, server) = certified();
    let (next_client, next_server) = certified();
    of(url).client(client).server(server).reloaded(next_client, next_server)
}

fn certified() -> (Config, Config) {
    let made = self_signed(&["localhost", "127.0.0.1"]).expect("makes a certificate");
    let (mut client, mut server) = (Config::default(), Config::default());
    server.tls.identity_pem = Some((made.cert_pem.into_bytes(), made.key_pem.into_bytes()));
    client.tls.pins = vec![made.pin];
    (client, server)
}

fn socket() -> String {
    std::env::temp_dir().join(format!("mux-conformance-{}-{{n}}.sock", std::process::id())).display().to_string()
}

/// A wire on pipes in memory.
fn piped(name: &str, scheme: &'static str) -> Subject {
    Subject::streams(name, move |stream, role, config| async move {
        let (reader, writer) = tokio::io::split(stream);
        libmux::adopt(scheme, ByteStream::new(reader, writer), role, &config).await
    })
}
