//! The wire format of Confluent's schema registry: a zero byte, the id of the writer schema, and the bare Avro body.
//!
//! ```text
//! ┌───┬───────────────┬──────────────┐
//! │ 0 │ id            │ body …       │
//! └───┴───────────────┴──────────────┘
//!  1 B  4 B, big-endian
//! ```

use std::fmt;

use clicktide_dataflows::event::PageAnalytics;
use serde::{Deserialize, Serialize};

use super::{DecodeError, decode_page_analytics};

/// What every payload in the wire format begins with.
const MAGIC: u8 = 0;
/// The bytes before the body.
pub const PREFIX_BYTES: usize = 5;

/// The number by which a schema registry knows a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SchemaId(pub u32);

impl SchemaId {
    /// What stands before a body that is written with the schema.
    ///
    /// ```
    /// assert_eq!(clicktide::avro::wire::SchemaId(258).prefix(), [0, 0, 0, 1, 2]);
    /// ```
    pub fn prefix(self) -> [u8; PREFIX_BYTES] {
        let [a, b, c, d] = self.0.to_be_bytes();
        [MAGIC, a, b, c, d]
    }
}

impl fmt::Display for SchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The id of the writer schema and the body of a payload; none if it is not in the wire format.
///
/// ```
/// use clicktide::avro::wire::{SchemaId, split};
///
/// assert_eq!(split(&[0, 0, 0, 1, 2, 7]), Some((SchemaId(258), &[7][..])));
/// assert_eq!(split(&[1, 0, 0, 1, 2, 7]), None);
/// assert_eq!(split(&[0, 0, 0, 1]), None);
/// ```
#[inline]
pub fn split(payload: &[u8]) -> Option<(SchemaId, &[u8])> {
    match payload {
        [MAGIC, a, b, c, d, body @ ..] => Some((SchemaId(u32::from_be_bytes([*a, *b, *c, *d])), body)),
        _ => None,
    }
}

/// Reads a result of ours, whether it was published in the wire format or bare.
///
/// The two can't be mistaken for each other: a bare result begins with the length of its page's name, and no page's name is
/// empty. So results can be read whatever was configured when they were written.
///
/// # Errors
/// When the payload is neither; see [`DecodeError`].
pub fn decode_result(payload: &[u8]) -> Result<PageAnalytics, DecodeError> {
    decode_page_analytics(split(payload).map_or(payload, |(_, body)| body))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::avro::encode_page_analytics;

    proptest! {
        #[test]
        fn what_is_put_in_front_is_found(id in any::<u32>(), body in prop::collection::vec(any::<u8>(), 0..20)) {
            let payload = [&SchemaId(id).prefix()[..], &body].concat();
            prop_assert_eq!(split(&payload), Some((SchemaId(id), &body[..])));
        }

        #[test]
        fn any_bytes_are_split_or_not(payload in prop::collection::vec(any::<u8>(), 0..12)) {
            let whole = payload.len() >= PREFIX_BYTES && payload[0] == MAGIC;
            prop_assert_eq!(split(&payload).map(|(_, body)| body), whole.then(|| &payload[PREFIX_BYTES..]));
        }
    }

    #[test]
    fn results_are_read_in_both_formats() {
        let result = PageAnalytics {
            page_url: "/".into(),
            window_start: 0,
            window_end: 10_000,
            view_count: 1,
            unique_users: 1,
            click_count: 0,
            conversion_count: 0,
            engagement_rate: 0.0,
            bounce_rate: 1.0,
            avg_session_duration: 0.0,
        };
        let mut bare = Vec::new();
        encode_page_analytics(&result, &mut bare);
        let wire = [&SchemaId(7).prefix()[..], &bare].concat();
        assert_eq!(decode_result(&bare).as_ref(), Ok(&result));
        assert_eq!(decode_result(&wire), Ok(result));
        assert_eq!(decode_result(&wire[..8]), Err(DecodeError::Truncated));
        assert_eq!(decode_result(&[]), Err(DecodeError::Truncated));
    }
}
