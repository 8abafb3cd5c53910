//! `mux ping`: the round trip of a session.

use std::time::Duration;

use libmux::{Config, Session};

use crate::dial::dial;
use crate::exit::{Exit, print_line};

/// Measure the round trip to the library at the other end of a session
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to, such as qmux://127.0.0.1:4000
    url: String,

    /// How often
    #[arg(short, long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,

    /// Seconds between two of them
    #[arg(short, long, value_name = "S", default_value_t = 1.0)]
    interval: f64,
}

/// Pings, prints each round trip and a summary.
pub(crate) async fn run(args: Args) -> Result<(), Exit> {
    let interval = Duration::try_from_secs_f64(args.interval)
        .map_err(|error| Exit::usage(format!("--interval {}: {error}", args.interval)))?;
    let session = dial(&args.url, &Config::default()).await?;
    ping(&session, args.count, interval).await?;
    session.close(0, "done").map_err(|error| Exit::from_mux("cannot close the session", &error))?;
    session.closed().await;
    Ok(())
}

async fn ping(session: &Session, count: u32, interval: Duration) -> Result<(), Exit> {
    let mut times = Times(Vec::new());
    let peer = session.info().peer_addr.to_string();
    for number in 1..=count {
        let time = session.ping().await.map_err(|error| Exit::from_mux(&format!("no answer from {peer}"), &error))?;
        times.0.push(time);
        print_line(&format!("{peer}: {number} of {count}, {}", milliseconds(time)))?;
        if number < count {
            tokio::time::sleep(interval).await;
        }
    }
    Ok(())
}

/// What was measured; however it ends, Ctrl-C included, it is worth its summary.
struct Times(Vec<Duration>);

impl Drop for Times {
    fn drop(&mut self) {
        if let Some(summary) = summary(&mut self.0) {
            // Nobody reads it: the command is over anyway.
            let _ = print_line(&summary);
        }
    }
}

fn summary(times: &mut [Duration]) -> Option<String> {
    times.sort_unstable();
    let (least, most, median) = (times.first()?, times.last()?, times.get(times.len() / 2)?);
    let shown = [least, median, most].map(|time| milliseconds(*time));
    Some(format!("{} answers; least {}, median {}, most {}", times.len(), shown[0], shown[1], shown[2]))
}

fn milliseconds(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_needs_an_answer() {
        assert_eq!(summary(&mut []), None);
        let mut times = [3, 1, 2].map(Duration::from_millis);
        assert_eq!(summary(&mut times).as_deref(), Some("3 answers; least 1.000 ms, median 2.000 ms, most 3.000 ms"));
    }
}
