//! What the demo shows while it runs: on a terminal a table that is drawn over and over, with what happened
//! below it; elsewhere plain lines, and the table whenever a chapter ends.

use std::io::Write;
use std::time::{Duration, Instant};

use super::table;
use super::terminal::{Painter, Style, size};
use super::traffic::Traffic;

/// The output of the demo.
pub(super) struct Screen {
    /// Columns and rows, on a terminal that is large enough.
    size: Option<(usize, usize)>,
    painter: Painter,
    start: Instant,
    title: String,
    events: Vec<String>,
    /// Lines that the last drawing took.
    drawn: usize,
}

impl Screen {
    pub(super) fn new() -> Self {
        let size = size().filter(|(columns, rows)| *columns >= 80 && *rows >= 24);
        let colours = size.is_some() && std::env::var_os("NO_COLOR").is_none();
        Self {
            size,
            painter: Painter { colours },
            start: Instant::now(),
            title: String::new(),
            events: Vec::new(),
            drawn: 0,
        }
    }

    /// How it paints.
    pub(super) fn painter(&self) -> Painter {
        self.painter
    }

    /// What is shown at present.
    pub(super) fn title(&mut self, title: impl Into<String>) {
        self.title = title.into();
        if self.size.is_none() {
            println!("\n== {}", self.title);
        }
    }

    /// Something that happened, and how good that is.
    pub(super) fn event(&mut self, style: Style, text: &str) {
        let seconds = self.start.elapsed().as_secs_f32();
        let line = format!("  {seconds:>5.1} s  {}", self.painter.paint(style, text));
        match self.size {
            Some(_) => self.events.push(line),
            None => println!("{line}"),
        }
    }

    /// Shows the table as it is now. Does nothing without a terminal.
    pub(super) fn draw(&mut self, traffic: Option<&Traffic>) {
        let Some((columns, rows)) = self.size else {
            return;
        };
        let mut lines = vec![
            self.painter.paint(Style::Bold, &format!("  {}", self.title)),
            String::new(),
        ];
        if let Some(traffic) = traffic {
            lines.extend(table::lines(
                &traffic.paths,
                &traffic.counts(),
                self.painter,
                columns,
            ));
            lines.push(String::new());
        }
        // The latest events that fit; one row stays free for the cursor.
        let room = rows.saturating_sub(lines.len() + 2);
        lines.extend(
            self.events
                .iter()
                .skip(self.events.len().saturating_sub(room))
                .cloned(),
        );
        let up = if self.drawn > 0 {
            format!("\x1b[{}A", self.drawn)
        } else {
            String::new()
        };
        let body: String = lines.iter().map(|line| format!("\x1b[K{line}\n")).collect();
        // Cursor hidden, long lines cut instead of wrapped, drawing, whatever was below it erased.
        print!("\x1b[?25l\x1b[?7l{up}\r{body}\x1b[J");
        // A terminal that is gone shows nothing; the signal for that ends the demo.
        let _ = std::io::stdout().flush();
        self.drawn = lines.len();
    }

    /// Ends a chapter: without a terminal, the table is printed once.
    pub(super) fn chapter(&mut self, traffic: &Traffic) {
        if self.size.is_none() {
            for line in table::lines(&traffic.paths, &traffic.counts(), self.painter, table::WIDTH) {
                println!("{}", line.trim_end());
            }
        }
    }

    /// Gives the cursor and the wrapping of lines back; the last drawing stays.
    pub(super) fn close(&mut self) {
        if self.size.is_some() {
            print!("\x1b[?7h\x1b[?25h");
            let _ = std::io::stdout().flush();
        }
    }

    /// Time since the demo began.
    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.close();
    }
}
