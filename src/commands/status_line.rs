//! What `launch` and `demo` say of a running job: a line that is drawn again on a terminal, lines now and then otherwise.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::progress::Pace;
use crate::terminal::{self, StatusLines};

/// How a command says what it is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Voice {
    /// It does not, and says only what comes of it.
    pub quiet: bool,
    /// In JSON, on standard output.
    pub json: bool,
}

impl Voice {
    /// Whether lines are drawn on a terminal.
    pub fn draws(self) -> bool {
        !self.quiet && !self.json && terminal::can_redraw()
    }
}

/// What is shown of the document that `/v1/cluster` serves.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ClusterState {
    run: Option<String>,
    phase: String,
    watermark_ms: Option<i64>,
    watermark_lag_ms: Option<i64>,
    committed_window_end_ms: Option<i64>,
    events: u64,
    events_per_second: Option<f64>,
    late: u64,
    rejected_total: u64,
    lag_records: Option<i64>,
}

impl ClusterState {
    /// What the document says.
    ///
    /// # Errors
    /// When it is none.
    pub fn of(document: &str) -> serde_json::Result<Self> {
        serde_json::from_str(document)
    }

    /// One line, what matters most first: a narrow terminal shows only the beginning.
    pub fn text(&self) -> String {
        let mut parts = vec![self.phase.clone()];
        parts.extend(self.events_per_second.map(|rate| format!("{} events/s", number(rate))));
        parts.extend(self.watermark_ms.map(|watermark_ms| match self.watermark_lag_ms {
            Some(behind_ms) => format!("watermark {}, {} behind", time_of_day(watermark_ms), span(behind_ms)),
            None => format!("watermark {}", time_of_day(watermark_ms)),
        }));
        parts.extend(self.committed_window_end_ms.map(|end_ms| format!("last tick {}", time_of_day(end_ms))));
        if self.phase != "starting" {
            parts.extend(self.lag_records.map(|lag| format!("lag {}", grouped(lag.unsigned_abs()))));
            parts.push(format!("late {}", grouped(self.late)));
            parts.push(format!("rejected {}", grouped(self.rejected_total)));
        }
        parts.extend(self.run.clone());
        parts.join(" · ")
    }
}

/// Where a job's state is shown, whenever there is a newer one.
pub struct JobLine {
    voice: Voice,
    drawn: Option<StatusLines>,
    /// What was said last where nothing is drawn: when, and in which phase.
    said: Option<(Instant, String)>,
    /// The events, for their rate where the document does not say it: that is what the HTTP server counts, which may be off.
    pace: Pace,
}

/// Where nothing can be drawn, the state is said as often, and when the phase changes.
const SAY_EVERY: Duration = Duration::from_secs(10);

impl JobLine {
    /// Says that the job starts, where lines can be drawn.
    pub fn new(voice: Voice) -> Self {
        let drawn = voice.draws().then(StatusLines::default);
        if let Some(drawn) = &drawn {
            drawn.show(&["starting"]);
        }
        JobLine { voice, drawn, said: None, pace: Pace::default() }
    }

    /// Shows a document of `/v1/cluster`. Where lines are drawn, `below` fills those under the first.
    pub fn show(&mut self, document: &str, below: &[String]) {
        // What another version of the program says may not be understood; it is passed on all the same.
        let mut state = ClusterState::of(document).unwrap_or_default();
        self.pace.look(Instant::now(), state.events);
        state.events_per_second = state.events_per_second.or(Some(self.pace.per_second())).filter(|_| state.events > 0);
        if let Some(drawn) = &self.drawn {
            let lines: Vec<String> = std::iter::once(state.text()).chain(below.iter().cloned()).collect();
            drawn.show(&lines);
            return;
        }
        let due = |(at, phase): &(Instant, String)| at.elapsed() >= SAY_EVERY || *phase != state.phase;
        if self.voice.quiet || !self.said.as_ref().is_none_or(due) {
            return;
        }
        self.said = Some((Instant::now(), state.phase.clone()));
        let line = match serde_json::from_str::<&RawValue>(document) {
            Ok(document) if self.voice.json => document.get().to_owned(),
            _ => format!("{} {}", time_of_day(now_ms()), state.text()),
        };
        say(&line);
    }

