//! How far a long work has come, with an estimate: a line that is drawn again on a terminal, lines now and then otherwise.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::repeating::Repeating;
use super::status_line::{Voice, bytes, grouped, number, span};
use crate::exit::{Exit, Failure};
use crate::terminal::StatusLines;
use crate::work::Work;

/// What a work is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes of files.
    Bytes,
    /// Records of topics.
    Records,
}

/// A work that is over so soon is not talked about.
const SILENT: Duration = Duration::from_secs(2);
/// How often something is said where it can't be drawn.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// How often the line is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(500);
/// Over so many looks, which are five to ten seconds.
const SAMPLES: usize = 10;

/// Tells of a work from now until what is returned is dropped, on standard error: how far `work` has come, which is called `name`.
///
/// # Errors
/// When no thread can be started.
pub fn tell_progress(name: &'static str, work: Arc<Work>, unit: Unit, voice: Voice) -> Result<Repeating, Failure> {
    let mut pace = Pace::default();
    let mut teller = Teller::new(voice);
    let tell = move || {
        let (done, total) = (work.done(), work.total());
        pace.look(Instant::now(), done);
        teller.tell(|| text(name, done, total, pace.per_second(), unit));
    };
    Repeating::start("progress", DRAW_EVERY, tell).map_err(|e| Failure::new(Exit::Failure, e))
}

/// Tells on standard error, not too soon and not too often.
pub struct Teller {
    draws: bool,
    quiet: bool,
    began: Instant,
    said: Option<Instant>,
    drawn: Option<StatusLines>,
}

impl Teller {
    /// One that begins now. That JSON is asked for on standard output changes nothing here.
    pub fn new(voice: Voice) -> Self {
        let draws = Voice { json: false, ..voice }.draws();
        Teller { draws, quiet: voice.quiet, began: Instant::now(), said: None, drawn: None }
    }

    /// Draws the text, or says it when it is time to.
    pub fn tell(&mut self, text: impl FnOnce() -> String) {
        if self.quiet || self.began.elapsed() < SILENT {
            return;
        }
        if self.draws {
            self.drawn.get_or_insert_default().show(&[text()]);
        } else if self.said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
            self.said = Some(Instant::now());
            // Nobody is left to be told if that fails.
            std::io::stderr().write_all(format!("{}\n", text()).as_bytes()).ok();
        }
    }
}

/// How fast something rises, over the last so many looks at it.
#[derive(Default)]
pub struct Pace(VecDeque<(Instant, u64)>);

impl Pace {
    /// It has risen so far by now.
    pub fn look(&mut self, now: Instant, done: u64) {
        self.0.push_back((now, done));
        if self.0.len() > SAMPLES + 1 {
            self.0.pop_front();
        }
    }

    /// How much it rises in a second.
    pub fn per_second(&self) -> f64 {
        let (Some((first, from)), Some((last, to))) = (self.0.front(), self.0.back()) else { return 0.0 };
        let seconds = last.duration_since(*first).as_secs_f64();
        if seconds > 0.0 { to.saturating_sub(*from) as f64 / seconds } else { 0.0 }
    }
}

fn text(name: &str, done: u64, total: u64, per_second: f64, unit: Unit) -> String {
    // What grows while it is read may be more than there was.
    let done = done.min(total);
    let percent = if total == 0 { 0 } else { u128::from(done) * 100 / u128::from(total) };
    let (amounts, rate) = match unit {
        Unit::Bytes => (format!("{} of {}", bytes(done), bytes(total)), format!("{}/s", bytes(per_second as u64))),
        Unit::Records => {
            (format!("{} of {} records", grouped(done), grouped(total)), format!("{}/s", number(per_second)))
        }
    };
    let mut text = format!("{name} · {percent} % · {amounts} · {rate}");
    if per_second > 0.0 {
        text.push_str(&format!(" · {} left", span(((total - done) as f64 * 1_000.0 / per_second) as i64)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_work() {
        let check = |done, total, per_second, unit, expected: &str| {
            assert_eq!(text("replay", done, total, per_second, unit), expected);
        };
        check(
            1_250_000,
            5_000_000,
            250_000.0,
            Unit::Bytes,
            "replay · 25 % · 1.25 MB of 5.00 MB · 250.00 kB/s · 15 s left",
        );
        check(70, 1_000, 2.0, Unit::Records, "replay · 7 % · 70 of 1,000 records · 2.0/s · 7 min 45 s left");
        check(0, 0, 0.0, Unit::Records, "replay · 0 % · 0 of 0 records · 0/s");
        check(11, 10, 1.0, Unit::Records, "replay · 100 % · 10 of 10 records · 1.0/s · 0.0 s left");
    }

    #[test]
    fn the_pace_is_that_of_the_last_looks() {
        let mut pace = Pace::default();
        assert_eq!(pace.per_second(), 0.0);
        let begin = Instant::now();
        pace.look(begin, 0);
        assert_eq!(pace.per_second(), 0.0);
        for second in 1..=100 {
            pace.look(begin + Duration::from_secs(second), if second <= 50 { 0 } else { (second - 50) * 10 });
        }
        assert_eq!(pace.per_second(), 10.0);
    }
}
