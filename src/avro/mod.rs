//! The records on the wire: bare Avro bodies in and out, and Avro container files.
//!
//! Events are read and results written by hand, several times faster than through a generic Avro library, because that is
//! what the job spends its time on. The library, `apache_avro`, parses schemas, reads container files and is the
//! reference that the tests compare with; nothing outside this module names it.
//!
//! ```
//! use clicktide::avro::{Decoder, encode_event};
//! # use clicktide::event::ClickEvent;
//! # use clicktide_dataflows::event::EventType;
//! # let event = ClickEvent {
//! #     user_id: "u".into(), session_id: "s".into(), event_type: EventType::View, page_url: "/".into(), product_id: None,
//! #     timestamp: 1, user_agent: "-".into(), ip_address: "-".into(), referrer: None, session_duration: None,
//! # };
//! let mut body = Vec::new();
//! encode_event(&event, &mut body);
//! assert_eq!(Decoder::default().decode(&body).unwrap().user_id, event.user_id);
//! ```

mod container;
mod decoder;
mod details;
mod encode;
mod input;
mod json;
mod plan;
mod progress;
#[cfg(test)]
mod tests;
pub mod wire;

pub use container::{ContainerError, ContainerReader};
pub use decoder::Decoder;
pub use encode::{
    decode_page_analytics, encode_event, encode_later_event, encode_page_analytics, encode_sanitised_event,
};
pub use json::sanitised_event_json;
pub use plan::SchemaError;
pub use progress::{
    PROGRESS_SCHEMA, ProgressRecord, UndecodableProgress, decode_progress_record, encode_progress_record,
};

use std::sync::LazyLock;

use apache_avro::Schema;
use apache_avro::schema::RecordSchema;
use clicktide_dataflows::event::EventType;

/// The published schema of click events.
pub const CLICK_EVENT_SCHEMA: &str = include_str!("../../config/schemas/clickstream-event.avsc");

/// The published schema of results.
pub const PAGE_ANALYTICS_SCHEMA: &str = include_str!("../../config/schemas/page-analytics.avsc");

/// The published schema of sanitised events.
pub const SANITISED_EVENT_SCHEMA: &str = include_str!("../../config/schemas/sanitised-event.avsc");

/// A later version of the schema of click events, for rehearsals of a schema change.
pub const CLICK_EVENT_LATER_SCHEMA: &str = include_str!("../../config/schemas/clickstream-event-later.avsc");

/// The full name of the record that a schema of ours defines.
pub fn record_name(schema: &'static str) -> String {
    let schema = Schema::parse_str(schema).expect("a schema of ours is a schema");
    schema.name().expect("it is a record").fullname(None)
}

/// The symbols of the event type, in the order of the published schema.
const EVENT_TYPES: [(&str, EventType); 5] = [
    ("VIEW", EventType::View),
    ("CLICK", EventType::Click),
    ("ADD_TO_CART", EventType::AddToCart),
    ("PURCHASE", EventType::Purchase),
    ("SEARCH", EventType::Search),
];

static CLICK_EVENT: LazyLock<Schema> =
    LazyLock::new(|| Schema::parse_str(CLICK_EVENT_SCHEMA).expect("the published schema is a schema"));

/// The record of the published schema of click events.
fn published_event() -> &'static RecordSchema {
    match &*CLICK_EVENT {
        Schema::Record(record) => record,
        _ => unreachable!("the published schema is a record"),
    }
}

/// Why bytes are not an Avro body of the expected schema. It never quotes the bytes, which may be personal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The body ends inside a value, or a value claims to be longer than what is left.
    #[error("the body ends inside a value")]
    Truncated,
    /// The body goes on after its last value.
    #[error("{count} bytes follow the last value")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// A variable-length integer does not fit 64 bits.
    #[error("a variable-length integer is longer than 64 bits")]
    BadVarint,
    /// A string or a block has a negative length.
    #[error("a length is negative")]
    NegativeLength,
    /// A string is not UTF-8.
    #[error("a string is not UTF-8")]
    InvalidUtf8,
    /// An enum's index is outside its symbols, or its symbol is not one of ours.
    #[error("an enum has no known symbol at its index")]
    UnknownSymbol,
    /// A union's branch does not exist.
    #[error("a union has no branch at its index")]
    UnknownBranch,
    /// A union's branch is of a type that does not resolve into ours, such as null where we need a value.
    #[error("a union's branch does not resolve into the published schema")]
    UnreadableBranch,
    /// An `int` lies outside 32 bits.
    #[error("an int lies outside 32 bits")]
    IntOutOfRange,
    /// Values of a recursive schema are nested too deeply.
    #[error("values are nested too deeply")]
    TooDeep,
}
