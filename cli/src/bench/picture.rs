//! The ratios as a picture: a page of HTML with one drawing, no scripts, nothing loaded from elsewhere.

use std::fmt::Write as _;

use super::report::{Row, number};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 230.0;
const RIGHT: f64 = 250.0;
const LINE: f64 = 22.0;

/// The page; bars reach from 1, as good as bare, to the ratio, on a logarithmic scale.
pub(super) fn page(rows: &[Row]) -> String {
    let compared: Vec<(&Row, f64)> = rows
        .iter()
        .filter(|row| row.api == "c" || row.baseline.as_deref() != Some(row.backend.as_str()))
        .filter_map(|row| Some((row, row.ratio.filter(|ratio| *ratio > 0.0)?)))
        .collect();
    let most = compared.iter().map(|(_, ratio)| ratio.ln().abs()).fold(2_f64.ln(), f64::max);
    let middle = LEFT + (WIDTH - LEFT - RIGHT) / 2.0;
    let x = |ratio: f64| middle + ratio.ln() / most * (WIDTH - LEFT - RIGHT) / 2.0;
    let mut body = String::new();
    let mut top = 30.0;
    let mut last = "";
    for (row, ratio) in &compared {
        if row.scenario != last && !last.is_empty() {
            top += LINE / 2.0;
        }
        last = row.scenario;
        let (from, to) = (x(1.0).min(x(*ratio)), x(1.0).max(x(*ratio)));
        let color = if *ratio >= 1.0 { "#2a9d5c" } else { "#d08a2e" };
        let base = top + LINE * 0.7;
        let bare = row.baseline.as_deref().unwrap_or_default();
        let less = if row.less_is_better { ", less is better" } else { "" };
        let value = row.value.map(number).unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(
            body,
            "<g><title>{name} {backend}: {value} {unit}{less}; {ratio:.2} times as good as {bare}</title>\
             <text x='{label:.0}' y='{base:.0}' text-anchor='end'>{name} {backend}</text>\
             <rect x='{from:.1}' y='{top:.0}' width='{width:.1}' height='{height:.0}' fill='{color}'/>\
             <text x='{beside:.0}' y='{base:.0}'>{ratio:.2}  ({value} {unit})</text></g>",
            name = row.label(),
            backend = row.backend,
            unit = row.unit,
            label = LEFT - 10.0,
            width = (to - from).max(1.0),
            height = LINE - 6.0,
            beside = WIDTH - RIGHT + 10.0,
        );
        top += LINE;
    }
    let one = x(1.0);
    format!(
        "<!DOCTYPE html>\n<html lang='en'><meta charset='utf-8'><title>mux bench</title>\n\
         <body style='font-family: sans-serif; max-width: {WIDTH}px; margin: 2em auto'>\n<h1>mux bench</h1>\n\
         <p>How many times as good as the bare transport or library that it rides on, in the same round: right of the line \
         is better, for latency and memory too. The scale is logarithmic.</p>\n\
         <svg viewBox='0 0 {WIDTH} {height:.0}' font-size='13'>\n\
         <line x1='{one:.1}' x2='{one:.1}' y1='18' y2='{height:.0}' stroke='#888'/>\n\
         <text x='{one:.1}' y='14' text-anchor='middle'>1 = bare</text>\n{body}</svg>\n</body></html>\n",
        height = top + LINE,
    )
}

#[cfg(test)]
mod tests {
    use super::super::backend::Backend;
    use super::super::report::tests::run;
    use super::super::scenario::Scenario;
    use super::*;

    #[test]
    fn every_ratio_has_a_bar_and_bare_has_none() {
        let scenario = &Scenario::parse("bulk1").expect("known")[0];
        let backends = ["tcp", "qmux"].map(|name| Backend::parse(name).expect("known"));
        let rows = Row::of(scenario, &backends, &[vec![run(100.0)], vec![run(50.0)]]);
        let page = page(&rows);
        assert_eq!(page.matches("<rect").count(), 1);
        assert!(page.contains("bulk1 qmux: 50.0 MiB/s; 0.50 times as good as tcp"), "{page}");
    }
}
