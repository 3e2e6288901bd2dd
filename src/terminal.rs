//! A terminal's last lines: what a command is doing, drawn again in place, with log lines above it.
//!
//! It is drawn on standard error, where the log goes too. Whoever writes there, or on standard output while something is shown,
//! does so in [`above`], so that the two do not garble each other.

use std::sync::{Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What is drawn now.
static SHOWN: Mutex<Option<MultiProgress>> = Mutex::new(None);

/// Whether standard error is a terminal on which lines can be drawn again.
pub fn can_redraw() -> bool {
    !ProgressDrawTarget::stderr().is_hidden()
}

/// Lines at the bottom of the terminal, gone when dropped. What is wider than the terminal is cut.
pub struct StatusLines {
    lines: Vec<ProgressBar>,
}

impl StatusLines {
    /// So many lines, empty at first; they take the place of those that were shown before.
    pub fn new(count: usize) -> Self {
        // The template is right: there is a test.
        let style = ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
        let drawn = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let line = |_| drawn.add(ProgressBar::no_length().with_style(style.clone()));
        let lines = (0..count).map(line).collect();
        if let Some(before) = SHOWN.lock().unwrap_or_else(PoisonError::into_inner).replace(drawn) {
            before.clear().ok();
        }
        StatusLines { lines }
    }

    /// Draws the lines again.
    pub fn show<T: AsRef<str>>(&self, texts: &[T]) {
        for (line, text) in self.lines.iter().zip(texts) {
            line.set_message(text.as_ref().to_owned());
            line.tick();
        }
    }
}

impl Drop for StatusLines {
    fn drop(&mut self) {
        clear();
    }
}

/// Takes away what is drawn, for good.
pub fn clear() {
    let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(shown) = shown {
        // A terminal that is gone shows nothing any more.
        shown.clear().ok();
    }
}

/// Writes above what is drawn, if anything is.
pub fn above<T>(write: impl FnOnce() -> T) -> T {
    let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match shown {
        Some(shown) => shown.suspend(write),
        None => write(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_right() {
        assert!(ProgressStyle::with_template("{wide_msg}").is_ok());
    }

    #[test]
    fn writing_above_works_with_and_without_lines() {
        assert_eq!(above(|| 1), 1);
        let lines = StatusLines::new(2);
        lines.show(&["one", "two"]);
        assert_eq!(above(|| 2), 2);
        drop(lines);
        assert_eq!(above(|| 3), 3);
    }
}