    /// Says something between the states, such as that the job is started again.
    pub fn show_text(&mut self, text: &str) {
        if let Some(drawn) = &self.drawn {
            drawn.show(&[text]);
        }
    }
}

/// A line on standard output, where it may be that nobody listens any more.
pub fn say(line: &str) {
    use std::io::Write;
    terminal::above(|| std::io::stdout().write_all(format!("{line}\n").as_bytes())).ok();
}

/// A number of which nobody needs more than this: `0.5`, `12`, `1,234`.
pub fn number(value: f64) -> String {
    if value > 0.0 && value < 10.0 { format!("{value:.1}") } else { grouped(value.max(0.0).round() as u64) }
}

/// A number with its digits in groups of three: `1,234,567`.
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// So many bytes, in thousands: `1.50 MB`.
pub fn bytes(count: u64) -> String {
    let units = ["kB", "MB", "GB", "TB", "PB", "EB"];
    let thousands = (count.max(1).ilog10() / 3) as usize;
    match thousands.checked_sub(1) {
        None => format!("{count} B"),
        Some(unit) => format!("{:.2} {}", count as f64 / 1_000_f64.powi(thousands as i32), units[unit]),
    }
}

/// A length of time in the two units that matter: `0.8 s`, `31 s`, `2 min 5 s`, `3 h 2 min`, `4 d 1 h`.
pub fn span(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    let tenths = ms.unsigned_abs() / 100;
    let seconds = ms.unsigned_abs() / 1_000;
    let text = match seconds {
        0..10 => format!("{}.{} s", tenths / 10, tenths % 10),
        10..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    };
    format!("{sign}{text}")
}

/// A time of day in UTC: `18:30:00Z`.
pub fn time_of_day(ms: i64) -> String {
    let seconds = ms.div_euclid(1_000).rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_state() {
        let check = |document: &str, expected: &str| {
            assert_eq!(ClusterState::of(document).unwrap().text(), expected, "{document}");
        };
        check(r#"{"phase": "starting", "run": null, "lag_records": 0}"#, "starting");
        check(
            r#"{"job": "clicks", "run": "clicks-17", "phase": "running", "watermark_ms": 1764095400250, "watermark_lag_ms": 31500,
                "committed_window_end_ms": 1764095400000, "events": 5, "events_per_second": 12345.6, "late": 0,
                "rejected_total": 1200, "rejected": {"undecodable": 1200}, "lag_records": 71000, "partitions": [{"partition": 0}]}"#,
            "running · 12,346 events/s · watermark 18:30:00Z, 31 s behind · last tick 18:30:00Z · lag 71,000 · late 0 · \
             rejected 1,200 · clicks-17",
        );
        check(
            r#"{"phase": "replaying", "events_per_second": null, "watermark_ms": null}"#,
            "replaying · late 0 · rejected 0",
        );
        assert!(ClusterState::of("running").is_err());
    }

    #[test]
    fn spans_and_numbers_are_short() {
        let check = |ms: i64, expected: &str| assert_eq!(span(ms), expected);
        check(0, "0.0 s");
        check(850, "0.8 s");
        check(-9_999, "-9.9 s");
        check(59_999, "59 s");
        check(125_000, "2 min 5 s");
        check(3_600_000, "1 h 0 min");
        check(86_400_000 * 4 + 3_600_000, "4 d 1 h");
        let check = |value: f64, expected: &str| assert_eq!(number(value), expected);
        check(0.0, "0");
        check(0.54, "0.5");
        check(12.4, "12");
        check(1_234.5, "1,235");
        check(f64::NAN, "0");
        let check =
            |count: u64, number: &str, size: &str| assert_eq!((&*grouped(count), &*bytes(count)), (number, size));
        check(0, "0", "0 B");
        check(999, "999", "999 B");
        check(1_000, "1,000", "1.00 kB");
        check(1_234_567, "1,234,567", "1.23 MB");
        check(u64::MAX, "18,446,744,073,709,551,615", "18.45 EB");
        assert_eq!(time_of_day(-1), "23:59:59Z");
    }
}
