//! What `--help` teaches beside the list of flags.

use std::fmt::Write as _;

use clap::Command;
use libmux::OPTIONS;

const EXAMPLES: &str = "\
Examples:
  mux listen qmux://127.0.0.1:4000 --echo             echo every channel
  echo hello | mux connect qmux://127.0.0.1:4000      stdin and stdout are a channel

  mux listen qmux://0.0.0.0:4000 --to 127.0.0.1:8080  put a web server behind a session
  mux forward --via qmux://host:4000 --listen 127.0.0.1:9000
  curl http://127.0.0.1:9000/                         ... and reach it from elsewhere

  mux listen --no-url qmux+unix:///tmp/m.sock > got   receive a file, as nc does
  mux connect qmux+unix:///tmp/m.sock < file          send it

  mux listen quic://127.0.0.1:4000 --self-signed --echo
  mux connect 'quic://127.0.0.1:4000?pin=sha256:...'  the URL that listen printed: encrypted, trusted by its pin

  mux ping qmux://127.0.0.1:4000                      the round trip to the other end's library
  mux bench --quick                                   what it costs over bare TCP, quinn and h2
";

const URLS: &str = "\
URLs: <backend>[+<transport>]://authority[/path][?option=value&...]
";

const EXIT_CODES: &str = "\
Exit codes:
  0    everything arrived, in both directions
  1    the work failed: refused, reset, truncated, a session that died; stderr says who and why
  2    the command line or a URL cannot be used; stderr lists what is allowed
  130  Ctrl-C     143  SIGTERM     141  whoever read stdout hung up
";

/// What `--to` and `forward` say to the other side when TCP cannot be spoken to the end.
const TCP_CODES: &str = "\
A TCP connection and its channel share their fate: the end of one direction is passed on as the end of that direction,
a reset as a reset.
  channel reset or session lost   the TCP connection is reset (RST), never closed cleanly
  TCP connection reset            the channel is reset with code 1
  TCP connection refused          the channel is reset with code 2
";

/// Adds examples, URL forms, options and exit codes to the commands.
pub(crate) fn teach(command: Command) -> Command {
    let urls = urls();
    let after = |parts: &[&str]| parts.join("\n");
    command
        .after_help(after(&[EXAMPLES, &urls, EXIT_CODES]))
        .mut_subcommand("listen", |c| c.after_help(after(&[LISTEN, TCP_CODES, &urls, EXIT_CODES])))
        .mut_subcommand("connect", |c| c.after_help(after(&[CONNECT, &urls, EXIT_CODES])))
        .mut_subcommand("forward", |c| c.after_help(after(&[FORWARD, TCP_CODES, &urls, EXIT_CODES])))
        .mut_subcommand("ping", |c| c.after_help(after(&[PING, &urls, EXIT_CODES])))
        .mut_subcommand("cert", |c| c.after_help(after(&[CERT, EXIT_CODES])))
        .mut_subcommand("bench", |c| c.after_help(after(&[BENCH, EXIT_CODES])))
}

const LISTEN: &str = "\
It prints one line on stdout, the URL to dial with the real port, and serves until it is interrupted.
Without --echo and --to, the first channel is connected to stdin and stdout, every other one is refused, and the command
ends with that channel. Its bytes follow the URL's line on stdout; --no-url leaves the line out.

quic, h2 and qmux+tls are encrypted and present a certificate: --self-signed makes one that lasts as long as the command and
prints the URL with its pin, the only thing a dialer need know; for one that lasts longer see 'mux cert'.

Examples:
  mux listen qmux://127.0.0.1:4000 --echo
  mux listen quic://0.0.0.0:4000 --self-signed --to 127.0.0.1:8080
  mux listen 'h2://0.0.0.0:4000?cert=cert.pem&key=key.pem' --echo
  mux listen h2c://127.0.0.1:4000 --echo               any HTTP/2 client can open a channel:
  printf hello | curl -sN --http2-prior-knowledge -X POST -T - http://127.0.0.1:4000/mux/1/ch
";

