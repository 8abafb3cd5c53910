//! The contract on HTTP/2 through the proxies that people run: HAProxy and nginx, started here on loopback ports. Where one
//! is not installed its test says so and passes. A third, made here, does the worst of both and runs always.

#[path = "common/alone.rs"]
mod alone;
#[path = "proxies/fake.rs"]
mod fake;

use std::collections::VecDeque;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use libmux::backend::Backend;
use libmux::{Config, ErrorKind, Listener, Result, Session, Url};
use mux_conformance::{Report, Subject, Suite, scenarios};
use mux_transport::tls::{SelfSigned, self_signed};
use tokio::runtime::Runtime;

/// What a proxy changes, so that it is not examined: proxy, scenario, and why.
const KNOWN: &[(&str, &str, &str)] = &[
    ("nginx", "accepted-after-the-end", ORDER),
    ("fake", "accepted-after-the-end", ORDER),
    ("nginx", "nobody-accepts", ORDER),
    ("fake", "nobody-accepts", ORDER),
];

const ORDER: &str = "each channel comes on a connection of its own, and these overtake each other";

/// A proxy that runs until it is dropped.
struct Proxy {
    child: Child,
    directory: PathBuf,
    port: u16,
}

impl Proxy {
    /// Starts `program` with the file `config`, in which `{port}` and `{dir}` stand for what it gets; `None` if it is not
    /// installed.
    fn start(program: &str, arguments: &[&str], config: &str) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|at| at.local_addr()).expect("a free port").port();
        let directory = std::env::temp_dir().join(format!("mux-{program}-{}-{port}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let dir = directory.display().to_string();
        let fill = |text: &str| text.replace("{dir}", &dir).replace("{port}", &port.to_string());
        fs::write(directory.join("config"), fill(config)).expect("its configuration");
        fs::write(directory.join("pem"), format!("{}{}", MADE.cert_pem, MADE.key_pem)).expect("its certificate");
        // Services lie where only the administrator's search path leads.
        let paths = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/usr/local/sbin";
        let found = std::env::split_paths(&paths).map(|path| path.join(program)).find(|path| path.is_file());
        let Some(path) = found else {
            eprintln!("SKIPPED: {program} is not installed");
            remove(&directory);
            return None;
        };
        let child = Command::new(path)
            .args(arguments.iter().map(|argument| fill(argument)))
            .stdout(Stdio::null())
            .spawn()
            .expect("starts");
        let proxy = Self { child, directory, port };
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(proxy);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{program} does not listen");
    }

    fn haproxy(global: &str, server: &str) -> Option<Self> {
        Self::haproxy_over("proto h2", global, &format!("proto h2 {server}"))
    }

    /// With TLS on both sides.
    fn haproxy_tls(global: &str) -> Option<Self> {
        Self::haproxy_over("ssl crt {dir}/pem alpn h2", global, "ssl verify required ca-file {dir}/pem alpn h2")
    }

    fn haproxy_over(bind: &str, global: &str, server: &str) -> Option<Self> {
        Self::haproxy_of(&HAPROXY.replace("{idle}", "1h"), bind, global, server)
    }

    fn haproxy_of(config: &str, bind: &str, global: &str, server: &str) -> Option<Self> {
        let config = config.replace("{bind}", bind).replace("{global}", global).replace("{server}", server);
        Self::start("haproxy", &["-db", "-q", "-f", "{dir}/config"], &config)
    }

    fn nginx(server: &str) -> Option<Self> {
        Self::nginx_of(&NGINX.replace("{idle}", "1h"), server)
    }

    fn nginx_of(config: &str, server: &str) -> Option<Self> {
        let config = config.replace("{server}", server);
        Self::start("nginx", &["-e", "{dir}/error.log", "-p", "{dir}", "-c", "{dir}/config"], &config)
    }

    /// Through it in cleartext.
    fn way(&self) -> Way {
        Way { scheme: "h2c", port: self.port }
    }
}

/// The way through a proxy.
#[derive(Clone, Copy)]
struct Way {
    scheme: &'static str,
    port: u16,
}

