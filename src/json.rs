//! Events out of JSON Lines: an object per line with the schema's field names, as in files.
//!
//! Fields that nobody needs are passed over, a field given twice counts the last time, and a null or absent
//! id or page reads as empty, so that validation names it.

use std::borrow::Cow;
use std::fmt;

use clicktide_dataflows::event::EventType;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::event::{DecodedEvent, EventDetails};

/// An event as it stands in a file, decoded but not yet validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonEvent<'a> {
    /// The event.
    pub event: DecodedEvent<'a>,
    /// The log's own time for the record, ms since the epoch, if the file has it.
    pub record_timestamp_ms: Option<i64>,
}

/// Why a line is no event. It never quotes the line, which may be personal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}, at column {column}")]
pub struct Undecodable {
    problem: &'static str,
    column: usize,
}

impl From<serde_json::Error> for Undecodable {
    fn from(error: serde_json::Error) -> Self {
        let problem = match error.classify() {
            serde_json::error::Category::Eof => "the JSON ends inside a value",
            serde_json::error::Category::Data => "a field of a click event is missing or of another type",
            serde_json::error::Category::Syntax | serde_json::error::Category::Io => "not JSON",
        };
        Self { problem, column: error.column() }
    }
}

/// Reads the event that `line` is; white space around it is ignored.
///
/// An integer beyond 64 bits in `timestamp` or `record_timestamp` becomes the nearest one within, which validation treats
/// as it would the integer itself. Text without escapes is borrowed from `line`.
///
/// # Errors
/// When `line` is not one JSON object; when `event_type` or `timestamp` is missing; when a field that the analytics need
/// has another type, an unknown symbol, or lies outside 32 bits (`session_duration`).
///
/// ```
/// use clicktide::json::decode_line;
///
/// let line = br#"{"user_id": "u1", "session_id": null, "event_type": "VIEW", "page_url": "/", "timestamp": 5}"#;
/// let read = decode_line(line).unwrap();
/// assert_eq!((read.event.user_id.as_ref(), read.event.session_id.as_ref()), ("u1", ""));
/// assert!(decode_line(b"{}").is_err());
/// ```
pub fn decode_line(line: &[u8]) -> Result<JsonEvent<'_>, Undecodable> {
    Ok(serde_json::from_slice(line)?)
}

/// Reads what only the sanitiser needs of the event that `line` is. A field that is missing, or no text, is not there; of a line that is
/// no event, nothing is.
pub fn decode_details(line: &[u8]) -> EventDetails<'_> {
    serde_json::from_slice(line).unwrap_or_default()
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Field {
    UserId,
    SessionId,
    PageUrl,
    EventType,
    Timestamp,
    SessionDuration,
    RecordTimestamp,
    #[serde(other)]
    Other,
}

/// Text that borrows where it can, also inside an `Option`.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// An integer of any length, or the nearest one within 64 bits.
struct SaturatingInteger(i64);

impl<'de> Deserialize<'de> for SaturatingInteger {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&RawValue>::deserialize(deserializer)?.get();
        text.parse().map(Self).or_else(|_| {
            // Not an integer within 64 bits; a longer one, or one written with an exponent, is at least a number beyond.
            match text.parse::<f64>() {
                Ok(number) if number >= i64::MAX as f64 => Ok(Self(i64::MAX)),
                Ok(number) if number <= i64::MIN as f64 => Ok(Self(i64::MIN)),
                _ => Err(de::Error::custom("not an integer")),
            }
        })
    }
}

/// Not derived: a derived one would take arrays, and refuse a field given twice.
impl<'de> Deserialize<'de> for JsonEvent<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(JsonEventVisitor)
    }
}

struct JsonEventVisitor;

impl<'de> Visitor<'de> for JsonEventVisitor {
    type Value = JsonEvent<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a click event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut user_id, mut session_id, mut page_url) = (None, None, None);
        let (mut event_type, mut timestamp) = (None::<EventType>, None::<SaturatingInteger>);
        let (mut session_duration, mut record_timestamp) = (None, None::<SaturatingInteger>);
        while let Some(field) = map.next_key()? {
            match field {
                Field::UserId => user_id = map.next_value::<Option<Text<'de>>>()?,
                Field::SessionId => session_id = map.next_value::<Option<Text<'de>>>()?,
                Field::PageUrl => page_url = map.next_value::<Option<Text<'de>>>()?,
                Field::EventType => event_type = Some(map.next_value()?),
                Field::Timestamp => timestamp = Some(map.next_value()?),
                Field::SessionDuration => session_duration = map.next_value()?,
                Field::RecordTimestamp => record_timestamp = map.next_value()?,
                Field::Other => {
                    map.next_value::<de::IgnoredAny>()?;
                }
            }
        }
        let text = |text: Option<Text<'de>>| text.map_or(Cow::Borrowed(""), |text| text.0);
        Ok(JsonEvent {
            event: DecodedEvent {
                user_id: text(user_id),
                session_id: text(session_id),
                page_url: text(page_url),
                event_type: event_type.ok_or_else(|| de::Error::missing_field("event_type"))?,
                timestamp: timestamp.ok_or_else(|| de::Error::missing_field("timestamp"))?.0,
                session_duration,
            },
            record_timestamp_ms: record_timestamp.map(|integer| integer.0),
        })
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Detail {
    ProductId,
    UserAgent,
    IpAddress,
    Referrer,
    #[serde(other)]
    Other,
}

/// Not derived, as [`JsonEvent`] is not.
impl<'de> Deserialize<'de> for EventDetails<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DetailsVisitor)
    }
}

struct DetailsVisitor;

