//! What an audit of a job says.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use super::compare::{Difference, Findings, Report, ResultKey};
use super::expect::Totals;
use super::letters::{LetterDifference, LetterKey, LetterReport};
use super::sanitised::SanitisedReport;
use crate::progress::JobState;

/// What an audit of a job found: printed for people, and [`Serialize`] for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    /// The job's name.
    pub job: String,
    /// How often it was started.
    pub generation: i64,
    /// Whether it goes on.
    pub state: JobState,
    /// The last final window end, ms since the epoch; none before the first.
    pub committed_through: Option<i64>,
    /// The first window end that was compared, ms; none for the first there is.
    pub compared_from: Option<i64>,
    /// The last window end that was compared, ms; none for the last there is.
    pub compared_through: Option<i64>,
    /// Windows that have results.
    pub windows: u64,
    /// What became of the records that were read, those of windows that were not compared too; none where none were read, since
    /// the expected results were given.
    pub input: Option<Totals>,
    /// What was found of the results.
    pub results: Report,
    /// What was found of the dead letters, if the job has a topic for them.
    pub dead_letters: Option<LetterReport>,
    /// What was found of the sanitised events, if the job has a topic for them.
    pub sanitised_events: Option<SanitisedReport>,
    /// What was not compared, and why.
    pub notes: Vec<String>,
}

impl AuditReport {
    /// That everything that was compared is as it has to be.
    pub fn agrees(&self) -> bool {
        self.results.agrees()
            && self.dead_letters.as_ref().is_none_or(LetterReport::agrees)
            && self.sanitised_events.as_ref().is_none_or(SanitisedReport::agrees)
    }
}

impl fmt::Display for AuditReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AuditReport { job, generation, state, input, results, .. } = self;
        let state = match state {
            JobState::Running => "running",
            JobState::Finished => "finished",
        };
        let through = self.committed_through.map_or("none yet".to_owned(), |end| format!("up to {}", Time(end)));
        writeln!(f, "job {job:?}, generation {generation}, {state}; final windows: {through}")?;
        if let Some(Totals { counted, late, duplicates, rejected, .. }) = input {
            let duplicates = if *duplicates > 0 { format!(", {duplicates} duplicates") } else { String::new() };
            writeln!(f, "input: {counted} events counted, {late} late, {rejected} rejected{duplicates}")?;
        }
        writeln!(f, "results: {} expected, {} published", results.expected, results.actual)?;
        show(f, "missing", &results.missing, result)?;
        show(f, "twice", &results.twice, result)?;
        show(f, "different", &results.different, different)?;
        show(f, "unexpected", &results.unexpected, result)?;
        if let Some(letters) = &self.dead_letters {
            writeln!(f, "dead letters: {} expected, {} published", letters.expected, letters.actual)?;
            show(f, "missing", &letters.missing, letter)?;
            show(f, "twice", &letters.twice, letter)?;
            show(f, "different", &letters.different, different_letter)?;
            show(f, "unexpected", &letters.unexpected, letter)?;
            show(f, "unreadable", &letters.unreadable, String::clone)?;
        }
        if let Some(sanitised) = &self.sanitised_events {
            writeln!(f, "sanitised events: {} expected, {} published", sanitised.expected, sanitised.actual)?;
            show(f, "missing", &sanitised.missing, letter)?;
            if sanitised.twice > 0 {
                writeln!(f, "  twice: {}", sanitised.twice)?;
            }
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        if self.agrees() {
            return write!(f, "audit: {} windows, {} results agree", self.windows, results.expected);
        }
        let mut counts = vec![
            (results.missing.count, "missing"),
            (results.twice.count, "twice"),
            (results.different.count, "different"),
            (results.unexpected.count, "unexpected"),
        ];
        if let Some(letters) = &self.dead_letters {
            counts.extend([
                (letters.missing.count, "dead letters missing"),
                (letters.twice.count, "dead letters twice"),
                (letters.different.count, "dead letters different"),
                (letters.unexpected.count, "dead letters unexpected"),
                (letters.unreadable.count, "dead letters unreadable"),
            ]);
        }
        if let Some(sanitised) = &self.sanitised_events {
            counts.extend([
                (sanitised.missing.count, "sanitised events missing"),
                (sanitised.twice, "sanitised events twice"),
            ]);
        }
        let counts = counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        write!(f, "audit: DIFFERENT: {}", counts.collect::<Vec<_>>().join(", "))
    }
}

