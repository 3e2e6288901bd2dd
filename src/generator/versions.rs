//! Which of two versions of the schema an event is written with, while the producers change from one to the other.

use super::settings::SchemaChange;

/// Chooses versions: none is the later one before the change begins, and a share of them after that, evenly spread.
#[derive(Clone, Debug)]
pub struct Versions {
    change: SchemaChange,
    /// When the change begins, ms, once the first event has been seen.
    begins_ms: Option<i64>,
    /// Events since then.
    events: f64,
}

impl Versions {
    /// Versions of a change that is still to come.
    pub fn new(change: SchemaChange) -> Versions {
        Versions { change, begins_ms: None, events: 0.0 }
    }

    /// Whether the next event, at this time in ms, is written with the later version.
    ///
    /// ```
    /// use clicktide::generator::settings::SchemaChange;
    /// use clicktide::generator::versions::Versions;
    /// use clicktide::millis::Millis;
    ///
    /// let mut versions = Versions::new(SchemaChange { enabled: true, start: Millis(2), share: 0.5 });
    /// let later: Vec<bool> = (1_000..1_006).map(|ms| versions.later(ms)).collect();
    /// assert_eq!(later, [false, false, false, true, false, true]);
    /// ```
    pub fn later(&mut self, event_ms: i64) -> bool {
        let SchemaChange { start, share, .. } = self.change;
        let begins_ms = *self.begins_ms.get_or_insert(event_ms.saturating_add(start.0));
        if event_ms < begins_ms {
            return false;
        }
        let before = (self.events * share).floor();
        self.events += 1.0;
        (self.events * share).floor() > before
    }
}
