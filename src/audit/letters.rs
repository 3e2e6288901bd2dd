//! The dead letters that the input gives against those that were published.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::compare::Findings;

/// Which record of the input a dead letter is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct LetterKey {
    /// The partition of the input topic.
    pub partition: i32,
    /// The offset there.
    pub offset: i64,
}

/// A dead letter with another reason than the record's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LetterDifference {
    /// Which record it is about.
    pub letter: LetterKey,
    /// Why the record was rejected.
    pub expected: String,
    /// What the dead letter says.
    pub actual: String,
}

/// What an audit found of the dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LetterReport {
    /// Records of the input that have to be among them.
    pub expected: u64,
    /// Dead letters that were published about any record.
    pub actual: u64,
    /// Rejected, but not published.
    pub missing: Findings<LetterKey>,
    /// Published again: one for each publication after the first.
    pub twice: Findings<LetterKey>,
    /// Published with another reason; each publication counts.
    pub different: Findings<LetterDifference>,
    /// Published, but about a record that was not rejected.
    pub unexpected: Findings<LetterKey>,
    /// Dead letters whose headers do not say which record they are about; where they stand.
    pub unreadable: Findings<String>,
}

impl LetterReport {
    /// That every rejected record was published once, for the right reason, and no other was.
    pub fn agrees(&self) -> bool {
        let LetterReport { missing, twice, different, unexpected, unreadable, .. } = self;
        missing.count + twice.count + different.count + unexpected.count + unreadable.count == 0
    }
}

/// Compares dead letters. The published ones, in whatever order, come first and are held in memory without their payload,
/// about 100 bytes each; then those that the input gives stream by.
#[derive(Debug)]
pub struct LetterComparison {
    examples_max: usize,
    /// Whether retention has deleted some: then only those after the first left of a partition have to be there.
    trimmed: bool,
    /// What is about an expected one is taken out.
    published: HashMap<LetterKey, Vec<String>>,
    first_left: BTreeMap<i32, i64>,
    report: LetterReport,
}

impl LetterComparison {
    /// Keeps at most `examples_max` examples of each finding. `trimmed` says that retention has deleted the first of the
    /// published ones.
    pub fn new(trimmed: bool, examples_max: usize) -> Self {
        let (published, first_left) = (HashMap::new(), BTreeMap::new());
        Self { examples_max, trimmed, published, first_left, report: LetterReport::default() }
    }

    /// Adds a published dead letter.
    pub fn actual(&mut self, letter: LetterKey, reason: String) {
        self.report.actual += 1;
        let first_left = self.first_left.entry(letter.partition).or_insert(letter.offset);
        *first_left = letter.offset.min(*first_left);
        let reasons = self.published.entry(letter).or_default();
        if !reasons.is_empty() {
            self.report.twice.add(self.examples_max, || letter);
        }
        reasons.push(reason);
    }

    /// Adds a published record that is no dead letter, by where it stands.
    pub fn unreadable(&mut self, place: String) {
        self.report.unreadable.add(self.examples_max, || place);
    }

    /// Looks for the dead letter of a rejected record among the published ones, which must have been added before. It need
    /// not be there unless `required`: its tick may not be committed yet.
    pub fn expected(&mut self, letter: LetterKey, reason: &str, required: bool) {
        let deleted = self.trimmed && self.first_left.get(&letter.partition).is_none_or(|first| letter.offset < *first);
        let required = required && !deleted;
        self.report.expected += u64::from(required);
        match self.published.remove(&letter) {
            Some(reasons) => {
                for actual in reasons.into_iter().filter(|actual| actual != reason) {
                    let expected = reason.to_owned();
                    let difference = || LetterDifference { letter, expected, actual };
                    self.report.different.add(self.examples_max, difference);
                }
            }
            None if required => self.report.missing.add(self.examples_max, || letter),
            None => {}
        }
    }

    /// The report, after all expected ones. `may_be` says which of the others are about records that were not looked at, or
    /// of which nothing is known; by record and reason.
    pub fn finish(mut self, may_be: impl Fn(LetterKey, &str) -> bool) -> LetterReport {
        let unexpected = self.published.iter().filter(|(letter, reasons)| !reasons.iter().all(|r| may_be(**letter, r)));
        let mut unexpected: Vec<LetterKey> = unexpected.map(|(letter, _)| *letter).collect();
        unexpected.sort_unstable();
        for letter in unexpected {
            self.report.unexpected.add(self.examples_max, || letter);
        }
        self.report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(partition: i32, offset: i64) -> LetterKey {
        LetterKey { partition, offset }
    }

    #[test]
    fn the_report_says_what_differs() {
        let mut comparison = LetterComparison::new(false, 1);
        for (offset, reason) in [(1, "late"), (2, "a"), (2, "a"), (3, "b"), (5, "late"), (9, "late")] {
            comparison.actual(letter(0, offset), reason.to_owned());
        }
        comparison.expected(letter(0, 1), "late", true);
        comparison.expected(letter(0, 2), "a", false);
        comparison.expected(letter(0, 3), "a", true);
        comparison.expected(letter(0, 4), "a", true);
        comparison.expected(letter(0, 6), "a", false);
        comparison.unreadable("there".to_owned());
        let report = comparison.finish(|letter, _| letter.offset >= 9);
        assert!(!report.agrees());
        let one = |example| Findings { count: 1, examples: vec![example] };
        let different = LetterDifference { letter: letter(0, 3), expected: "a".to_owned(), actual: "b".to_owned() };
        let expected = LetterReport {
            expected: 3,
            actual: 6,
            missing: one(letter(0, 4)),
            twice: one(letter(0, 2)),
            different: Findings { count: 1, examples: vec![different] },
            unexpected: one(letter(0, 5)),
            unreadable: Findings { count: 1, examples: vec!["there".to_owned()] },
        };
        assert_eq!(report, expected);
    }

    #[test]
    fn what_retention_deleted_is_not_missing() {
        let mut comparison = LetterComparison::new(true, 1);
        comparison.actual(letter(0, 5), "a".to_owned());
        comparison.expected(letter(0, 4), "a", true);
        comparison.expected(letter(0, 5), "a", true);
        comparison.expected(letter(1, 8), "a", true);
        let report = comparison.finish(|_, _| false);
        assert_eq!((report.agrees(), report.expected), (true, 1));
    }
}