fn show<T>(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    findings: &Findings<T>,
    describe: impl Fn(&T) -> String,
) -> fmt::Result {
    if findings.count == 0 {
        return Ok(());
    }
    writeln!(f, "  {what}: {}", findings.count)?;
    for example in &findings.examples {
        writeln!(f, "    {}", describe(example))?;
    }
    match findings.count - findings.examples.len() as u64 {
        0 => Ok(()),
        more => writeln!(f, "    and {more} more"),
    }
}

fn result(key: &ResultKey) -> String {
    format!("the window to {} of {}", Time(key.window_end), key.page_url)
}

fn different(difference: &Difference) -> String {
    let fields = difference.fields.iter().map(|field| {
        let (field, expected, actual) = (field.field, &field.expected, &field.actual);
        format!("{field} is {actual}, not {expected}")
    });
    format!("{}: {}", result(&difference.result), fields.collect::<Vec<_>>().join("; "))
}

fn letter(key: &LetterKey) -> String {
    format!("partition {}, offset {}", key.partition, key.offset)
}

fn different_letter(difference: &LetterDifference) -> String {
    format!("{}: the reason is {}, not {}", letter(&difference.letter), difference.actual, difference.expected)
}

/// A time for people, with the number for programs beside it.
pub(crate) struct Time(pub i64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Year 10000, which the format does not know.
        const END_MS: u64 = 253_402_300_800_000;
        match u64::try_from(self.0) {
            Ok(ms) if ms < END_MS => {
                let time = humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms));
                write!(f, "{time} ({ms})")
            }
            _ => write!(f, "{} ms", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says() {
        let key = ResultKey { window_end: 1_700_000_000_000, page_url: "/a".to_owned() };
        let mut report = AuditReport {
            job: "j".to_owned(),
            generation: 2,
            state: JobState::Running,
            committed_through: Some(1_700_000_000_000),
            compared_from: None,
            compared_through: Some(1_700_000_000_000),
            windows: 3,
            input: Some(Totals { counted: 10, late: 1, duplicates: 3, rejected: 2, results: 7 }),
            results: Report { expected: 7, actual: 7, ..Report::default() },
            dead_letters: Some(LetterReport { expected: 2, actual: 2, ..LetterReport::default() }),
            sanitised_events: Some(SanitisedReport { expected: 11, actual: 12, ..SanitisedReport::default() }),
            notes: vec!["something".to_owned()],
        };
        let agrees = "\
job \"j\", generation 2, running; final windows: up to 2023-11-14T22:13:20.000Z (1700000000000)
input: 10 events counted, 1 late, 2 rejected, 3 duplicates
results: 7 expected, 7 published
dead letters: 2 expected, 2 published
sanitised events: 11 expected, 12 published
note: something
audit: 3 windows, 7 results agree";
        assert_eq!(report.to_string(), agrees);
        report.results.missing = Findings { count: 3, examples: vec![key] };
        report.sanitised_events.iter_mut().for_each(|sanitised| sanitised.twice = 4);
        let different = "\
job \"j\", generation 2, running; final windows: up to 2023-11-14T22:13:20.000Z (1700000000000)
input: 10 events counted, 1 late, 2 rejected, 3 duplicates
results: 7 expected, 7 published
  missing: 3
    the window to 2023-11-14T22:13:20.000Z (1700000000000) of /a
    and 2 more
dead letters: 2 expected, 2 published
sanitised events: 11 expected, 12 published
  twice: 4
note: something
audit: DIFFERENT: 3 missing, 4 sanitised events twice";
        assert_eq!(report.to_string(), different);
        assert_eq!(Time(i64::MAX).to_string(), "9223372036854775807 ms");
        assert_eq!(Time(-1).to_string(), "-1 ms");
    }
}
