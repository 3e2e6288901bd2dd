//! Events, sanitised events and results as bare Avro bodies of the published schemas, field by field in the schemas' order.

use std::io::Write;

use clicktide_dataflows::event::PageAnalytics;

use super::DecodeError;
use super::input::Input;
use crate::event::ClickEvent;
use crate::privacy::{IdHash, SanitisedEvent};

/// Appends `event` to `out` as a bare body of [`super::CLICK_EVENT_SCHEMA`]. Allocates nothing but what `out` grows by.
pub fn encode_event(event: &ClickEvent, out: &mut Vec<u8>) {
    put_string(&event.user_id, out);
    put_string(&event.session_id, out);
    // The enum's variants stand in the order of the schema's symbols; a test compares them.
    put_long(event.event_type as i64, out);
    put_string(&event.page_url, out);
    put_optional(event.product_id.as_deref(), put_string, out);
    put_long(event.timestamp, out);
    put_string(&event.user_agent, out);
    put_string(&event.ip_address, out);
    put_optional(event.referrer.as_deref(), put_string, out);
    put_optional(event.session_duration.map(i64::from), put_long, out);
}

/// Appends `event` to `out` as a bare body of [`super::CLICK_EVENT_LATER_SCHEMA`], with something in its new fields. Allocates
/// nothing but what `out` grows by.
pub fn encode_later_event(event: &ClickEvent, out: &mut Vec<u8>) {
    put_long(event.timestamp, out);
    put_string("2.0.0", out);
    put_optional(Some(&*event.session_id), put_string, out);
    put_string(&event.user_id, out);
    put_string(&event.page_url, out);
    put_long(event.event_type as i64, out);
    // An array: a block of one item, and the empty block that ends it.
    put_long(1, out);
    put_string("checkout-b", out);
    put_long(0, out);
    put_optional(event.product_id.as_deref(), put_string, out);
    put_optional(Some(&*event.user_agent), put_string, out);
    put_string(&event.ip_address, out);
    put_optional(event.session_duration.map(i64::from), put_long, out);
    put_optional(event.referrer.as_deref(), put_string, out);
}

/// Appends `result` to `out` as a bare body of [`super::PAGE_ANALYTICS_SCHEMA`]. Allocates nothing but what `out` grows by.
pub fn encode_page_analytics(result: &PageAnalytics, out: &mut Vec<u8>) {
    put_string(&result.page_url, out);
    put_long(result.window_start, out);
    put_long(result.window_end, out);
    put_long(result.view_count, out);
    put_long(i64::from(result.unique_users), out);
    put_long(result.click_count, out);
    put_long(result.conversion_count, out);
    put_double(result.engagement_rate, out);
    put_double(result.bounce_rate, out);
    put_double(result.avg_session_duration, out);
}

/// Appends `event` to `out` as a bare body of [`super::SANITISED_EVENT_SCHEMA`]. Allocates for the address, and what `out` grows by.
pub fn encode_sanitised_event(event: &SanitisedEvent<'_>, out: &mut Vec<u8>) {
    put_hash(event.user_id, out);
    put_hash(event.session_id, out);
    put_long(event.event_type as i64, out);
    put_string(&event.page_url, out);
    put_optional(event.product_id, put_string, out);
    put_long(event.timestamp, out);
    put_optional(event.ip_address.map(|address| address.to_string()).as_deref(), put_string, out);
    // As with the event's type, the variants stand in the order of the symbols.
    put_long(event.browser as i64, out);
    put_long(event.device as i64, out);
    put_optional(event.referrer.as_deref(), put_string, out);
    put_optional(event.session_duration.map(i64::from), put_long, out);
}

/// Reads a bare body of [`super::PAGE_ANALYTICS_SCHEMA`], which must be `body` as a whole.
///
/// # Errors
/// When `body` is anything else; see [`DecodeError`].
pub fn decode_page_analytics(body: &[u8]) -> Result<PageAnalytics, DecodeError> {
    let mut input = Input::new(body);
    // A struct expression evaluates its fields in the order they are written in, which is the schema's.
    let result = PageAnalytics {
        page_url: input.string()?.to_owned(),
        window_start: input.long()?,
        window_end: input.long()?,
        view_count: input.long()?,
        unique_users: input.int()?,
        click_count: input.long()?,
        conversion_count: input.long()?,
        engagement_rate: input.double()?,
        bounce_rate: input.double()?,
        avg_session_duration: input.double()?,
    };
    input.finish()?;
    Ok(result)
}

/// A `long` or an `int`: a zigzag varint.
#[inline]
fn put_long(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    let mut bytes = [0; 10];
    let mut length = 0;
    while rest >= 0x80 {
        bytes[length] = rest as u8 | 0x80;
        rest >>= 7;
        length += 1;
    }
    bytes[length] = rest as u8;
    out.extend_from_slice(&bytes[..=length]);
}

#[inline]
fn put_string(text: &str, out: &mut Vec<u8>) {
    // No text in memory is longer than `isize::MAX` bytes.
    put_long(text.len() as i64, out);
    out.extend_from_slice(text.as_bytes());
}

/// A hash as text: 16 hexadecimal digits.
fn put_hash(hash: IdHash, out: &mut Vec<u8>) {
    put_long(16, out);
    // Writing to memory does not fail.
    write!(out, "{hash}").ok();
}

#[inline]
fn put_double(value: f64, out: &mut Vec<u8>) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// A union of null and one other type, in this order.
#[inline]
fn put_optional<T>(value: Option<T>, put: impl FnOnce(T, &mut Vec<u8>), out: &mut Vec<u8>) {
    match value {
        None => put_long(0, out),
        Some(value) => {
            put_long(1, out);
            put(value, out);
        }
    }
}
