//! Medians, ratios, the table and the JSON.

use serde::Serialize;

use super::backend::Backend;
use super::run::{Outcome, Run};
use super::scenario::{Scenario, Unit};

/// A backend in a scenario: a line of the JSON and of the table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(super) backend: String,
    pub(super) scenario: &'static str,
    channels: usize,
    pub(super) api: &'static str,
    pub(super) unit: &'static str,
    /// Whether a smaller value is better; a ratio above 1 always is.
    pub(super) less_is_better: bool,
    /// The median of the runs; `null` when there is none.
    pub(super) value: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_us: Option<f64>,
    /// Where a load came beside it: the value before, how good the value is beside that (above 1 is better), and latencies.
    #[serde(skip_serializing_if = "Option::is_none")]
    alone: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    of_alone: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alone_p50_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alone_p99_us: Option<f64>,
    /// What it rides on, bare; with `api` c its own scheme, which means the Rust API.
    pub(super) baseline: Option<String>,
    /// The median of the ratios to the baseline's run of the same round; above 1 is better.
    pub(super) ratio: Option<f64>,
    cpu_client_s: Option<f64>,
    cpu_server_s: Option<f64>,
    /// Bytes: the peak, or in `idle` what a channel adds.
    rss_client: Option<u64>,
    rss_server: Option<u64>,
    /// Bytes charged to the library's budget of the process at the end.
    budget_client: Option<u64>,
    budget_server: Option<u64>,
    /// How many runs the figures are made of.
    runs: usize,
    /// Why there are no figures, where the machine cannot do it.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<String>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

impl Row {
    /// The rows of a scenario; `outcomes` holds the runs of each backend, round by round.
    pub(crate) fn of(scenario: &Scenario, backends: &[Backend], outcomes: &[Vec<Outcome>]) -> Vec<Self> {
        let rounds_of = |backend: &Backend| {
            backends.iter().position(|known| known == backend).and_then(|at| outcomes.get(at)).map(Vec::as_slice)
        };
        let row = |(backend, rounds): (&Backend, &Vec<Outcome>)| {
            let baseline = backend.baseline();
            let base = baseline.and_then(|base| rounds_of(&base)).unwrap_or_default();
            Self::new(scenario, backend, rounds, ratio(scenario.unit, rounds, base))
        };
        backends.iter().zip(outcomes).map(row).collect()
    }

    fn new(scenario: &Scenario, backend: &Backend, rounds: &[Outcome], ratio: Option<f64>) -> Self {
        let runs: Vec<&Run> = rounds.iter().filter_map(measured).collect();
        let all = |of: fn(&Run) -> f64| runs.iter().map(|run| of(run)).collect::<Vec<f64>>();
        let middle = |of: fn(&Run) -> f64| median(all(of));
        let latency = |of: fn(&Run) -> Option<f64>| median(runs.iter().filter_map(|run| of(run)).collect());
        let values = all(|run| run.value);
        let why = |of: fn(&Outcome) -> Option<&String>| rounds.iter().find_map(of).cloned();
        Self {
            backend: backend.name().to_owned(),
            scenario: scenario.name,
            channels: scenario.channels,
            api: backend.api(),
            unit: scenario.unit.name(),
            less_is_better: scenario.unit.less_is_better(),
            min: values.iter().copied().reduce(f64::min),
            max: values.iter().copied().reduce(f64::max),
            value: median(values),
            p50_us: latency(|run| Some(run.latency?.p50_us)),
            p99_us: latency(|run| Some(run.latency?.p99_us)),
            alone: latency(|run| Some(run.alone?.value)),
            of_alone: median(
                runs.iter().filter_map(|run| Some(scenario.unit.ratio(run.value, run.alone?.value))).collect(),
            ),
            alone_p50_us: latency(|run| Some(run.alone?.latency?.p50_us)),
            alone_p99_us: latency(|run| Some(run.alone?.latency?.p99_us)),
            baseline: backend.baseline().map(|base| base.name().to_owned()),
            ratio,
            cpu_client_s: middle(|run| run.cpu_client_s),
            cpu_server_s: middle(|run| run.cpu_server_s),
            rss_client: middle(|run| run.rss_client).map(|bytes| bytes as u64),
            rss_server: middle(|run| run.rss_server).map(|bytes| bytes as u64),
            budget_client: middle(|run| run.budget_client).map(|bytes| bytes as u64),
            budget_server: middle(|run| run.budget_server).map(|bytes| bytes as u64),
            runs: runs.len(),
            skipped: why(|outcome| match outcome {
                Outcome::Skipped(why) => Some(why),
                _ => None,
            }),
            error: why(|outcome| match outcome {
                Outcome::Failed(why) => Some(why),
                _ => None,
            }),
        }
    }

    /// The scenario as people call it, the number of channels included where it varies.
    pub(super) fn label(&self) -> String {
        match self.scenario {
            "pingpong" if self.channels == 1 => self.scenario.to_owned(),
            "idle" | "unread" | "pingpong" => format!("{} {}", self.scenario, self.channels),
            name => name.to_owned(),
        }
    }

