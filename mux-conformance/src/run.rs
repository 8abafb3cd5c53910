//! One run of one scenario: a thread and a runtime of its own, a watchdog, and a look at what is left afterwards.

use std::any::Any;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use mux_api::Budget;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

use crate::context::{Cx, Steps};
use crate::scenario::Scenario;
use crate::subject::Subject;

/// How long a scenario and what it leaves behind may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Before it counts as hanging.
    pub(crate) deadline: Duration,
    /// Before what is left counts as leaked.
    pub(crate) patience: Duration,
}

/// How much longer than its deadline a scenario may take whose threads are all blocked.
const GRACE: Duration = Duration::from_secs(5);

/// What the process had before.
#[derive(Clone, Copy)]
struct Before {
    files: usize,
    reserved: u64,
}

type Said = Result<BTreeSet<String>, String>;

/// What a scenario's thread tells the watchdog.
enum Told {
    /// Its future is over, one way or the other.
    Over,
    Done(Said),
}

/// Runs it; what the report shall tell, or what went wrong.
pub(crate) fn run(scenario: &'static Scenario, subject: &Arc<Subject>, full: bool, seed: u64, limits: Limits) -> Said {
    let before = Before { files: open_files().len(), reserved: Budget::process().used() };
    let steps = Arc::new(Steps::default());
    let cx = Cx::new(Arc::clone(subject), full, seed, limits.patience, Arc::clone(&steps));
    let (tell, told) = mpsc::channel();
    let inner = Arc::clone(&steps);
    let thread = std::thread::Builder::new().name(scenario.name.to_owned()).spawn(move || {
        let ran = catch_unwind(AssertUnwindSafe(|| on_runtime(scenario, cx, limits, before, &tell)));
        let ran = ran.unwrap_or_else(|panic| Err(format!("{} (in: {})", said(&*panic), inner.waiting())));
        // Nobody listens any more when the watchdog has given up.
        let _ = tell.send(Told::Done(ran));
    });
    let thread = thread.map_err(|error| format!("no thread for the scenario: {error}"))?;
    let mut patience = limits.deadline + GRACE;
    loop {
        match told.recv_timeout(patience) {
            // What is left: tasks and sessions, the runtime, files.
            Ok(Told::Over) => patience = limits.patience + 3 * GRACE,
            Ok(Told::Done(ran)) => {
                // It has said its last word.
                let _ = thread.join();
                return ran;
            }
            Err(_) => return Err(format!("hangs, and blocks its threads, in: {}", steps.waiting())),
        }
    }
}

fn on_runtime(scenario: &Scenario, cx: Cx, limits: Limits, before: Before, tell: &mpsc::Sender<Told>) -> Said {
    let runtime = runtime()?;
    let steps = cx.steps();
    let mut running = (scenario.run)(&cx);
    let ran = runtime.block_on(async { timeout(limits.deadline, running.as_mut()).await });
    let _ = tell.send(Told::Over);
    if ran.is_err() {
        // Asked while it exists: its steps end with it.
        let waiting = steps.waiting();
        drop(running);
        runtime.shutdown_background();
        return Err(format!("hangs: not over after {:?}, in: {waiting}", limits.deadline));
    }
    drop(running);
    cx.stop();
    let tidy = runtime.block_on(nothing_left(&runtime, &cx, limits.patience, before.reserved));
    let notes = cx.notes();
    drop(cx);
    runtime.shutdown_timeout(GRACE);
    tidy?;
    files_closed(before.files)?;
    Ok(notes)
}

fn runtime() -> Result<Runtime, String> {
    let built = Builder::new_multi_thread().worker_threads(2).enable_all().build();
    built.map_err(|error| format!("no runtime for the scenario: {error}"))
}

/// Waits until no session, task or reserved byte of the scenario is left.
async fn nothing_left(runtime: &Runtime, cx: &Cx, patience: Duration, reserved: u64) -> Result<(), String> {
    let began = Instant::now();
    loop {
        let mut left = cx.left();
        let tasks = runtime.metrics().num_alive_tasks();
        if tasks > 0 {
            left.push(format!("{tasks} tasks"));
        }
        let used = Budget::process().used();
        if used > reserved {
            left.push(format!("{} bytes of the process's budget", used - reserved));
        }
        if left.is_empty() {
            return Ok(());
        }
        if began.elapsed() > patience {
            return Err(format!("left behind {patience:?} after it was over: {}", left.join(", ")));
        }
        sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until no more files are open than there were.
fn files_closed(before: usize) -> Result<(), String> {
    let began = Instant::now();
    loop {
        let open = open_files();
        if open.len() <= before {
            return Ok(());
        }
        if began.elapsed() > GRACE {
            let more = open.len() - before;
            return Err(format!("left behind: {more} file descriptors more than before; open are {}", open.join(", ")));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What every open file of the process is; empty where the system does not tell.
fn open_files() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let target = |path: std::path::PathBuf| std::fs::read_link(path).map(|to| to.display().to_string());
    entries.flatten().filter_map(|entry| target(entry.path()).ok()).collect()
}

/// Opens what a process opens once and keeps, so that it is not taken for a leak: one session.
pub(crate) fn warm_up(subject: &Arc<Subject>) {
    let Ok(runtime) = runtime() else { return };
    let (client, server) = subject.configs(|_| ());
    // A subject that cannot connect is what every scenario will say.
    let _ = runtime.block_on(async { timeout(GRACE, subject.connect(&client, &server, None)).await });
    runtime.shutdown_timeout(GRACE);
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".to_owned())
}
