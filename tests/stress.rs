//! Many tasks at once on one session: every byte arrives once and in order, nobody waits for ever, nothing is left.
//! A failure prints its seed; `LIBMUX_SEED=N` replays it.

use std::time::Duration;

use libmux::{Config, RecvHalf, SendHalf, Session, WriteFlags};

/// A small generator, the same everywhere.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }

    /// Mostly small, sometimes large.
    fn size(&mut self) -> usize {
        let most = [10, 300, 5_000, 70_000, 300_000][self.below(5)];
        1 + self.below(most)
    }
}

fn pattern(at: usize) -> u8 {
    (at.wrapping_mul(0x9E37_79B1) >> 11) as u8
}

async fn write(mut send: SendHalf, total: usize, mut random: Random) {
    let mut at = 0;
    while at < total {
        let len = random.size().min(total - at);
        let data: Vec<u8> = (at..at + len).map(pattern).collect();
        at += len;
        let last = at == total && random.below(2) == 0;
        match random.below(8) {
            0 => send.write_bytes(data.into()).await.expect("hands over"),
            1 => send.write_all_with(&data, WriteFlags::MORE).await.expect("gathers"),
            _ if last => {
                send.write_all_with(&data, WriteFlags::FIN).await.expect("writes and ends");
                return;
            }
            _ => send.write_all(&data).await.expect("writes"),
        }
        match random.below(12) {
            0 => send.flush().await.expect("flushes"),
            1 => tokio::task::yield_now().await,
            2 => tokio::time::sleep(Duration::from_micros(random.below(500) as u64)).await,
            _ => {}
        }
    }
    send.finish().expect("finishes");
    send.ended().await.expect("everything was taken");
}

async fn read(mut recv: RecvHalf, total: usize, mut random: Random) {
    let mut at = 0;
    let mut buf = vec![0; 100_000];
    loop {
        let most = random.size().min(buf.len());
        if random.below(3) == 0 {
            let Some(bytes) = recv.read_bytes(most).await.expect("reads") else { break };
            assert!(bytes.iter().enumerate().all(|(i, byte)| *byte == pattern(at + i)), "at {at}");
            at += bytes.len();
        } else {
            let len = recv.read(&mut buf[..most]).await.expect("reads");
            if len == 0 {
                break;
            }
            assert!(buf[..len].iter().enumerate().all(|(i, byte)| *byte == pattern(at + i)), "at {at}");
            at += len;
        }
        if random.below(30) == 0 {
            tokio::time::sleep(Duration::from_micros(random.below(2_000) as u64)).await;
        }
    }
    assert_eq!(at, total);
}

/// One side's task of a channel. How much each side sends stands in the seed, so both know.
async fn play(channel: libmux::Channel, opener: bool, seed: u64) {
    let mut random = Random::new(seed);
    let totals = [random.size() * 2, random.size() * 2];
    let (send, recv) = channel.split();
    let (ours, theirs) = if opener { (totals[0], totals[1]) } else { (totals[1], totals[0]) };
    let writing = tokio::spawn(write(send, ours, Random::new(seed ^ u64::from(opener))));
    read(recv, theirs, Random::new(seed ^ 0xFF ^ u64::from(opener))).await;
    writing.await.expect("writer");
}

async fn side(session: Session, opens: usize, accepts: usize, seed: u64) -> Session {
    let mut tasks = Vec::new();
    let (opening, accepting) = (session.clone(), session.clone());
    let opener = tokio::spawn(async move {
        let mut tasks = Vec::new();
        for at in 0..opens {
            let seed = seed.wrapping_mul(1000) + at as u64;
            let options = libmux::OpenOptions::new().label(seed.to_be_bytes().to_vec());
            let channel = opening.open_with(&options).await.expect("opens");
            tasks.push(tokio::spawn(play(channel, true, seed)));
        }
        tasks
    });
    for _ in 0..accepts {
        let channel = accepting.accept().await.expect("accepts");
        let seed = u64::from_be_bytes(channel.label()[..].try_into().expect("eight bytes"));
        tasks.push(tokio::spawn(play(channel, false, seed)));
    }
    tasks.extend(opener.await.expect("opener"));
    for task in tasks {
        task.await.expect("a channel's task");
    }
    session
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_byte_arrives_once_and_nobody_waits_for_ever() {
    let seeds = match std::env::var("LIBMUX_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => (1..=12).collect::<Vec<u64>>(),
    };
    for seed in seeds {
        let mut random = Random::new(seed);
        let mut config = Config::default();
        config.window = [4096, 20_000, 256 * 1024][random.below(3)];
        config.send_buffer = [4096, 50_000, 256 * 1024][random.below(3)];
        let (opens, accepts) = (1 + random.below(40), random.below(40));
        let socket = std::env::temp_dir().join(format!("libmux-stress-{}.sock", std::process::id()));
        let unix = format!("qmux+unix://{}", socket.display());
        let url = if random.below(2) == 0 { "qmux://127.0.0.1:0" } else { unix.as_str() };
        let listener = libmux::listen(url, &config).await.expect("listens");
        let (client, server) = tokio::join!(libmux::dial(listener.url(), &config), listener.accept());
        let (client, server) = (client.expect("dials"), server.expect("accepts"));
        let both = async {
            let a = tokio::spawn(side(client, opens, accepts, seed));
            let b = tokio::spawn(side(server, accepts, opens, seed + 1));
            (a.await.expect("client"), b.await.expect("server"))
        };
        let (client, server) = tokio::time::timeout(Duration::from_secs(120), both)
            .await
            .unwrap_or_else(|_| panic!("somebody waits for ever: LIBMUX_SEED={seed}"));
        let clean = async {
            while client.stats().channels_open + server.stats().channels_open > 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), clean)
            .await
            .unwrap_or_else(|_| panic!("channels are left: LIBMUX_SEED={seed}"));
        assert_eq!((client.stats().budget_used, server.stats().budget_used), (0, 0), "LIBMUX_SEED={seed}");
    }
}
