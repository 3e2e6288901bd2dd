//! Expected results against actual ones.

use std::collections::HashMap;
use std::fmt::Display;
use std::ops::RangeInclusive;

use clicktide_dataflows::event::PageAnalytics;
use serde::Serialize;

/// How far apart means may be, beside the rounding of numbers too large for it.
const MEAN_TOLERANCE: f64 = 1e-9;

/// Which result.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ResultKey {
    /// The end of its window, ms since the epoch.
    pub window_end: i64,
    /// Its page.
    pub page_url: String,
}

/// A field of a result that is not as expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldDifference {
    /// The field.
    pub field: &'static str,
    /// What was computed from the input.
    pub expected: String,
    /// What was published.
    pub actual: String,
}

/// A result that is not as expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Which result.
    pub result: ResultKey,
    /// Every field that differs.
    pub fields: Vec<FieldDifference>,
}

/// How often something was found, and the first few of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Findings<T> {
    /// How many there are.
    pub count: u64,
    /// Some of them: no more than were asked for.
    pub examples: Vec<T>,
}

impl<T> Default for Findings<T> {
    fn default() -> Self {
        Self { count: 0, examples: Vec::new() }
    }
}

impl<T> Findings<T> {
    pub(super) fn add(&mut self, examples_max: usize, example: impl FnOnce() -> T) {
        self.count += 1;
        if self.examples.len() < examples_max {
            self.examples.push(example());
        }
    }
}

/// What an audit found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Results that the input gives.
    pub expected: u64,
    /// Results that were published.
    pub actual: u64,
    /// Expected, but not published.
    pub missing: Findings<ResultKey>,
    /// Published again: one for each publication after the first.
    pub twice: Findings<ResultKey>,
    /// Published with other values; each publication counts.
    pub different: Findings<Difference>,
    /// Published, but not expected; however often, once.
    pub unexpected: Findings<ResultKey>,
}

impl Report {
    /// That every expected result was published once, with the expected values, and no other was.
    pub fn agrees(&self) -> bool {
        self.missing.count == 0 && self.twice.count == 0 && self.different.count == 0 && self.unexpected.count == 0
    }
}

/// Compares results. The actual ones, in whatever order, come first and are held in memory, about 200 bytes each; then the
/// expected ones stream by.
///
/// ```
/// # use clicktide::audit::Comparison;
/// # use clicktide_dataflows::event::PageAnalytics;
/// # let result = PageAnalytics {
/// #     page_url: "/".into(), window_start: 0, window_end: 10, view_count: 1, unique_users: 1, click_count: 0,
/// #     conversion_count: 0, engagement_rate: 0.0, bounce_rate: 1.0, avg_session_duration: 0.0,
/// # };
/// let mut comparison = Comparison::new(i64::MIN..=i64::MAX, 10);
/// comparison.actual(result.clone());
/// comparison.actual(result.clone());
/// comparison.expected(&result);
/// let report = comparison.finish();
/// assert_eq!((report.twice.count, report.missing.count), (1, 0));
/// ```
#[derive(Debug)]
pub struct Comparison {
    window_ends: RangeInclusive<i64>,
    examples_max: usize,
    /// By page and window end; what was expected is taken out.
    published: HashMap<String, HashMap<i64, Published>>,
    report: Report,
}

/// The publications of one result, without their page.
#[derive(Debug)]
struct Published {
    first: PageAnalytics,
    again: Vec<PageAnalytics>,
}

impl Comparison {
    /// Compares results whose window ends lie in `window_ends`, and disregards others. Keeps at most `examples_max`
    /// examples of each finding.
    pub fn new(window_ends: RangeInclusive<i64>, examples_max: usize) -> Self {
        Self { window_ends, examples_max, published: HashMap::new(), report: Report::default() }
    }

    /// Adds a published result.
    pub fn actual(&mut self, mut result: PageAnalytics) {
        if !self.window_ends.contains(&result.window_end) {
            return;
        }
        self.report.actual += 1;
        let (window_end, page_url) = (result.window_end, std::mem::take(&mut result.page_url));
        if let Some(published) = self.published.get_mut(&page_url).and_then(|page| page.get_mut(&window_end)) {
            published.again.push(result);
            self.report.twice.add(self.examples_max, || ResultKey { window_end, page_url });
        } else {
            let published = Published { first: result, again: Vec::new() };
            self.published.entry(page_url).or_default().insert(window_end, published);
        }
    }

    /// Looks for an expected result among all actual ones, which must have been added before.
    pub fn expected(&mut self, expected: &PageAnalytics) {
        if !self.window_ends.contains(&expected.window_end) {
            return;
        }
        self.report.expected += 1;
        let result = || ResultKey { window_end: expected.window_end, page_url: expected.page_url.clone() };
        let page = self.published.get_mut(&expected.page_url);
        let Some(published) = page.and_then(|page| page.remove(&expected.window_end)) else {
            self.report.missing.add(self.examples_max, result);
            return;
        };
        for actual in std::iter::once(&published.first).chain(&published.again) {
            let fields = differing_fields(expected, actual);
            if !fields.is_empty() {
                self.report.different.add(self.examples_max, || Difference { result: result(), fields });
            }
        }
    }

    /// The report, after all expected results.
    pub fn finish(mut self) -> Report {
        let unexpected = self.published.iter().flat_map(|(page, ends)| ends.keys().map(move |end| (*end, page)));
        let mut unexpected: Vec<_> = unexpected.collect();
        unexpected.sort_unstable();
        for (window_end, page_url) in unexpected {
            let result = || ResultKey { window_end, page_url: page_url.clone() };
            self.report.unexpected.add(self.examples_max, result);
        }
        self.report
    }
}

/// The fields besides page and window end that are not equal: exactly, but means to within [`MEAN_TOLERANCE`].
fn differing_fields(expected: &PageAnalytics, actual: &PageAnalytics) -> Vec<FieldDifference> {
    fn exact<T: PartialEq + Display>(field: &'static str, expected: T, actual: T) -> Option<FieldDifference> {
        difference(expected == actual, field, expected, actual)
    }
    fn mean(field: &'static str, expected: f64, actual: f64) -> Option<FieldDifference> {
        let tolerance = MEAN_TOLERANCE.max(4.0 * f64::EPSILON * expected.abs());
        difference((expected - actual).abs() <= tolerance, field, expected, actual)
    }
    fn difference<T: Display>(equal: bool, field: &'static str, expected: T, actual: T) -> Option<FieldDifference> {
        (!equal).then(|| FieldDifference { field, expected: expected.to_string(), actual: actual.to_string() })
    }
    [
        exact("window_start", expected.window_start, actual.window_start),
        exact("view_count", expected.view_count, actual.view_count),
        exact("unique_users", i64::from(expected.unique_users), i64::from(actual.unique_users)),
        exact("click_count", expected.click_count, actual.click_count),
        exact("conversion_count", expected.conversion_count, actual.conversion_count),
        mean("engagement_rate", expected.engagement_rate, actual.engagement_rate),
        mean("bounce_rate", expected.bounce_rate, actual.bounce_rate),
        mean("avg_session_duration", expected.avg_session_duration, actual.avg_session_duration),
    ]
    .into_iter()
    .flatten()
    .collect()
}
