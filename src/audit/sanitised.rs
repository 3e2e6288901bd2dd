//! The sanitised events that the input gives against those that were published.

use std::collections::HashMap;

use serde::Serialize;

use super::compare::Findings;
use super::letters::LetterKey;

/// What an audit found of the sanitised events.
///
/// None of them says which record it was, so they are compared by what they hold. What was published about records that were
/// not looked at is not told from what should not be there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SanitisedReport {
    /// Valid events of the input that have to be among them.
    pub expected: u64,
    /// Sanitised events that were published.
    pub actual: u64,
    /// Not published; the records that they would have been.
    pub missing: Findings<LetterKey>,
    /// Published more often than they are in the input.
    pub twice: u64,
}

impl SanitisedReport {
    /// That every valid event was published once.
    pub fn agrees(&self) -> bool {
        self.missing.count + self.twice == 0
    }
}

/// Compares sanitised events. The published ones, in whatever order, come first and are held in memory as hashes, about 24 bytes
/// each; then those that the input gives stream by.
#[derive(Debug)]
pub struct SanitisedComparison {
    examples_max: usize,
    /// Whether retention has deleted some: then none is missed.
    trimmed: bool,
    /// By a hash of key and value.
    published: HashMap<u64, Published>,
    report: SanitisedReport,
}

/// Published events that hold the same.
#[derive(Clone, Copy, Debug, Default)]
struct Published {
    /// How many were not expected yet.
    left: u32,
    /// How many stand for records whose events need not be there: one that has to be takes their place.
    lent: u32,
    /// Whether any was expected.
    known: bool,
}

impl SanitisedComparison {
    /// Keeps at most `examples_max` examples of what is missing. `trimmed` says that retention has deleted the first of the
    /// published ones.
    pub fn new(trimmed: bool, examples_max: usize) -> Self {
        Self { examples_max, trimmed, published: HashMap::new(), report: SanitisedReport::default() }
    }

    /// What stands for an event with this key and value.
    pub fn hash(key: &[u8], value: &[u8]) -> u64 {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        // The keys of all events have the same length.
        hasher.update(key);
        hasher.update(value);
        hasher.digest()
    }

    /// Adds a published event.
    pub fn actual(&mut self, hash: u64) {
        self.report.actual += 1;
        self.published.entry(hash).or_default().left += 1;
    }

    /// Looks for the event of a record among the published ones, which must have been added before. It need not be there unless
    /// `required`: its tick may not be committed yet.
    pub fn expected(&mut self, record: LetterKey, hash: u64, required: bool) {
        let required = required && !self.trimmed;
        self.report.expected += u64::from(required);
        if let Some(Published { left, lent, known }) = self.published.get_mut(&hash) {
            *known = true;
            if *left > 0 {
                *left -= 1;
                *lent += u32::from(!required);
                return;
            }
            if required && *lent > 0 {
                *lent -= 1;
                return;
            }
        }
        if required {
            self.report.missing.add(self.examples_max, || record);
        }
    }

    /// The report, after all expected ones.
    pub fn finish(mut self) -> SanitisedReport {
        let known = self.published.values().filter(|published| published.known);
        self.report.twice = known.map(|published| u64::from(published.left)).sum();
        self.report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_need_not_be_there_takes_nobodys_place() {
        let record = |offset| LetterKey { partition: 0, offset };
        let mut comparison = SanitisedComparison::new(false, 1);
        comparison.actual(7);
        // Of two events that hold the same, another job has published the first under another key.
        comparison.expected(record(1), 7, false);
        comparison.expected(record(2), 7, true);
        let expected = SanitisedReport { expected: 1, actual: 1, ..SanitisedReport::default() };
        assert_eq!(comparison.finish(), expected);
    }

    #[test]
    fn the_report_says_what_differs() {
        let record = |offset| LetterKey { partition: 0, offset };
        let compare = |trimmed| {
            let mut comparison = SanitisedComparison::new(trimmed, 1);
            [1, 2, 2, 3, 9].into_iter().for_each(|hash| comparison.actual(hash));
            comparison.expected(record(1), 1, true);
            comparison.expected(record(2), 2, true);
            comparison.expected(record(3), 3, false);
            comparison.expected(record(4), 3, false);
            comparison.expected(record(5), 1, true);
            comparison.expected(record(6), 4, true);
            comparison.expected(record(7), 4, false);
            comparison.finish()
        };
        let missing = Findings { count: 2, examples: vec![record(5)] };
        let expected = SanitisedReport { expected: 4, actual: 5, missing, twice: 1 };
        assert_eq!(compare(false), expected);
        assert!(!expected.agrees());
        let trimmed = SanitisedReport { expected: 0, missing: Findings::default(), ..expected };
        assert_eq!(compare(true), trimmed);
        assert_ne!(SanitisedComparison::hash(b"k", b"v"), SanitisedComparison::hash(b"k", b"w"));
    }
}
