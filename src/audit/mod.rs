//! The results recomputed from the input, by code that shares nothing with the dataflows, and compared with what was
//! published.
//!
//! ```text
//! partition 0 ─┐ one event at a time, until no partition      every window from scratch
//! partition 1 ─┼─▶ can enter at or before the next end ─▶ events by enter ─▶ window ─▶ expected ─┐
//! partition 2 ─┘                                                                                 ├─▶ report
//!                                                    results topic ─▶ actual, in memory ─────────┘
//! ```
//!
//! It has its own arithmetic of window ends, its own judgement of lateness and its own memory of what came before, keeps ids as they are instead of hashing
//! them, and computes each window from all of its events. It shares decoding and validation with the job, through
//! [`Ingest::read`](crate::ingest::Ingest::read).

mod compare;
mod expect;
mod letters;
mod past;
mod report;
mod sanitised;
#[cfg(test)]
mod tests;
mod window;

pub use compare::{Comparison, Difference, FieldDifference, Findings, Report, ResultKey};
pub use expect::{Definition, Fate, Judged, Totals, Uncounted, expect, expect_judged};
pub use letters::{LetterComparison, LetterDifference, LetterKey, LetterReport};
pub use report::AuditReport;
pub use sanitised::{SanitisedComparison, SanitisedReport};

use clicktide_dataflows::event::EventType;
use siphasher::sip128::SipHasher24;

use crate::ingest::ValidEvent;

/// A valid event, owned and not hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Click {
    /// Who.
    pub user_id: String,
    /// In which session.
    pub session_id: String,
    /// On which page: the page's key.
    pub page_url: String,
    /// Did what.
    pub event_type: EventType,
    /// When, ms since the epoch.
    pub time_ms: i64,
    /// The log's own time for its record, ms since the epoch, if known.
    pub record_timestamp_ms: Option<i64>,
    /// How long the session has lasted so far, seconds, if reported.
    pub session_duration_s: Option<i32>,
    /// What tells its record's payload from all others.
    pub payload: u128,
}

impl Click {
    /// The event that was read from `payload`.
    pub fn new(valid: ValidEvent<'_>, payload: &[u8]) -> Self {
        Self {
            user_id: valid.event.user_id.into_owned(),
            session_id: valid.event.session_id.into_owned(),
            page_url: valid.event.page_url.into_owned(),
            event_type: valid.event.event_type,
            time_ms: valid.event.timestamp,
            record_timestamp_ms: valid.record_timestamp_ms,
            session_duration_s: valid.event.session_duration,
            // Another function than the job's, under another key.
            payload: SipHasher24::new().hash(payload).as_u128(),
        }
    }
}

/// A recorded advance of a partition's watermark while it was idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleAdvance {
    /// It applies just before the record at this offset, or the first after it.
    pub next_offset: i64,
    /// What the partition's watermark is from then on, at least; ms since the epoch.
    pub floor_ms: i64,
}

/// One partition of the input.
#[derive(Clone, Debug)]
pub struct Partition<I> {
    /// Its records in the order of their offsets: offset, and the event or why the record was rejected.
    pub records: I,
    /// Its recorded idle advances, in any order. Where the records do not begin with the partition's first, the watermark
    /// as it was there is one more of them.
    pub idle_advances: Vec<IdleAdvance>,
}
