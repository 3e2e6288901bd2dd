//! From a record of the log to the activity that the dataflows see: decode, validate, judge, hash.
//!
//! ```text
//! record ──decode──▶ event ──validate──▶ ──page key──▶ ──history──▶ ──partition clock──▶ ──hash──▶ Activity
//!           └─▶ undecodable    └─▶ reason                └─▶ a copy   └─▶ late
//! ```
//!
//! All of it is a function of the record and of its partition's clock and history: no I/O, no wall clock, no timely. Nothing of
//! a record survives but hashes, the page's key and what was counted.

use std::borrow::Cow;
use std::sync::Arc;

use clicktide_dataflows::event::Activity;
use clicktide_dataflows::time::{Judgement, PartitionClock, Windows};

use crate::avro::{Decoder, encode_sanitised_event};
use crate::event::DecodedEvent;
use crate::history::{History, OTHER_PAGES, Recalled};
use crate::json;
use crate::privacy::{Domain, HashKey, IdHash, PageKey, Sanitiser};
use crate::registry::Schemas;
use crate::validation::{self, Limits, Reason};

/// How payloads are written.
#[derive(Clone, Debug)]
pub enum Format {
    /// Bare Avro bodies.
    Avro(Decoder),
    /// In the wire format of a schema registry. Whoever reads a record of these waits until its schema is known, as
    /// [`Schemas::awaited`] says: a record of an unknown schema is undecodable.
    Wire(Arc<Schemas>),
    /// One JSON object each.
    JsonLines,
}

impl Format {
    /// The schemas that records are written with, where a registry has them.
    pub fn schemas(&self) -> Option<&Arc<Schemas>> {
        match self {
            Format::Wire(schemas) => Some(schemas),
            Format::Avro(_) | Format::JsonLines => None,
        }
    }
}

/// A record as it is read from a partition of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its place in the partition.
    pub offset: i64,
    /// The log's own time for it, ms since the epoch, if it has one.
    pub record_timestamp_ms: Option<i64>,
    /// Its value; empty for a tombstone.
    pub payload: &'a [u8],
}

/// An event that passed validation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidEvent<'a> {
    /// The event, with its page reduced to the page's key.
    pub event: DecodedEvent<'a>,
    /// The log's own time for its record, ms since the epoch, if known.
    pub record_timestamp_ms: Option<i64>,
}

/// What becomes of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted<'a> {
    /// It counts.
    Counted {
        /// What the dataflows see of it.
        activity: Activity,
        /// The page's key, whose hash `activity.page` is.
        page_url: Cow<'a, str>,
        /// Whether the page is told apart from others, and does not stand for all that are not.
        told_apart: bool,
    },
    /// It is a copy of an event that is remembered. It moved no clock.
    Duplicate,
    /// Every one of its windows was closed before it came.
    Late,
    /// It is not a valid event. It moved no clock.
    Rejected(Reason),
}

/// An event as others may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sanitised {
    /// Whose it is: the key of its record.
    pub user: IdHash,
    /// A bare body of [`crate::avro::SANITISED_EVENT_SCHEMA`].
    pub body: Vec<u8>,
}

/// How records are read and judged; the same for every partition.
#[derive(Clone, Debug)]
pub struct Ingest {
    /// How payloads are written.
    pub format: Format,
    /// What an event may be at most.
    pub limits: Limits,
    /// The secret that turns ids into hashes.
    pub hash_key: HashKey,
    /// How much of a URL is the page.
    pub page_key: PageKey,
    /// The windows that events count in.
    pub windows: Windows,
    /// How far events of a partition may come out of order, ms.
    pub bound_ms: i64,
}