    fn cells(&self) -> [String; COLUMNS.len()] {
        let size = |bytes: Option<u64>| match bytes {
            None => String::new(),
            Some(bytes) if bytes >= 10 << 20 => format!("{} MiB", bytes >> 20),
            Some(bytes) if bytes >= 10 << 10 => format!("{} KiB", bytes >> 10),
            Some(bytes) => format!("{bytes} B"),
        };
        let seconds = |s: Option<f64>| s.map(|s| format!("{s:.2}")).unwrap_or_default();
        [
            self.label(),
            if self.api == "c" { format!("{}, C", self.backend) } else { self.backend.clone() },
            self.value.map(number).unwrap_or_default(),
            format!("{} {}", self.unit, if self.less_is_better { "-" } else { "+" }),
            self.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
            self.min.zip(self.max).map(|(min, max)| format!("{}..{}", number(min), number(max))).unwrap_or_default(),
            self.alone.map(number).unwrap_or_default(),
            self.of_alone.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
            self.p50_us.map(number).unwrap_or_default(),
            self.p99_us.map(number).unwrap_or_default(),
            seconds(self.cpu_client_s),
            seconds(self.cpu_server_s),
            size(self.rss_client),
            size(self.rss_server),
        ]
    }
}

const COLUMNS: [&str; 14] = [
    "scenario", "backend", "value", "unit", "ratio", "min..max", "alone", "of it", "p50 us", "p99 us", "cpu c",
    "cpu s", "rss c", "rss s",
];
/// The columns that hold words; numbers are set to the right.
const WORDS: [bool; 14] =
    [true, true, false, true, false, false, false, false, false, false, false, false, false, false];

const LEGEND: &str = "\
unit: + more is better, - less is better. ratio: how many times as good as the bare transport or library in the same round; \
above 1 is better
for every unit (throughput: value / bare; latency and memory: bare / value). alone: the value before the load came beside it; \
of it: how good the value is
beside that, above 1 is better. cpu, rss: seconds and memory of client and server.";

/// The rows for people.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut lines = vec![COLUMNS.map(str::to_owned)];
    lines.extend(rows.iter().map(Row::cells));
    let mut widths = [0; COLUMNS.len()];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.len().max(*width);
        }
    }
    let mut text = String::new();
    for (line, row) in lines.iter().zip([None].into_iter().chain(rows.iter().map(Some))) {
        let cells = line.iter().zip(widths).zip(WORDS).map(|((cell, width), word)| match word {
            true => format!("{cell:width$}"),
            false => format!("{cell:>width$}"),
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        if let Some(why) = row.and_then(|row| row.skipped.as_ref()) {
            text.push_str(&format!("  skipped: {why}"));
        }
        if let Some(why) = row.and_then(|row| row.error.as_ref()) {
            text.push_str(&format!("  FAILED: {why}"));
        }
        text.push('\n');
    }
    text.push_str(LEGEND);
    text
}

fn measured(outcome: &Outcome) -> Option<&Run> {
    match outcome {
        Outcome::Measured(run) => Some(run),
        _ => None,
    }
}

/// The median of the ratios of neighbouring runs, which saw the same noise.
fn ratio(unit: Unit, rounds: &[Outcome], base: &[Outcome]) -> Option<f64> {
    let pairs = rounds.iter().zip(base).filter_map(|(run, base)| Some((measured(run)?.value, measured(base)?.value)));
    median(pairs.map(|(value, base)| unit.ratio(value, base)).filter(|ratio| ratio.is_finite()).collect())
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len() % 2 == 1 { upper } else { (values[middle - 1] + upper) / 2.0 })
}

/// Three digits or more, no more decimals than that takes.
pub(super) fn number(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::backend::Bare;
    use super::*;

    pub(in super::super) fn run(value: f64) -> Outcome {
        Outcome::Measured(Box::new(Run {
            value,
            latency: None,
            alone: None,
            cpu_client_s: 0.0,
            cpu_server_s: 0.0,
            rss_client: 0.0,
            rss_server: 0.0,
            budget_client: 0.0,
            budget_server: 0.0,
        }))
    }

    #[test]
    fn a_ratio_is_the_median_of_paired_rounds() {
        let scenario = &Scenario::parse("bulk1").expect("known")[0];
        let backends = [Backend::Bare(Bare::Tcp), Backend::Mux("qmux".to_owned())];
        // The machine halves its speed in the last round; the pairs do not notice.
        let outcomes = [vec![run(100.0), run(100.0), run(50.0)], vec![run(90.0), run(90.0), run(45.0)]];
        let rows = Row::of(scenario, &backends, &outcomes);
        assert_eq!((rows[0].ratio, rows[1].ratio), (Some(1.0), Some(0.9)));
        assert_eq!((rows[1].value, rows[1].min, rows[1].max), (Some(90.0), Some(45.0), Some(90.0)));
    }

    #[test]
    fn a_run_that_is_missing_is_said_and_not_counted() {
        let scenario = &Scenario::parse("idle:5").expect("known")[0];
        let backends = [Backend::Bare(Bare::Tcp), Backend::Mux("qmux".to_owned())];
        let outcomes = [vec![Outcome::Skipped("no descriptors".to_owned())], vec![run(900.0)]];
        let rows = Row::of(scenario, &backends, &outcomes);
        assert_eq!((rows[0].runs, rows[0].value, rows[1].ratio), (0, None, None));
        let text = table(&rows);
        assert!(text.contains("no descriptors") && text.contains("900"), "{text}");
        let json = serde_json::to_string(&rows[0]).expect("serializes");
        assert!(json.contains(r#""value":null"#) && json.contains(r#""skipped":"no descriptors""#), "{json}");
    }

    #[test]
    fn a_median_of_an_even_number_lies_between() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }
}