impl Way {
    /// Two ends with the proxy between them.
    async fn pair(self, mut client: Config, mut server: Config) -> Result<(Session, Session)> {
        if self.scheme == "h2" {
            client.tls.pins = vec![MADE.pin];
            server.tls.identity_pem = Some((MADE.cert_pem.clone().into_bytes(), MADE.key_pem.clone().into_bytes()));
        }
        let backend = libmux::registry().backend(self.scheme).expect("is registered");
        let listening = Arc::clone(&backend);
        let url = Url::parse(&format!("{}://127.0.0.1:0", self.scheme))?;
        let listener = SERVERS.spawn(async move { listening.listen(&url, &server).await.map(Arc::new) });
        let listener = listener.await.expect("listens")?;
        let accepting = Arc::clone(&listener);
        let accepted = async { SERVERS.spawn(async move { accepting.accept().await }).await.expect("accepts") };
        let pair = tokio::try_join!(self.dial(&backend, &listener, &client), accepted)?;
        // More of the session's connections may come: the latest listeners stay, always as many, since the suite counts
        // descriptors.
        let mut kept = KEPT.lock().expect("kept");
        kept.push_back(listener);
        if kept.len() > 4 {
            drop(kept.pop_front());
        }
        Ok(pair)
    }

    async fn dial(self, backend: &Arc<dyn Backend>, listener: &Listener, config: &Config) -> Result<Session> {
        let to = listener.url().rsplit(':').next().unwrap_or_default();
        // The proxies find the server by the name that requests call it.
        let url = Url::parse(&format!("{}://127.0.0.1:{}?authority=p{to}", self.scheme, self.port))?;
        backend.dial(&url, &config.with_url(&url, backend.options(), false)?).await
    }
}

/// The certificate of the proxy and of the server behind it.
static MADE: LazyLock<SelfSigned> = LazyLock::new(|| self_signed(&["localhost", "127.0.0.1"]).expect("makes"));

/// Where the listening ends live, since a listener must outlive the scenario that does not know of it.
static SERVERS: LazyLock<Runtime> = LazyLock::new(runtime);

static KEPT: Mutex<VecDeque<Arc<Listener>>> = Mutex::new(VecDeque::new());

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("builds")
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It has ended already, or ends now.
        let _ = self.child.kill();
        let _ = self.child.wait();
        remove(&self.directory);
    }
}

fn remove(directory: &Path) {
    // What stays behind is in the temporary directory.
    let _ = fs::remove_dir_all(directory);
}

const HAPROXY: &str = "
global
    {global}
defaults
    mode http
    timeout connect 5s
    timeout client {idle}
    timeout server {idle}
    timeout tunnel {idle}
frontend in
    bind 127.0.0.1:{port} {bind}
    default_backend out
backend out
    http-request set-dst str(127.0.0.1)
    http-request set-dst-port req.hdr(host),field(2,p)
    server any 0.0.0.0:0 {server}
";

const NGINX: &str = "
daemon off;
master_process off;
pid {dir}/pid;
worker_rlimit_nofile 8192;
events { worker_connections 8192; }
http {
    access_log off;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    server {
        listen 127.0.0.1:{port} http2;
        server_name ~^p(?<to>[0-9]+)$;
        {server}
        client_max_body_size 0;
        client_body_timeout {idle};
        keepalive_requests 1000000;
        keepalive_timeout 1h;
        location / {
            grpc_pass grpc://127.0.0.1:$to;
            grpc_read_timeout {idle};
            grpc_send_timeout {idle};
        }
    }
}
";

fn examine(name: &str, way: Way) {
    let subject = Subject::pairs(name, move |client, server| way.pair(client, server));
    let known = |scenario: &str| KNOWN.iter().any(|(of, what, _)| (*of, *what) == (name, scenario));
    let examined: Vec<&str> = scenarios().map(|scenario| scenario.name).filter(|scenario| !known(scenario)).collect();
    // As many listeners as are kept from here on.
    for _ in 0..4 {
        let pair = runtime().block_on(way.pair(Config::default(), Config::default()));
        drop(pair.expect("connects"));
    }
    let report: Report =
        Suite::new(subject).filter(&examined.join(",")).seeds(1).deadline(Duration::from_secs(60)).progress().run();
    println!("{report}");
    let failed: Vec<&str> = report.failed().map(|verdict| verdict.name).collect();
    assert!(failed.is_empty(), "failed: {failed:?}\n{report}");
}

fn play(scenario: impl Future<Output = ()>) {
    runtime().block_on(async { tokio::time::timeout(Duration::from_secs(120), scenario).await }).expect("ends in time");
}