impl Ingest {
    /// Reads `record`, shows it to its partition's `clock` and `history`, and says what becomes of it.
    ///
    /// Allocates only where JSON text has escapes, and what the history keeps. Whatever the payload, nothing panics, given a
    /// clock and a bound within 2^62 ms of zero.
    pub fn accept<'a>(&self, clock: &mut PartitionClock, history: &mut History, record: &Record<'a>) -> Accepted<'a> {
        let ValidEvent { mut event, record_timestamp_ms } = match self.read(record) {
            Ok(valid) => valid,
            Err(reason) => return Accepted::Rejected(reason),
        };
        let told_apart = match self.take_in(*clock, history, &event, record) {
            Recalled::Copy => return Accepted::Duplicate,
            Recalled::New { told_apart } => told_apart,
        };
        let (enter, leave) = match clock.judge(&self.windows, self.bound_ms, event.timestamp, record_timestamp_ms) {
            Judgement::Counts { enter, leave } => (enter, leave),
            Judgement::Late => return Accepted::Late,
        };
        if !told_apart {
            event.page_url = Cow::Borrowed(OTHER_PAGES);
        }
        let activity = Activity {
            enter,
            leave,
            page: self.hash_key.hash(Domain::Page, &event.page_url),
            user: self.hash_key.hash(Domain::User, &event.user_id),
            session: self.hash_key.hash(Domain::Session, &event.session_id),
            event_type: event.event_type,
            session_duration_s: event.session_duration,
            time_ms: event.timestamp,
        };
        Accepted::Counted { activity, page_url: event.page_url, told_apart }
    }

    /// Takes `record` into its partition's `history`, and nothing else: it was judged before. `clock` is the partition's where
    /// records are judged again.
    pub fn recall(&self, clock: PartitionClock, history: &mut History, record: &Record<'_>) {
        if let Ok(valid) = self.read(record) {
            self.take_in(clock, history, &valid.event, record);
        }
    }

    #[inline]
    fn take_in(
        &self,
        clock: PartitionClock,
        history: &mut History,
        event: &DecodedEvent<'_>,
        record: &Record<'_>,
    ) -> Recalled {
        if !history.kept() {
            return Recalled::New { told_apart: true };
        }
        let watermark_ms = clock.watermark_ms(self.bound_ms);
        history.take_in(&self.hash_key, watermark_ms, event, record.offset, record.payload)
    }

    /// Reads the event of `record`, if it is a valid one. What [`Ingest::accept`] does before it looks at the clock, and
    /// what an audit starts from.
    ///
    /// # Errors
    /// The reason for which the record is rejected.
    // Always: else an event is moved about in memory, which costs as much as hashing it.
    #[inline(always)]
    pub fn read<'a>(&self, record: &Record<'a>) -> Result<ValidEvent<'a>, Reason> {
        let (mut event, in_payload_ms) = self.decode(record)?;
        let record_timestamp_ms = in_payload_ms.or(record.record_timestamp_ms);
        validation::validate(&event, record_timestamp_ms, &self.limits)?;
        event.page_url = match event.page_url {
            Cow::Borrowed(page_url) => self.page_key.apply(page_url),
            Cow::Owned(page_url) => Cow::Owned(self.page_key.apply(&page_url).into_owned()),
        };
        // With limits that let anything pass, a record's time may be so small that clocks would overflow.
        let record_timestamp_ms = record_timestamp_ms.map(|ms| ms.max(RECORD_TIMESTAMP_MS_MIN));
        Ok(ValidEvent { event, record_timestamp_ms })
    }

    /// The event of `record`, valid or not, and the log's own time for it if that is in the payload.
    #[inline(always)]
    fn decode<'a>(&self, record: &Record<'a>) -> Result<(DecodedEvent<'a>, Option<i64>), Reason> {
        match &self.format {
            Format::Avro(decoder) => Ok((decoder.decode(record.payload).map_err(|_| Reason::Undecodable)?, None)),
            Format::Wire(schemas) => Ok((schemas.decode(record.payload).ok_or(Reason::Undecodable)?, None)),
            Format::JsonLines => {
                let line = json::decode_line(record.payload).map_err(|_| Reason::Undecodable)?;
                Ok((line.event, line.record_timestamp_ms))
            }
        }
    }

    /// The event of `record`, valid or not, as others may see it; none if it can't be decoded. It is decoded once more for this, in
    /// full.
    pub fn sanitised(&self, record: &Record<'_>) -> Option<Sanitised> {
        let (event, _) = self.decode(record).ok()?;
        let details = match &self.format {
            Format::Avro(decoder) => decoder.details(record.payload).ok()?,
            Format::Wire(schemas) => schemas.details(record.payload)?,
            Format::JsonLines => json::decode_details(record.payload),
        };
        let sanitiser = Sanitiser { hash_key: &self.hash_key, page_key: self.page_key, limits: &self.limits };
        let event = sanitiser.sanitise(&event, &details);
        let mut body = Vec::with_capacity(SANITISED_BYTES);
        encode_sanitised_event(&event, &mut body);
        Some(Sanitised { user: event.user_id, body })
    }
}

/// A sanitised event is seldom longer, bytes.
const SANITISED_BYTES: usize = 160;

/// No event's time is as small as this, so that a clock this small closes nothing.
const RECORD_TIMESTAMP_MS_MIN: i64 = -(1 << 60);

#[cfg(test)]
mod tests {
    use clicktide_dataflows::time::Tick;

    use super::*;

    fn ingest(format: Format) -> Ingest {
        Ingest {
            format,
            limits: Limits::default(),
            hash_key: HashKey::new("test").unwrap(),
            page_key: PageKey::NoQuery,
            windows: Windows::new(300_000, 10_000, 0).unwrap(),
            bound_ms: 30_000,
        }
    }

