//! A change of the schema, with a section of its own.

use serde::{Deserialize, Serialize};

use super::{OFFSET_MAX, SettingsError, between, between_millis};
use crate::millis::Millis;

/// A change of the schema in mid-run: from then on a share of the events is written with a later version, as when the producers are
/// brought up to date one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SchemaChange {
    /// Whether there is one.
    pub enabled: bool,
    /// When it begins, in event time after the first event.
    pub start: Millis,
    /// The share of the events from then on that are written with the later version, in [0, 1].
    pub share: f64,
}

impl Default for SchemaChange {
    fn default() -> Self {
        SchemaChange { enabled: false, start: Millis(60_000), share: 0.5 }
    }
}

impl SchemaChange {
    pub(super) fn validate(&self) -> Result<(), SettingsError> {
        between_millis("schema_change.start", self.start, Millis(0), OFFSET_MAX)?;
        between("schema_change.share", self.share, 0.0, 1.0)
    }
}
