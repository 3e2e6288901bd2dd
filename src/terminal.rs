//! A terminal's last lines: what a command is doing, drawn again in place, with log lines above it.
//!
//! They are drawn on standard error, where the log goes too. Whoever writes there, or on standard output while something is shown,
//! does so in [`above`], so that the two do not garble each other. The cursor stays at the end of the last of them, so that the `^C` that
//! somebody types is on that line, and goes with it.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use console::{Term, truncate_str};

/// What is drawn now, one text for each line.
static DRAWN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Whether standard error is a terminal on which lines can be drawn again.
pub fn can_redraw() -> bool {
    io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}

/// Lines at the bottom of the terminal, gone when dropped. What is wider than the terminal is cut.
#[derive(Default)]
pub struct StatusLines(());

impl StatusLines {
    /// Draws these lines in place of those before.
    pub fn show<T: AsRef<str>>(&self, texts: &[T]) {
        let (_, columns) = Term::stderr().size();
        let texts: Vec<String> = texts.iter().map(|text| cut(text.as_ref(), columns.into())).collect();
        let mut drawn = drawn();
        write(&(erase(&drawn) + &draw(&texts)));
        *drawn = texts;
    }
}

impl Drop for StatusLines {
    fn drop(&mut self) {
        clear();
    }
}

/// Takes away what is drawn, for good.
pub fn clear() {
    let mut drawn = drawn();
    write(&erase(&drawn));
    drawn.clear();
}

/// Writes above what is drawn, if anything is. `write` must write whole lines.
pub fn above<T>(write_lines: impl FnOnce() -> T) -> T {
    let drawn = drawn();
    write(&erase(&drawn));
    let written = write_lines();
    write(&draw(&drawn));
    written
}

fn drawn() -> MutexGuard<'static, Vec<String>> {
    DRAWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// At once, so that nothing is seen half done. A terminal that is gone shows nothing any more.
fn write(text: &str) {
    if !text.is_empty() {
        io::stderr().write_all(text.as_bytes()).ok();
    }
}

/// Erases what is drawn, from the last line up; the cursor is where the first began.
fn erase(drawn: &[String]) -> String {
    const ERASE_LINE: &str = "\r\x1b[2K";
    const UP: &str = "\x1b[1A";
    drawn
        .iter()
        .enumerate()
        .map(|(line, _)| if line == 0 { ERASE_LINE.into() } else { format!("{UP}{ERASE_LINE}") })
        .collect()
}

fn draw(texts: &[String]) -> String {
    texts.join("\r\n")
}

/// What is shown of a text on a terminal with so many columns. Two are left for `^C`.
fn cut(text: &str, columns: usize) -> String {
    truncate_str(text, columns.saturating_sub(2), "…").into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_is_erased_from_below() {
        let lines = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(erase(&[]) + &draw(&[]), "");
        assert_eq!(draw(&lines(&["one", "two"])), "one\r\ntwo");
        assert_eq!(erase(&lines(&["one"])), "\r\x1b[2K");
        assert_eq!(erase(&lines(&["one", "two"])), "\r\x1b[2K\x1b[1A\r\x1b[2K");
    }

    #[test]
    fn what_is_wider_than_the_terminal_is_cut() {
        let check = |text: &str, columns: usize, expected: &str| assert_eq!(cut(text, columns), expected, "{columns}");
        check("running · 5", 20, "running · 5");
        check("running · 5", 13, "running · 5");
        check("running · 5", 12, "running ·…");
        check("ページ · 5", 8, "ペー…");
        check("running", 0, "…");
    }
}