/// Opens that find no free stream say so, and go on once there is one.
async fn opens_beyond_the_limit_wait(way: Way) {
    let (client, server) = way.pair(Config::default(), Config::default()).await.expect("connects");
    let mut open = Vec::new();
    let blocked = loop {
        match client.try_open(&libmux::OpenOptions::new()) {
            Ok(mut channel) => {
                channel.write_all(b"x").await.expect("writes");
                let mut far = server.accept().await.expect("accepts");
                assert_eq!(far.read(&mut [0; 2]).await.expect("reads"), 1);
                open.push((channel, far));
            }
            Err(error) => break error,
        }
        assert!(open.len() < 200, "no limit was met");
    };
    assert_eq!(blocked.kind(), ErrorKind::Blocked);
    let (waiting, freed) = (client.clone(), open.pop().expect("was opened"));
    let opening = tokio::spawn(async move { waiting.open().await.map(drop) });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!opening.is_finished(), "an open beyond the limit waits");
    drop(freed);
    opening.await.expect("task").expect("opens once a stream is free");
}

/// From each side, all open at once, each echoing.
async fn a_thousand_channels(way: Way) {
    let mut config = Config::default();
    config.channel_backlog = 1024;
    let (client, server) = way.pair(config.clone(), config).await.expect("connects");
    for (opener, acceptor) in [(&client, &server), (&server, &client)] {
        let acceptor = acceptor.clone();
        let echoing = tokio::spawn(async move {
            let mut echoes = Vec::new();
            for _ in 0..1000 {
                let mut channel = acceptor.accept().await.expect("accepts");
                echoes.push(tokio::spawn(async move {
                    let mut word = [0; 4];
                    channel.read(&mut word).await.expect("reads");
                    channel.write_all(&word).await.expect("writes");
                    assert_eq!(channel.read(&mut word).await.expect("the end"), 0);
                    channel.close();
                }));
            }
            for echo in echoes {
                echo.await.expect("echoes");
            }
        });
        let mut open = Vec::new();
        for number in 0..1000u32 {
            let mut channel = opener.open().await.expect("opens");
            channel.write_all(&number.to_be_bytes()).await.expect("writes");
            open.push(channel);
        }
        for (number, channel) in open.iter_mut().enumerate() {
            let mut word = [0; 4];
            assert_eq!(channel.read(&mut word).await.expect("reads"), 4);
            assert_eq!(u32::from_be_bytes(word) as usize, number);
        }
        for channel in &mut open {
            channel.finish().expect("finishes");
            assert_eq!(channel.read(&mut [0; 4]).await.expect("the end"), 0);
        }
        echoing.await.expect("echoes");
    }
}

/// In both directions: as many as HAProxy was seen to stall by, were it not for the credit.
async fn sixty_unread_channels(way: Way) {
    let (client, server) = way.pair(Config::default(), Config::default()).await.expect("connects");
    for (opener, acceptor) in [(&client, &server), (&server, &client)] {
        let mut unread = Vec::new();
        for _ in 0..60 {
            let mut near = opener.open().await.expect("opens");
            let far = acceptor.accept().await.expect("accepts");
            // All that the window and the buffer take.
            let chunk = [0; 64 * 1024];
            while tokio::time::timeout(Duration::from_millis(20), near.write_all(&chunk)).await.is_ok() {}
            unread.push((near, far));
        }
        let mut near = opener.open().await.expect("opens");
        let mut far = acceptor.accept().await.expect("accepts");
        for round in 0..50u8 {
            near.write_all(&[round; 10_000]).await.expect("writes");
            let mut got = 0;
            while got < 10_000 {
                got += far.read(&mut [0; 4096]).await.expect("reads");
            }
            far.write_all(&[round]).await.expect("answers");
            assert_eq!(near.read(&mut [0; 1]).await.expect("reads"), 1);
        }
    }
}

/// So much down and as much up at once.
async fn transfer(way: Way, len: usize) {
    let (client, server) = way.pair(Config::default(), Config::default()).await.expect("connects");
    let near = client.open().await.expect("opens");
    let far = server.accept().await.expect("accepts");
    let ends = [near, far].map(|channel| {
        let (mut send, mut recv) = channel.split();
        let sending = tokio::spawn(async move {
            let chunk = bytes::Bytes::from(vec![7; 256 * 1024]);
            for _ in 0..len / chunk.len() {
                send.write_bytes(chunk.clone()).await.expect("writes");
            }
            send.finish().expect("finishes");
            send
        });
        let receiving = tokio::spawn(async move {
            let mut got = 0;
            while let Some(bytes) = recv.read_bytes(usize::MAX).await.expect("reads") {
                got += bytes.len();
            }
            assert_eq!(got, len);
        });
        (sending, receiving)
    });
    for (sending, receiving) in ends {
        receiving.await.expect("receives");
        sending.await.expect("sends");
    }
}

