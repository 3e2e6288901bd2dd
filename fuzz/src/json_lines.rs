//! A line of a JSON Lines file.
//!
//! It is refused exactly when another reading refuses it, which takes the object apart by `serde_json`'s own map of raw values
//! and then looks at each field by itself; and what is read is the same.

use std::fmt;

use clicktide::event::DecodedEvent;
use clicktide::json::{decode_details, decode_line};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Checks one line.
pub fn run(data: &[u8]) {
    let read = decode_line(data);
    let ours = read.as_ref().ok().map(|read| {
        let DecodedEvent { user_id, session_id, page_url, event_type, timestamp, session_duration } = &read.event;
        let event_type = serde_json::to_string(event_type).expect("an event type is a text");
        let texts = (user_id.to_string(), session_id.to_string(), page_url.to_string(), event_type);
        (texts, (*timestamp, *session_duration, read.record_timestamp_ms))
    });
    // Of a line that is no event there are none, or those that it has.
    let details = decode_details(data);
    if let Ok(read) = &read {
        super::sanitised::check(&read.event, &details);
    }
    let expected = reference(String::from_utf8_lossy(data).as_bytes());
    // What is not UTF-8 is passed over in what nobody needs, and refused elsewhere.
    let refused_for_its_text = ours.is_none() && std::str::from_utf8(data).is_err();
    assert!(
        ours == expected || refused_for_its_text,
        "{ours:?}, not {expected:?}: {:?}",
        String::from_utf8_lossy(data)
    );
}

type Read = ((String, String, String, String), (i64, Option<i32>, Option<i64>));

/// Every field of an object, also one that is given twice.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

fn reference(line: &[u8]) -> Option<Read> {
    let Fields(fields) = serde_json::from_slice(line).ok()?;
    let (mut texts, mut symbol) = ([const { String::new() }; 3], None);
    let (mut timestamp, mut session_duration, mut record_timestamp) = (None, None, None);
    for (name, value) in fields {
        let value = value.get();
        let text = || serde_json::from_str::<Option<String>>(value).ok().map(Option::unwrap_or_default);
        match name.as_str() {
            "user_id" => texts[0] = text()?,
            "session_id" => texts[1] = text()?,
            "page_url" => texts[2] = text()?,
            "event_type" => {
                let known = ["VIEW", "CLICK", "ADD_TO_CART", "PURCHASE", "SEARCH"];
                let text = serde_json::from_str::<String>(value).ok()?;
                symbol = Some(serde_json::to_string(known.iter().find(|symbol| **symbol == text)?).ok()?);
            }
            "timestamp" => timestamp = Some(integer(value)?),
            "session_duration" => session_duration = serde_json::from_str::<Option<i32>>(value).ok()?,
            "record_timestamp" => {
                record_timestamp =
                    (value != "null").then(|| integer(value)).map_or(Some(None), |integer| integer.map(Some))?
            }
            _ => {}
        }
    }
    let [user_id, session_id, page_url] = texts;
    Some(((user_id, session_id, page_url, symbol?), (timestamp?, session_duration, record_timestamp)))
}

/// An integer, digit by digit; beyond 64 bits the nearest one within. Numbers with a point or an exponent are taken if they
/// are beyond 64 bits, too.
fn integer(text: &str) -> Option<i64> {
    let negative = text.starts_with('-');
    let digits = text.trim_start_matches('-');
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let nearest = digits
            .bytes()
            .fold(0_i128, |value, digit| (value * 10 + i128::from(digit - b'0')).min(i128::from(i64::MAX) + 1));
        let value = if negative { -nearest } else { nearest };
        return Some(value.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64);
    }
    let number: f64 = serde_json::from_str::<f64>(text).ok().or_else(|| text.parse().ok())?;
    let beyond = number.abs() >= i64::MAX as f64;
    beyond.then_some(if number > 0.0 { i64::MAX } else { i64::MIN })
}