    fn line(timestamp: i64, page_url: &str) -> String {
        format!(
            r#"{{"user_id":"u","session_id":"s","event_type":"CLICK","page_url":"{page_url}","timestamp":{timestamp},
            "session_duration":9}}"#
        )
    }

    fn record(payload: &str) -> Record<'_> {
        Record { offset: 0, record_timestamp_ms: None, payload: payload.as_bytes() }
    }

    fn none() -> History {
        History::default()
    }

    #[test]
    fn a_counted_event_is_hashed() {
        let ingest = ingest(Format::JsonLines);
        let mut clock = PartitionClock::default();
        let line = line(1_000_001, "/a?b");
        let Accepted::Counted { activity, page_url, .. } = ingest.accept(&mut clock, &mut none(), &record(&line))
        else {
            panic!("it counts");
        };
        assert_eq!(page_url, "/a");
        assert!(matches!(page_url, Cow::Borrowed(_)));
        assert_eq!((activity.enter, activity.leave), (Tick(1_010_000), Tick(1_310_000)));
        assert_eq!(activity.page, ingest.hash_key.hash(Domain::Page, "/a"));
        assert_eq!(activity.user, ingest.hash_key.hash(Domain::User, "u"));
        assert_eq!(activity.session, ingest.hash_key.hash(Domain::Session, "s"));
        assert_eq!((activity.time_ms, activity.session_duration_s), (1_000_001, Some(9)));
        assert_eq!(clock.clock_ms, Some(1_000_001));
    }

    #[test]
    fn a_rejected_event_moves_no_clock_and_a_late_one_may() {
        let ingest = ingest(Format::JsonLines);
        let mut clock = PartitionClock { clock_ms: Some(1_000_000), floor_ms: None };
        let before = clock;
        assert_eq!(ingest.accept(&mut clock, &mut none(), &record("")), Accepted::Rejected(Reason::Undecodable));
        let invalid = line(2_000_000, "nowhere");
        assert_eq!(
            ingest.accept(&mut clock, &mut none(), &record(&invalid)),
            Accepted::Rejected(Reason::InvalidPageUrl)
        );
        let overflowing = line(i64::MAX, "/");
        assert_eq!(
            ingest.accept(&mut clock, &mut none(), &record(&overflowing)),
            Accepted::Rejected(Reason::InvalidTimestamp)
        );
        assert_eq!(clock, before);
        assert_eq!(ingest.accept(&mut clock, &mut none(), &record(&line(100_000, "/"))), Accepted::Late);
        assert_eq!(clock, before);
    }

    #[test]
    fn the_lines_own_record_timestamp_comes_first() {
        let ingest = ingest(Format::JsonLines);
        let mut clock = PartitionClock::default();
        let with = |record_timestamp| {
            line(1_000_000, "/").replace('{', &format!("{{\"record_timestamp\":{record_timestamp},"))
        };
        let ahead = with("500000");
        let both = Record { record_timestamp_ms: Some(1_000_000), ..record(&ahead) };
        assert_eq!(ingest.accept(&mut clock, &mut none(), &both), Accepted::Rejected(Reason::FutureTimestamp));
        let null = with("null");
        let neither = Record { record_timestamp_ms: Some(900_000), ..record(&null) };
        assert!(matches!(ingest.accept(&mut clock, &mut none(), &neither), Accepted::Counted { .. }));
        assert_eq!(clock.clock_ms, Some(900_000));
    }

    #[test]
    fn escaped_pages_are_cut_too() {
        let ingest = ingest(Format::JsonLines);
        let escaped = line(1_000_000, r"/\u0061?b");
        assert_eq!(ingest.read(&record(&escaped)).unwrap().event.page_url, "/a");
    }

    #[test]
    fn what_can_be_decoded_can_be_sanitised() {
        let ingest = ingest(Format::JsonLines);
        let invalid = line(-1, "/a?b").replacen('{', r#"{"ip_address": "192.0.2.9", "#, 1);
        let Sanitised { user, body } = ingest.sanitised(&record(&invalid)).unwrap();
        assert_eq!(user.0, ingest.hash_key.hash(Domain::User, "u"));
        let shown = crate::avro::sanitised_event_json(&body).unwrap();
        assert_eq!((&shown["page_url"], &shown["ip_address"]), (&"/a".into(), &"192.0.2.0".into()));
        assert_eq!((&shown["user_id"], &shown["timestamp"]), (&user.to_string().into(), &(-1).into()));
        assert_eq!(ingest.sanitised(&record("{}")), None);
    }

    #[test]
    fn extreme_record_timestamps_overflow_nothing() {
        let mut ingest = ingest(Format::JsonLines);
        ingest.limits.future_ms = i64::MAX;
        for record_timestamp_ms in [i64::MIN, i64::MIN + 2, -1, 0, i64::MAX] {
            let mut clock = PartitionClock::default();
            for timestamp in [1, (1 << 62) - 1] {
                let line = line(timestamp, "/");
                let record = Record { record_timestamp_ms: Some(record_timestamp_ms), ..record(&line) };
                ingest.accept(&mut clock, &mut none(), &record);
                clock.open_tick(&ingest.windows, ingest.bound_ms);
            }
        }
    }

    #[test]
    fn a_tombstone_is_undecodable() {
        let ingest = ingest(Format::Avro(Decoder::default()));
        let accepted = ingest.accept(&mut PartitionClock::default(), &mut none(), &record(""));
        assert_eq!(accepted, Accepted::Rejected(Reason::Undecodable));
    }
}
