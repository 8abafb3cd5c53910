//! The Rust agent of the language matrix; see ../README.md.

use std::process::exit;
use std::time::Duration;

use libmux::{
    Channel, Config, Error, ErrorKind, OpenOptions, Origin, Priority, RecvHalf, SendHalf, Session, WriteFlags,
};
use tokio::io::AsyncReadExt;

const BLOCK: usize = 65536;
const CODES: [u64; 4] = [0, 7, u32::MAX as u64, 1 << 61];
const NAMED_ONLY: [&str; 1] = ["endless"];
const CHECKS: [&str; 13] = [
    "echo",
    "nolabel",
    "urgency",
    "many",
    "hello",
    "label",
    "halfclose",
    "sink",
    "reset",
    "seereset",
    "stop",
    "seestop",
    "endless",
];

type Check<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [side, url, role, names @ ..] = args.as_slice() else { exit(2) };
    let session = match tokio::time::timeout(Duration::from_secs(60), meet(side, url)).await {
        Ok(Ok(session)) => session,
        Ok(Err(error)) => {
            println!("error {:?} {error}", error.kind());
            exit(3)
        }
        Err(_) => exit(4),
    };
    if role == "serve" { serve(session).await } else { drive(session, names).await }
}

async fn meet(side: &str, url: &str) -> libmux::Result<Session> {
    if side == "dial" {
        return libmux::dial(url, &Config::default()).await;
    }
    let listener = libmux::listen(url, &Config::default()).await?;
    println!("{}", listener.url());
    listener.accept().await
}

// ---- the serving end ----

async fn serve(session: Session) {
    let error = loop {
        match session.accept().await {
            Ok(channel) => drop(tokio::spawn(async move {
                if let Err(error) = serve_channel(channel).await {
                    eprintln!("channel: {error}");
                }
            })),
            Err(error) => break error,
        }
    };
    println!("closed code={} by={}", error.code().unwrap_or_default(), format!("{:?}", error.origin()).to_lowercase());
}

async fn serve_channel(mut channel: Channel) -> Check {
    let label = channel.label().clone();
    let (what, code) = match label.iter().position(|&byte| byte == b':') {
        Some(at) => (&label[..at], std::str::from_utf8(&label[at + 1..]).unwrap_or_default().parse().unwrap_or(0)),
        None => (&label[..], 0),
    };
    match what {
        b"" | b"echo" | b"many" => {
            while let Some(block) = channel.recv_half().read_bytes(BLOCK).await? {
                channel.send_half().write_bytes(block).await?;
            }
        }
        b"hello" => {
            channel.write_all(b"hello").await?;
            channel.finish()?;
            read_away(channel.recv_half()).await?;
        }
        b"label" => {
            channel.send_half().write_all_with(&label, WriteFlags::FIN).await?;
            read_away(channel.recv_half()).await?;
        }
        b"halfclose" => {
            let count = read_away(channel.recv_half()).await?;
            channel.write_all(count.to_string().as_bytes()).await?;
        }
        b"sink" => {
            channel.finish()?;
            read_away(channel.recv_half()).await?;
        }
        b"reset" => {
            channel.write_all(b"partial").await?;
            channel.send_half().reset(code)?;
            // The driving end only closes; how that is seen is not checked here.
            let _ = read_away(channel.recv_half()).await;
        }
        b"seereset" => {
            let answer = match read_away(channel.recv_half()).await {
                Ok(_) => "end".to_owned(),
                Err(error) => format!("reset {}", error.code().unwrap_or_default()),
            };
            channel.write_all(answer.as_bytes()).await?;
        }
        b"stop" => channel.recv_half().stop(code)?,
        b"seestop" => {
            let error = write_until_failure(channel.send_half()).await;
            channel.recv_half().stop(if error.kind() == ErrorKind::Stopped {
                error.code().unwrap_or(99)
            } else {
                99
            })?;
        }
        b"endless" => return Err(write_until_failure(channel.send_half()).await.into()),
        _ => return Ok(channel.abort(404)?),
    }
    channel.close();
    Ok(())
}

async fn read_away(recv: &mut RecvHalf) -> libmux::Result<u64> {
    let mut total = 0;
    while let Some(block) = recv.read_bytes(BLOCK).await? {
        total += block.len() as u64;
    }
    Ok(total)
}

async fn write_until_failure(send: &mut SendHalf) -> Error {
    loop {
        if let Err(error) = send.write_all(&[b'x'; BLOCK]).await {
            return error;
        }
    }
}

// ---- the driving end ----

async fn drive(session: Session, names: &[String]) {
    for name in CHECKS {
        if !(names.is_empty() && !NAMED_ONLY.contains(&name) || names.iter().any(|wanted| wanted == name)) {
            continue;
        }
        let checked = match tokio::time::timeout(Duration::from_secs(60), check(&session, name)).await {
            Ok(checked) => checked,
            Err(elapsed) => Err(elapsed.into()),
        };
        if let Err(error) = checked {
            println!("FAIL {name}: {error}");
            exit(1);
        }
        println!("ok {name}");
    }
    if let Err(error) = session.close(5, "bye") {
        println!("FAIL close: {error}");
        exit(1);
    }
    session.closed().await;
}

