//! What arrives: events as producers send them, and worse.

use rand::prelude::IndexedRandom;
use rand::{Rng, RngExt};

use super::plan::Plan;

/// The event time when the clock stands at 0.
pub const EPOCH_MS: i64 = 1_000_000;

/// A record's timestamp and payload.
type Record = (Option<i64>, Vec<u8>);

/// Makes records.
#[derive(Default)]
pub struct Records {
    /// How far the producers of each partition are behind.
    behind_ms: Vec<i64>,
    /// With the partitions that they went to.
    made: Vec<(usize, Record)>,
}

impl Records {
    /// The next record of a partition at a time of the clock: its timestamp and payload.
    pub fn next(&mut self, rng: &mut impl Rng, plan: &Plan, partition: usize, now_ms: i64) -> Record {
        if !plan.plain && rng.random_ratio(1, plan.copies) {
            // What a producer sends again is mostly of late, goes to the same partition, and has a time of its own in the log.
            let recent = self.made.iter().rev().filter(|(of, _)| *of == partition).take(8);
            let recent: Vec<_> = recent.map(|(_, record)| record.clone()).collect();
            let same = recent.choose(rng).filter(|_| rng.random_ratio(2, 3));
            let (record_ms, payload) = match same {
                Some(same) => same.clone(),
                None => self.made.choose(rng).map_or((None, Vec::new()), |(_, record)| record.clone()),
            };
            let record_ms = if rng.random() { Some(EPOCH_MS + now_ms) } else { record_ms };
            return (record_ms, payload);
        }
        let record = self.make(rng, plan, partition, now_ms);
        self.made.push((partition, record.clone()));
        record
    }

    fn make(&mut self, rng: &mut impl Rng, plan: &Plan, partition: usize, now_ms: i64) -> Record {
        let (size_ms, slide_ms) = (plan.windows.size_ms(), plan.windows.slide_ms());
        self.behind_ms.resize(self.behind_ms.len().max(partition + 1), 0);
        if rng.random_ratio(1, 30) {
            // Producers that come back with what they have kept, or have caught up.
            self.behind_ms[partition] =
                if rng.random_ratio(1, 2) { 0 } else { rng.random_range(0..2 * (size_ms + plan.bound_ms)) };
        }
        let world_ms = EPOCH_MS + now_ms;
        let record_ms = Some(world_ms).filter(|_| !plan.plain);
        if rng.random_ratio(1, plan.rubbish) {
            return (record_ms, b"not an event".to_vec());
        }
        let disorder_ms = rng.random_range(0..=plan.bound_ms + slide_ms);
        let mut time_ms = world_ms - self.behind_ms[partition] - disorder_ms;
        let mut page = format!("/page/{:05}", rng.random_range(0..4));
        let mut duration = rng.random_ratio(1, 3).then(|| rng.random_range(0..300));
        match rng.random_range(0..40) {
            0 | 1 => time_ms -= size_ms + plan.bound_ms + rng.random_range(0..size_ms),
            2 | 3 => time_ms = world_ms + rng.random_range(0..=plan.future_ms),
            4 => time_ms = world_ms + plan.future_ms + rng.random_range(1..size_ms + 1),
            5 => page = "nowhere".to_owned(),
            6 => duration = Some(-1),
            7 => time_ms = 0,
            _ => {}
        }
        let kind = ["VIEW", "VIEW", "VIEW", "CLICK", "PURCHASE", "ADD_TO_CART"].choose(rng).expect("there are some");
        let duration = duration.map_or("null".to_owned(), |seconds| seconds.to_string());
        let (user, session) = (rng.random_range(0..4), rng.random_range(0..7));
        (record_ms, event(time_ms, &page, user, session, kind, &duration))
    }
}

/// A view at a time, on time.
pub fn click(time_ms: i64) -> Record {
    (Some(time_ms), event(time_ms, "/page/00009", 9, 9, "VIEW", "null"))
}

fn event(time_ms: i64, page: &str, user: u64, session: u64, kind: &str, duration: &str) -> Vec<u8> {
    format!(
        r#"{{"user_id":"{user}","session_id":"{session}","event_type":"{kind}","page_url":"{page}","timestamp":{time_ms},"session_duration":{duration}}}"#
    )
    .into_bytes()
}
