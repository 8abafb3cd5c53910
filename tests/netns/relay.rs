//! A link in user space: carries the packets of two TUN devices, its stdin and its stdout, with a delay, at a rate,
//! through a bounded queue, and loses some. `link.py` opens the devices and starts it; see `README.md`.
//!
//! ```text
//! netns_relay delay=30000 rate=125000000 queue=7500000 loss=0.01 seed=1
//! ```
//! Each way: `delay` in microseconds, `rate` in bytes a second and `queue` in bytes (0: without limit), `loss` from 0 to 1.
//! It ends when a device is gone.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// One direction's properties.
#[derive(Clone, Copy, Default)]
struct Shape {
    delay: Duration,
    /// Bytes a second; 0 is without limit.
    rate: u64,
    /// Bytes that may wait for their turn; 0 is without limit.
    queue: u64,
    loss: f64,
    seed: u64,
}

fn main() -> ExitCode {
    match relay() {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("netns_relay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn relay() -> io::Result<std::convert::Infallible> {
    let shape = Shape::parse(std::env::args().skip(1))?;
    let open = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().map(File::from);
    let (left, right) = (open(io::stdin().as_fd())?, open(io::stdout().as_fd())?);
    let (ended, first) = mpsc::channel();
    for (from, to, seed) in
        [(left.try_clone()?, right.try_clone()?, shape.seed), (right, left, shape.seed ^ 0x9e37_79b9_7f4a_7c15)]
    {
        let ended = ended.clone();
        thread::spawn(move || {
            let error = match carry(from, to, Shape { seed, ..shape }) {
                Ok(never) => match never {},
                Err(error) => error,
            };
            // Fails only when the other direction has ended the process already.
            let _ = ended.send(error);
        });
    }
    Err(first.recv().unwrap_or_else(|_| io::ErrorKind::BrokenPipe.into()))
}

impl Shape {
    fn parse(arguments: impl Iterator<Item = String>) -> io::Result<Self> {
        let mut shape = Self { seed: 1, ..Self::default() };
        for argument in arguments {
            let wrong = || io::Error::new(io::ErrorKind::InvalidInput, format!("cannot use '{argument}'"));
            let (name, value) = argument.split_once('=').ok_or_else(wrong)?;
            let whole = || value.parse::<u64>().map_err(|_| wrong());
            match name {
                "delay" => shape.delay = Duration::from_micros(whole()?),
                "rate" => shape.rate = whole()?,
                "queue" => shape.queue = whole()?,
                "seed" => shape.seed = whole()?,
                "loss" => {
                    shape.loss = value.parse().ok().filter(|loss| (0.0..=1.0).contains(loss)).ok_or_else(wrong)?;
                }
                _ => return Err(wrong()),
            }
        }
        Ok(shape)
    }

    fn takes(&self, bytes: usize) -> Duration {
        match self.rate {
            0 => Duration::ZERO,
            rate => Duration::from_nanos(bytes as u64 * 1_000_000_000 / rate),
        }
    }
}

/// One direction, until a device fails. The devices do not block.
fn carry(mut from: File, mut to: File, shape: Shape) -> io::Result<std::convert::Infallible> {
    /// Packets between two looks at what is due.
    const BATCH: usize = 64;
    let longest = if shape.queue == 0 { Duration::MAX } else { shape.takes(shape.queue as usize) };
    let mut packet = vec![0; 1 << 16];
    let mut flying: VecDeque<(Instant, Box<[u8]>)> = VecDeque::new();
    let mut dice = Dice(shape.seed | 1);
    // When the last packet that was let in has left the bottleneck.
    let mut free = Instant::now();
    loop {
        for _ in 0..BATCH {
            let len = match from.read(&mut packet) {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let now = Instant::now();
            let start = free.max(now);
            if start - now > longest || dice.roll() < shape.loss {
                continue;
            }
            free = start + shape.takes(len);
            flying.push_back((free + shape.delay, packet[..len].into()));
        }
        let now = Instant::now();
        while flying.front().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, packet)) = flying.pop_front() {
                // What the other end does not take is lost, as on any link.
                let _ = to.write(&packet);
            }
        }
        let wait = flying.front().map(|(due, _)| due.saturating_duration_since(Instant::now()));
        let wait = wait.map(|wait| Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() });
        let mut polled = [PollFd::new(&from, PollFlags::IN)];
        match poll(&mut polled, wait.as_ref()) {
            Err(rustix::io::Errno::INTR) | Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// xorshift64*: the same seed loses the same packets.
struct Dice(u64);

impl Dice {
    /// From 0 to below 1.
    fn roll(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64
    }
}