async fn check(session: &Session, name: &str) -> Check {
    match name {
        "echo" => drive_echo(session).await,
        "nolabel" => drive_line(session, OpenOptions::new()).await,
        "urgency" => drive_line(session, OpenOptions::new().label("echo").priority(Priority::new(0, true)?)).await,
        "many" => drive_many(session).await,
        "hello" => expect(&mut open(session, "hello").await?, b"hello").await,
        "label" => {
            let mut label = b"label:".to_vec();
            label.extend((6..1024).map(|i| i as u8));
            let mut channel = session.open_with(&OpenOptions::new().label(label.clone())).await?;
            expect(&mut channel, &label).await
        }
        "halfclose" => drive_halfclose(session).await,
        "sink" => {
            let mut channel = open(session, "sink").await?;
            expect(&mut channel, b"").await?;
            for _ in 0..32 {
                channel.write_all(&[b'x'; BLOCK]).await?;
            }
            channel.close();
            Ok(())
        }
        "reset" => {
            for code in CODES {
                let mut channel = open(session, &format!("reset:{code}")).await?;
                let end = read_away(channel.recv_half()).await;
                ended_with(end.err(), ErrorKind::Reset, code)?;
            }
            Ok(())
        }
        "seereset" => {
            for code in CODES {
                let mut channel = open(session, "seereset").await?;
                channel.write_all(b"partial").await?;
                channel.send_half().reset(code)?;
                expect(&mut channel, format!("reset {code}").as_bytes()).await?;
            }
            Ok(())
        }
        "stop" => {
            for code in CODES {
                let mut channel = open(session, &format!("stop:{code}")).await?;
                let error = write_until_failure(channel.send_half()).await;
                ended_with(Some(error), ErrorKind::Stopped, code)?;
            }
            Ok(())
        }
        "seestop" => {
            for code in CODES {
                let mut channel = open(session, "seestop").await?;
                channel.read(&mut [0]).await?;
                channel.recv_half().stop(code)?;
                let error = write_until_failure(channel.send_half()).await;
                ended_with(Some(error), ErrorKind::Stopped, code)?;
            }
            Ok(())
        }
        "endless" => {
            let mut channel = open(session, "endless").await?;
            channel.read(&mut [0]).await?;
            println!("reading");
            match read_away(channel.recv_half()).await {
                Ok(_) => println!("ended 0"),
                Err(error) => println!("ended {:?}", error.kind()),
            }
            Ok(())
        }
        _ => Err(format!("there is no check {name}").into()),
    }
}

async fn open(session: &Session, label: &str) -> Check<Channel> {
    Ok(session.open_with(&OpenOptions::new().label(label.to_owned())).await?)
}

async fn expect(channel: &mut Channel, want: &[u8]) -> Check {
    let mut got = Vec::new();
    channel.recv_half().read_to_end(&mut got).await?;
    if got != want {
        return Err(format!("got {:?}", String::from_utf8_lossy(&got)).into());
    }
    if channel.read(&mut [0]).await? != 0 {
        return Err("the end did not stay the end".into());
    }
    Ok(())
}

fn ended_with(error: Option<Error>, kind: ErrorKind, code: u64) -> Check {
    match error {
        Some(error) if error.kind() == kind && error.code() == Some(code) && error.origin() == Origin::Peer => Ok(()),
        other => Err(format!("ended with {other:?}, not {kind:?} {code}").into()),
    }
}

/// One step of FNV-1a for each byte, so that it does not matter in which pieces the bytes come.
fn hash(state: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(state, |state, &byte| (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

async fn drive_echo(session: &Session) -> Check {
    const TOTAL: usize = 64 << 20;
    const START: u64 = 0xcbf2_9ce4_8422_2325;
    let (mut send, mut recv) = open(session, "echo").await?.split();
    let sending = tokio::spawn(async move {
        let (mut seed, mut sent, mut block) = (88_172_645_463_325_252_u64, START, vec![0; BLOCK]);
        for _ in 0..TOTAL / BLOCK {
            for word in block.chunks_exact_mut(8) {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                word.copy_from_slice(&seed.to_le_bytes());
            }
            sent = hash(sent, &block);
            send.write_all(&block).await?;
        }
        send.finish()?;
        Ok::<_, Error>(sent)
    });
    let (mut count, mut received) = (0, START);
    while let Some(block) = recv.read_bytes(BLOCK).await? {
        count += block.len();
        received = hash(received, &block);
    }
    let sent = sending.await??;
    if count != TOTAL || received != sent {
        return Err(format!("{count} bytes came back, hash equal: {}", received == sent).into());
    }
    Ok(())
}

async fn drive_line(session: &Session, options: OpenOptions) -> Check {
    let mut channel = session.open_with(&options).await?;
    channel.write_all(b"a line").await?;
    channel.finish()?;
    expect(&mut channel, b"a line").await
}

async fn drive_many(session: &Session) -> Check {
    let mut channels = Vec::new();
    for _ in 0..64 {
        channels.push(open(session, "many").await?);
    }
    for (i, channel) in channels.iter_mut().enumerate().rev() {
        channel.send_half().write_all_with(format!("channel {i}").as_bytes(), WriteFlags::FIN).await?;
    }
    for (i, channel) in channels.iter_mut().enumerate() {
        expect(channel, format!("channel {i}").as_bytes()).await?;
    }
    Ok(())
}

async fn drive_halfclose(session: &Session) -> Check {
    let mut channel = open(session, "halfclose").await?;
    channel.write_all(&[b'x'; 10_000]).await?;
    channel.finish()?;
    match channel.write_all(b"x").await {
        Err(error) if error.kind() == ErrorKind::Finished => {}
        other => return Err(format!("a write after finish gave {other:?}").into()),
    }
    expect(&mut channel, b"10000").await
}
