//! The terminal: whether there is one, how large it is, and the few escape sequences that are used.

use std::io::IsTerminal;

/// Columns and rows of the terminal on standard output; `None` when that is no terminal.
pub(super) fn size() -> Option<(usize, usize)> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    #[expect(unsafe_code, reason = "the size of a terminal is told by ioctl only")]
    // SAFETY: TIOCGWINSZ writes a winsize, which `size` is, and keeps no pointer to it.
    let result = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && size.ws_col > 0).then(|| (usize::from(size.ws_col), usize::from(size.ws_row)))
}

/// How text is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Bold,
    Dim,
    /// Good news.
    Green,
    /// Bad news.
    Red,
    /// What is expected, but neither good nor bad.
    Yellow,
    /// One of the pods.
    Pod(usize),
}

/// Text with style, where styles are wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Painter {
    pub(super) colours: bool,
}

impl Painter {
    pub(super) fn paint(self, style: Style, text: &str) -> String {
        const PODS: [&str; 5] = ["36", "35", "34", "32", "33"];
        let code = match style {
            Style::Plain => return text.to_owned(),
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Green => "32",
            Style::Red => "31;1",
            Style::Yellow => "33",
            Style::Pod(number) => PODS[number % PODS.len()],
        };
        if self.colours {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