const CERT: &str = "\
It prints the pin: the SHA-256 of the certificate, which a dialer gives instead of trusting an authority. Whoever has the key
can be the server, so key.pem is readable by its owner alone.

Example:
  mux cert --out /etc/mux mux.example 192.0.2.7
  mux listen 'quic://0.0.0.0:4000?cert=/etc/mux/cert.pem&key=/etc/mux/key.pem' --echo
  mux connect 'quic://mux.example:4000?pin=sha256:...'           by the pin that was printed
  mux connect 'quic://mux.example:4000?ca=cert.pem'              or by the certificate itself
";

const CONNECT: &str = "\
The end of stdin ends our direction only; the answer is read to its end. Then the session is closed politely.
An answer that was cut short is an error, never an end.

Examples:
  mux connect qmux://127.0.0.1:4000 < request > answer
  mux connect qmux+unix:///run/m.sock --label files
";

const PING: &str = "\
The library at the other end answers, whatever its application does. Ctrl-C ends it too, with the summary.

Examples:
  mux ping qmux://127.0.0.1:4000
  mux ping -c 100 -i 0.01 'quic://host:4000?pin=sha256:...'
";

const FORWARD: &str = "\
It prints one line on stdout, the address it listens on with the real port. All connections are channels of one session,
which is dialed again, with growing pauses, when it dies. Connections that come meanwhile wait up to 10 s for it.

Example:
  mux forward --via qmux://host:4000 --listen 127.0.0.1:0
";

const BENCH: &str = "\
Client and server are two processes with two tokio workers each, over loopback unless --connect says where the server
is. What a backend rides on always runs too, bare and in turns with it (tcp, qmux, tcp, qmux, ...). Values are medians over
the runs. 'ratio' says how many times as good as bare it is, as the median of neighbouring runs: above 1 is better,
whether more (MiB/s +) or less (us -) is better. 'alone' and 'of it' are there where a load comes beside what is measured:
the value before the load, and how good the value with it is beside that.

Backends: any scheme of 'mux backends', and bare:
  tcp, unix, tls         a connection is a channel; they need a file descriptor for each
  raw-quinn, raw-h2      the libraries under quic and h2c with the settings of the backend, a stream is a channel
  raw-quinn-defaults     quinn with its own settings
  raw-h2-tls             the same over TLS, under h2
Whatever uses TLS has a certificate made for the run and trusted by its pin.

Examples:
  mux bench                                           the first seven scenarios; qmux, quic, h2c, h2, each beside what it rides on
  chrt -f 10 mux bench --backend quic                 steadier figures on a busy machine (needs the right to do so)
  mux bench --backend qmux,qmux+unix --scenario bulk1,pingpong --seconds 5 --runs 5
  mux bench --scenario idle --json idle.jsonl         memory of 10,000 and 100,000 channels
  mux bench --scenario idle:500                       ... or of as many as you like
  mux bench --html bench.html                         the ratios as a picture
  mux bench --scenario unread,loaded-ping             what a channel keeps beside others that are full, or busy
  mux bench --serve 192.0.2.7:7000                    at one end of a link ...
  mux bench --connect 192.0.2.7:7000 --seconds 10     ... and at the other
  mux bench --list                                    what the scenarios do
";

fn urls() -> String {
    let schemes = libmux::registry().schemes();
    let rows = schemes.iter().map(|scheme| (scheme.example, scheme.summary.to_owned()));
    let text = URLS.to_owned() + &columns(rows.collect());
    let mut options: Vec<(&str, String)> = OPTIONS.iter().map(|option| (option.name, option.help.to_owned())).collect();
    for scheme in &schemes {
        for option in libmux::registry().own_options(scheme.name).unwrap_or_default() {
            if !options.iter().any(|(name, _)| *name == option.name) {
                let backend = scheme.name.split('+').next().unwrap_or_default();
                options.push((option.name, format!("{} ({backend})", option.help)));
            }
        }
    }
    text + "URL options:\n" + &columns(options)
}

/// Two columns, the first as wide as it must be.
fn columns(rows: Vec<(&str, String)>) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let mut text = String::new();
    for (name, help) in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {name:<width$}  {help}");
    }
    text
}
