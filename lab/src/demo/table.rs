//! The table: a line for each way to the Service, a column for each pod.

use std::time::Instant;

use super::stage::PODS;
use super::terminal::{Painter, Style};
use super::traffic::{Counts, Path};

/// Columns that the table takes with bars.
pub(super) const WIDTH: usize = 100;
const BAR: usize = 4;

/// The table as lines; without bars if the terminal is narrow.
pub(super) fn lines(paths: &[Path], counts: &[Counts], painter: Painter, width: usize) -> Vec<String> {
    let bars = width >= WIDTH;
    let now = Instant::now();
    let mut head = format!("  {:<8}{:<14}{:<24}", "from", "to", "");
    for (number, (pod, _)) in PODS.iter().enumerate() {
        let name = if bars {
            (*pod).to_owned()
        } else {
            pod.replace("my-app-", "  #")
        };
        let cell = format!("{name:<width$}", width = cell_width(bars));
        head += &painter.paint(Style::Pod(number), &cell);
    }
    head += " failed";
    let mut nodes = format!("  {:<46}", "answers of the last second, in percent");
    for (_, node) in PODS {
        let name = if bars {
            format!("node-{node}")
        } else {
            format!(" n{node}")
        };
        nodes += &format!("{name:<width$}", width = cell_width(bars));
    }
    let mut lines = vec![
        painter.paint(Style::Bold, &head),
        painter.paint(Style::Dim, &nodes),
    ];
    let mut previous = "";
    for (path, counts) in paths.iter().zip(counts) {
        let from = if path.from == previous { "" } else { path.from };
        previous = path.from;
        let mut line = format!("  {from:<8}{:<14}{:<24}", path.kind, path.to.to_string());
        line += &cells(counts, now, painter, bars);
        line += &match counts.failed {
            0 => painter.paint(Style::Green, &format!("{:>7}", 0)),
            some => painter.paint(Style::Red, &format!("{some:>7}")),
        };
        lines.push(line);
    }
    lines
}

fn cell_width(bars: bool) -> usize {
    if bars { BAR + 5 } else { 5 }
}

fn cells(counts: &Counts, now: Instant, painter: Painter, bars: bool) -> String {
    let shares = counts.shares(now);
    let width = cell_width(bars);
    if shares.get(&None).is_some_and(|refused| *refused > 0.5) {
        let text = format!("{:<all$}", "refused (no endpoints)", all = width * PODS.len());
        return painter.paint(Style::Yellow, &text);
    }
    let mut line = String::new();
    for (number, (pod, _)) in PODS.iter().enumerate() {
        let share = shares.get(&Some(*pod)).copied().unwrap_or_default();
        let percent = format!("{:>3.0}%", share * 100.0);
        line += &match (share > 0.0, bars) {
            (false, _) => painter.paint(Style::Dim, &format!("{:<width$}", "·")),
            (true, true) => painter.paint(Style::Pod(number), &format!("{}{percent} ", bar(share))),
            (true, false) => painter.paint(Style::Pod(number), &format!("{percent:<width$}")),
        };
    }
    line
}

/// A bar of BAR characters for a share of 0 to 1, exact to an eighth of a character.
fn bar(share: f64) -> String {
    const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let mut bar = String::new();
    for index in 0..BAR {
        let fill = share * count(BAR) - count(index);
        let eighth = (1..8)
            .rev()
            .find(|&eighth| fill * 8.0 >= count(eighth))
            .unwrap_or(0);
        bar.push(if fill >= 1.0 { '█' } else { EIGHTHS[eighth] });
    }
    bar
}

/// A small number as a float.
fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}