impl<'de> Visitor<'de> for DetailsVisitor {
    type Value = EventDetails<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a click event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut details = EventDetails::default();
        while let Some(field) = map.next_key()? {
            let value = map.next_value::<&RawValue>()?.get();
            let text = || serde_json::from_str(value).ok().map(|Text(text)| text);
            match field {
                Detail::ProductId => details.product_id = text(),
                Detail::UserAgent => details.user_agent = text(),
                Detail::IpAddress => details.ip_address = text(),
                Detail::Referrer => details.referrer = text(),
                Detail::Other => {}
            }
        }
        Ok(details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(fields: &str) -> Result<JsonEvent<'static>, Undecodable> {
        let line = format!(r#"{{"event_type": "CLICK", "timestamp": 7, {fields}}}"#);
        decode_line(line.leak().as_bytes())
    }

    #[test]
    fn only_the_needed_fields_are_read() {
        let line =
            br#" {"user_id":"u","ip_address":[{"a":1}],"session_id":"s","event_type":"ADD_TO_CART","page_url":"/p",
            "product_id":null,"timestamp":-3,"session_duration":4,"record_timestamp":5} "#;
        let read = decode_line(line).unwrap();
        assert_eq!(read.record_timestamp_ms, Some(5));
        let expected = DecodedEvent {
            user_id: "u".into(),
            session_id: "s".into(),
            page_url: "/p".into(),
            event_type: EventType::AddToCart,
            timestamp: -3,
            session_duration: Some(4),
        };
        assert_eq!(read.event, expected);
        assert!(matches!(read.event.user_id, Cow::Borrowed(_)));
    }

    #[test]
    fn escapes_are_undone_and_the_last_of_a_field_counts() {
        let read = decode(r#""user_id": "x", "page_url": "/\u00e9", "user\u005fid": "y""#).unwrap();
        assert_eq!(read.event.page_url, "/é");
        assert_eq!(read.event.user_id, "y");
    }

    #[test]
    fn absent_and_null_ids_read_as_empty() {
        let read = decode(r#""user_id": null, "session_duration": null, "record_timestamp": null"#).unwrap();
        assert_eq!((read.event.user_id.as_ref(), read.event.session_id.as_ref()), ("", ""));
        assert_eq!((read.event.session_duration, read.record_timestamp_ms), (None, None));
    }

    #[test]
    fn details_are_read_where_they_are_text() {
        let line = r#"{"product_id": "p", "user_agent": "\u0061b", "ip_address": [{"a": 1}], "referrer": null, "referrer": "/r",
            "event_type": 7, "user_id": "u"}"#;
        let details = decode_details(line.as_bytes());
        let text = |text: &'static str| Some(Cow::Borrowed(text));
        let expected =
            EventDetails { product_id: text("p"), user_agent: text("ab"), ip_address: None, referrer: text("/r") };
        assert_eq!(details, expected);
        assert!(matches!(details.product_id, Some(Cow::Borrowed(_))));
        for nothing in ["", "{", "null", r#"["p", "u", "i", "r"]"#, r#"{"product_id": 1, "referrer": "\ud800"}"#] {
            assert_eq!(decode_details(nothing.as_bytes()), EventDetails::default(), "{nothing}");
        }
    }

    #[test]
    fn integers_beyond_64_bits_become_the_nearest_within() {
        fn check(number: &str, expected: Option<i64>) {
            let fields = format!(r#""record_timestamp": {number}, "timestamp": {number}"#);
            let actual = decode(&fields).ok();
            assert_eq!(actual.as_ref().map(|read| read.event.timestamp), expected, "{number}");
            assert_eq!(actual.and_then(|read| read.record_timestamp_ms), expected, "{number}");
        }
        check("9223372036854775807", Some(i64::MAX));
        check("9223372036854775808", Some(i64::MAX));
        check("18446744073709551616", Some(i64::MAX));
        check("-9223372036854775808", Some(i64::MIN));
        check("-9223372036854775809", Some(i64::MIN));
        check(&"9".repeat(500), Some(i64::MAX));
        check("-1e400", Some(i64::MIN));
        check("1.5", None);
        check("\"1\"", None);
        check("true", None);
    }

    #[test]
    fn what_is_no_event() {
        fn check(line: &str, expected: &str) {
            let actual = decode_line(line.as_bytes()).unwrap_err().to_string();
            assert!(actual.contains(expected), "{line}: {actual}");
        }
        let another_type = "missing or of another type";
        check("", "ends inside");
        check("{", "ends inside");
        check("nonsense", "not JSON");
        check("{} {}", another_type);
        check(r#"{"event_type":"VIEW","timestamp":1} x"#, "not JSON");
        check("null", another_type);
        check(r#"["u","s","/p","VIEW",1,null,null]"#, another_type);
        check(r#"{"timestamp":1}"#, another_type);
        check(r#"{"event_type":"VIEW"}"#, another_type);
        check(r#"{"event_type":"VIEW","timestamp":null}"#, another_type);
        check(r#"{"event_type":"view","timestamp":1}"#, another_type);
        check(r#"{"event_type":"VIEW","timestamp":1,"user_id":4}"#, another_type);
        check(r#"{"event_type":"VIEW","timestamp":1,"session_duration":2147483648}"#, another_type);
        check(r#"{"event_type":"VIEW","timestamp":1,"session_duration":1.5}"#, another_type);
        check(r#"{"event_type":"VIEW","timestamp":1,"page_url":"\ud800"}"#, "");
    }

    #[test]
    fn the_error_does_not_quote_the_line() {
        let error = decode_line(br#"{"event_type":"alice@example.org","timestamp":1}"#).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("alice"));
    }
}
