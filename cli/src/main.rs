//! The `mux` command: channels between processes from a shell, and the benchmark that keeps libmux honest.

mod backends;
mod bench;
mod cert;
mod connect;
mod dial;
mod exit;
mod forward;
mod help;
mod listen;
mod ping;
mod relay;
mod stdio;

use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::Level;

use crate::exit::Exit;

/// Many channels over one connection; the wire is chosen by a URL.
#[derive(Parser)]
#[command(name = "mux", version, arg_required_else_help = true)]
struct Cli {
    /// Say more on stderr: -v sessions, channels and labels, -vv and -vvv the library's own log
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Listen(listen::Args),
    Connect(connect::Args),
    Forward(forward::Args),
    Ping(ping::Args),
    Backends(backends::Args),
    Cert(cert::Args),
    Bench(bench::Args),
    #[command(hide = true)]
    BenchWorker(bench::worker::Args),
}

/// How long the sessions of a command that is interrupted have to tell their peers.
const GOODBYE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let cli = match help::teach(Cli::command()).try_get_matches().and_then(|m| Cli::from_arg_matches(&m)) {
        Ok(cli) => cli,
        // Help goes to stdout and exits 0, mistakes to stderr with 2; a reader that hung up changes neither.
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit::USAGE));
        }
    };
    log_to_stderr(cli.verbose);
    // Two workers, whatever the machine has: what the benchmark promises, and plenty for one pipe.
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Exit::failed(format!("cannot start the runtime: {error}")).report(),
    };
    let ended = runtime.block_on(async {
        // First of all: a signal that comes once the command has said that it is ready must not kill it.
        let signals = Signals::watch()?;
        let signal = tokio::select! {
            ended = run(cli.command) => return ended,
            signal = signals.wait() => signal,
        };
        // The sessions are dropped. Over TCP the system tells their peers; QUIC's last packet is sent by this process.
        tokio::time::sleep(GOODBYE).await;
        Err(signal)
    });
    // A thread that sits in a write to stdout is not waited for.
    runtime.shutdown_timeout(Duration::from_millis(100));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => exit.report(),
    }
}

async fn run(command: Command) -> Result<(), Exit> {
    match command {
        Command::Listen(args) => listen::run(args).await,
        Command::Connect(args) => connect::run(args).await,
        Command::Forward(args) => forward::run(args).await,
        Command::Ping(args) => ping::run(args).await,
        Command::Backends(_) => backends::run(),
        Command::Cert(args) => cert::run(&args),
        Command::Bench(args) => bench::run(args).await,
        Command::BenchWorker(args) => bench::worker::run(args).await,
    }
}

/// The signals that ask us to go. The futures of the command are dropped then, which unlinks socket files and aborts
/// sessions, so that no peer takes what it has for everything.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn watch() -> Result<Self, Exit> {
        let watch = |kind| signal(kind).map_err(|error| Exit::failed(format!("cannot watch for signals: {error}")));
        Ok(Self { interrupt: watch(SignalKind::interrupt())?, terminate: watch(SignalKind::terminate())? })
    }

    async fn wait(mut self) -> Exit {
        tokio::select! {
            _ = self.interrupt.recv() => Exit::quiet(exit::INTERRUPTED),
            _ = self.terminate.recv() => Exit::quiet(exit::TERMINATED),
        }
    }
}

fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => Level::WARN,
        1 => Level::INFO,
        2 => Level::DEBUG,
        _ => Level::TRACE,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(verbose > 1)
        .without_time()
        .compact()
        .init();
}
