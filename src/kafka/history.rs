//! Reads the last windows of a job again, from the results that it has published.
//!
//! ```text
//!             oldest                                            the end of the partition
//! partition 0   ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ [ 2nd piece ][  1st piece ]
//! partition 1   ┄┄┄┄┄┄ [         3rd          ][2nd][1st]
//!                        ▲ each piece is twice as long as the one after it
//! ```
//!
//! A partition's results are in order of their windows, so what was read of it holds all of its results in windows after the
//! first one read, which may have been cut off. Windows are whole that are so in every partition; it is always the partition
//! whose window is latest that is read further back, until there are enough windows or rows. What is not of this job's
//! windows (another job may publish into the same topic) is passed over.

use std::collections::BTreeMap;
use std::time::Duration;

use clicktide_dataflows::event::PageAnalytics;
use clicktide_dataflows::time::{Tick, Windows};

use super::scan::{End, PartitionScan, Scan, ScanError, ScanRange, ScanRecord, ranges};
use crate::avro::wire::decode_result;

/// Which windows are read again.
#[derive(Clone, Debug)]
pub struct HistorySettings {
    /// The brokers to begin with: `host:port`, separated by commas.
    pub brokers: String,
    /// Further properties of librdkafka. May hold secrets.
    pub properties: BTreeMap<String, String>,
    /// The topic of the results.
    pub topic: String,
    /// The job's windows.
    pub windows: Windows,
    /// The last final window end.
    pub through: Tick,
    /// At most so many windows, the last ones.
    pub windows_max: usize,
    /// Reading ends after so many records, once there has been a piece of every partition.
    pub records_max: usize,
}

/// The results of one window, of every page that has one.
#[derive(Clone, Debug, PartialEq)]
pub struct PastWindow {
    /// Its end.
    pub end: Tick,
    /// Its results, in no particular order.
    pub pages: Vec<PageAnalytics>,
}

/// How long to go without an answer of the brokers.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait for a transaction that was open when reading began: longer than a dead producer's own stays so.
const WAIT: Duration = Duration::from_secs(60);
/// Offsets in the first piece of a partition, and in the longest.
const PIECE: (i64, i64) = (2_048, 65_536);

/// Reads the last windows that are final, oldest first. Waits for the brokers, so it wants a thread of its own.
///
/// Holds at most `records_max` results and a piece more, or a short piece of every partition, and 2 MiB that are fetched ahead.
///
/// # Errors
/// When the topic can't be read, or a transaction in it stays open for a minute.
pub fn read_history(settings: &HistorySettings) -> Result<Vec<PastWindow>, ScanError> {
    let HistorySettings { brokers, properties, topic, through, windows_max, records_max, .. } = settings;
    let scan = Scan { brokers, properties, topic, end: End::HighWatermark { wait: WAIT }, timeout: TIMEOUT };
    let mut tails: Vec<Tail> = ranges(&scan, &BTreeMap::new())?.into_iter().map(Tail::new).collect();
    let mut windows: BTreeMap<i64, Vec<PageAnalytics>> = BTreeMap::new();
    let mut records = 0;
    loop {
        let cut = tails.iter().map(|tail| tail.cut).max().unwrap_or(i64::MIN);
        let whole = windows.range(cut.saturating_add(1)..).count();
        let next = tails.iter_mut().filter(|tail| tail.from > tail.range.first).max_by_key(|tail| tail.cut);
        // At least one piece of every partition, or no window would be whole.
        let enough = whole >= *windows_max || (records >= *records_max && cut < i64::MAX);
        let next = next.filter(|tail| tail.cut == cut && !enough);
        let Some(tail) = next else {
            let ended = windows.into_iter().filter(|(end, _)| *end > cut && *end <= through.0);
            let mut found: Vec<_> = ended.map(|(end, pages)| PastWindow { end: Tick(end), pages }).collect();
            found.drain(..found.len().saturating_sub(*windows_max));
            return Ok(found);
        };
        records += tail.read_back(&scan, settings, &mut windows)?;
    }
}

/// How far back a partition has been read.
struct Tail {
    range: ScanRange,
    /// The first offset that was read.
    from: i64,
    /// How many offsets the next piece has.
    piece: i64,
    /// No result of a window that ends later than this is missing.
    cut: i64,
}

impl Tail {
    /// Nothing of it has been read. Of a partition that never had anything nothing is missing.
    fn new(range: ScanRange) -> Tail {
        let cut = if range.until == 0 { i64::MIN } else { i64::MAX };
        Tail { range, from: range.until, piece: PIECE.0, cut }
    }

    /// Reads the piece before what was read; returns how many records it had.
    fn read_back(
        &mut self,
        scan: &Scan<'_>,
        settings: &HistorySettings,
        windows: &mut BTreeMap<i64, Vec<PageAnalytics>>,
    ) -> Result<usize, ScanError> {
        let from = self.from.saturating_sub(self.piece).max(self.range.first);
        let mut reading = PartitionScan::new(scan, ScanRange { from, until: self.from, ..self.range }, 2 << 10)?;
        let mut records = 0;
        let mut first_end = None;
        while let Some(result) = reading.next(|record| settings.own_result(record))? {
            records += 1;
            let Some(result) = result else { continue };
            first_end = first_end.or(Some(result.window_end));
            windows.entry(result.window_end).or_default().push(result);
        }
        if from == 0 {
            // Nothing was ever before it.
            self.cut = i64::MIN;
        } else if let Some(first_end) = first_end {
            self.cut = first_end;
        }
        self.from = from;
        self.piece = (self.piece * 2).min(PIECE.1);
        Ok(records)
    }
}

impl HistorySettings {
    /// The result that a record holds, if it is one of this job's windows.
    fn own_result(&self, record: &ScanRecord<'_>) -> Option<PageAnalytics> {
        let result = decode_result(record.payload?).ok()?;
        let PageAnalytics { window_start, window_end, .. } = result;
        let own = window_end.checked_sub(window_start) == Some(self.windows.size_ms())
            && self.windows.tick_at_or_before(window_end) == Tick(window_end);
        own.then_some(result)
    }
}