/// One channel is used all the time and another not at all, for longer than the proxy lets a stream be idle.
async fn idle_streams_live(way: Way) {
    let mut config = Config::default();
    config.keepalive = Duration::from_millis(500);
    let (client, server) = way.pair(config.clone(), config).await.expect("connects");
    // One after the other, since connections of nginx overtake each other.
    let (mut silent, mut far) = (client.open().await.expect("opens"), server.accept().await.expect("accepts"));
    let (mut busy, mut used) = (client.open().await.expect("opens"), server.accept().await.expect("accepts"));
    for _ in 0..80 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        busy.write_all(b"x").await.expect("writes");
        assert_eq!(used.read(&mut [0; 1]).await.expect("reads"), 1);
        used.write_all(b"x").await.expect("answers");
        assert_eq!(busy.read(&mut [0; 1]).await.expect("reads"), 1);
    }
    for channel in [&mut silent, &mut far] {
        channel.write_all(b"y").await.expect("writes");
    }
    for channel in [&mut silent, &mut far] {
        assert_eq!(channel.read(&mut [0; 1]).await.expect("reads"), 1);
    }
    server.open().await.expect("opens").opened().await.expect("is taken");
}

/// Longer than any buffer on the way, and what the long run adds to it.
const SOME: usize = 32 << 20;
const HALF_A_GIBIBYTE: usize = 512 << 20;

const STREAMS: &str = "tune.h2.max-concurrent-streams 4096";

fn masses(way: Way) {
    play(a_thousand_channels(way));
    play(sixty_unread_channels(way));
    play(transfer(way, SOME));
}

#[test]
fn haproxy() {
    alone::alone("haproxy", || {
        // Connections that it keeps for later sessions would count as descriptors left behind.
        let Some(proxy) = Proxy::haproxy(STREAMS, "pool-max-conn 0") else { return };
        examine("haproxy", proxy.way());
        let Some(proxy) = Proxy::haproxy(STREAMS, "") else { return };
        masses(proxy.way());
    });
}

#[test]
fn haproxy_with_tls_on_both_sides() {
    alone::alone("haproxy_with_tls_on_both_sides", || {
        let Some(proxy) = Proxy::haproxy_tls(STREAMS) else { return };
        let way = Way { scheme: "h2", port: proxy.port };
        play(a_thousand_channels(way));
        play(transfer(way, SOME));
    });
}

#[test]
fn nginx() {
    alone::alone("nginx", || {
        let Some(proxy) = Proxy::nginx("http2_max_concurrent_streams 4096;") else { return };
        examine("nginx", proxy.way());
        masses(proxy.way());
    });
}

#[test]
fn one_that_does_the_worst_of_all() {
    alone::alone("one_that_does_the_worst_of_all", || {
        let way = Way { scheme: "h2c", port: SERVERS.block_on(fake::start()) };
        examine("fake", way);
        play(a_thousand_channels(way));
        play(sixty_unread_channels(way));
    });
}

#[test]
fn the_limits_that_proxies_have_by_default() {
    alone::alone("the_limits_that_proxies_have_by_default", || {
        for proxy in [Proxy::haproxy("", ""), Proxy::nginx("")].into_iter().flatten() {
            play(opens_beyond_the_limit_wait(proxy.way()));
        }
    });
}

#[test]
fn silent_streams_outlive_the_idle_times_of_proxies() {
    alone::alone("silent_streams_outlive_the_idle_times_of_proxies", || {
        let (haproxy, nginx) = (HAPROXY.replace("{idle}", "2s"), NGINX.replace("{idle}", "2s"));
        let proxies = [Proxy::haproxy_of(&haproxy, "proto h2", "", "proto h2"), Proxy::nginx_of(&nginx, "")];
        for proxy in proxies.into_iter().flatten() {
            play(idle_streams_live(proxy.way()));
        }
    });
}

#[test]
#[ignore = "make test-full: a gibibyte takes its time"]
fn a_gibibyte() {
    for proxy in [Proxy::haproxy("", ""), Proxy::nginx("")].into_iter().flatten() {
        play(transfer(proxy.way(), HALF_A_GIBIBYTE));
    }
    let Some(proxy) = Proxy::haproxy_tls("") else { return };
    play(transfer(Way { scheme: "h2", port: proxy.port }, HALF_A_GIBIBYTE));
}
