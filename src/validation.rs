//! Which decoded events count, and why the others do not.

use serde::{Deserialize, Serialize};

use crate::event::DecodedEvent;
use crate::words;

/// Event times at or beyond this could overflow the arithmetic of window ends.
const TIMESTAMP_END: i64 = 1 << 62;

/// What an event may be at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The longest user or session id, bytes of UTF-8.
    pub id_bytes_max: usize,
    /// The longest page URL, bytes of UTF-8.
    pub page_url_bytes_max: usize,
    /// How far an event's time may lie after its record's own, ms.
    pub future_ms: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { id_bytes_max: 256, page_url_bytes_max: 2048, future_ms: 300_000 }
    }
}

/// Why an event is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The bytes are no event.
    Undecodable,
    /// There is no user id.
    EmptyUserId,
    /// The user id is longer than [`Limits::id_bytes_max`].
    TooLongUserId,
    /// There is no session id.
    EmptySessionId,
    /// The session id is longer than [`Limits::id_bytes_max`].
    TooLongSessionId,
    /// There is no page.
    EmptyPageUrl,
    /// The page's URL is longer than [`Limits::page_url_bytes_max`].
    TooLongPageUrl,
    /// The page is neither an absolute http(s) URL with a host nor a path, or has white space in it.
    InvalidPageUrl,
    /// The event time is not positive, or so large that window ends would overflow.
    InvalidTimestamp,
    /// The event time lies more than [`Limits::future_ms`] after the record's own.
    FutureTimestamp,
    /// The session's duration is negative.
    InvalidSessionDuration,
}

impl Reason {
    const ALL: [Self; 11] = [
        Self::Undecodable,
        Self::EmptyUserId,
        Self::TooLongUserId,
        Self::EmptySessionId,
        Self::TooLongSessionId,
        Self::EmptyPageUrl,
        Self::TooLongPageUrl,
        Self::InvalidPageUrl,
        Self::InvalidTimestamp,
        Self::FutureTimestamp,
        Self::InvalidSessionDuration,
    ];

    /// Every reason, in the order in which they are checked.
    pub fn all() -> &'static [Self] {
        &Self::ALL
    }

    /// The reason as dead letters and metrics name it.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::EmptyUserId => "empty_user_id",
            Self::TooLongUserId => "too_long_user_id",
            Self::EmptySessionId => "empty_session_id",
            Self::TooLongSessionId => "too_long_session_id",
            Self::EmptyPageUrl => "empty_page_url",
            Self::TooLongPageUrl => "too_long_page_url",
            Self::InvalidPageUrl => "invalid_page_url",
            Self::InvalidTimestamp => "invalid_timestamp",
            Self::FutureTimestamp => "future_timestamp",
            Self::InvalidSessionDuration => "invalid_session_duration",
        }
    }
}

/// Whether `event` counts. `record_timestamp` is the log's own time for the record, ms; without it nothing is in the
/// future.
///
/// # Errors
/// The first reason, in the order of [`Reason::all`], for which it does not.
#[inline]
pub fn validate(event: &DecodedEvent<'_>, record_timestamp: Option<i64>, limits: &Limits) -> Result<(), Reason> {
    check_length(&event.user_id, limits.id_bytes_max, Reason::EmptyUserId, Reason::TooLongUserId)?;
    check_length(&event.session_id, limits.id_bytes_max, Reason::EmptySessionId, Reason::TooLongSessionId)?;
    check_length(&event.page_url, limits.page_url_bytes_max, Reason::EmptyPageUrl, Reason::TooLongPageUrl)?;
    if !names_a_page(&event.page_url) {
        return Err(Reason::InvalidPageUrl);
    }
    if !(1..TIMESTAMP_END).contains(&event.timestamp) {
        return Err(Reason::InvalidTimestamp);
    }
    if record_timestamp.is_some_and(|record| event.timestamp > record.saturating_add(limits.future_ms)) {
        return Err(Reason::FutureTimestamp);
    }
    if event.session_duration.is_some_and(|seconds| seconds < 0) {
        return Err(Reason::InvalidSessionDuration);
    }
    Ok(())
}

/// Whether `url` is a page that an event may be on.
pub(crate) fn is_page(url: &str, limits: &Limits) -> bool {
    (1..=limits.page_url_bytes_max).contains(&url.len()) && names_a_page(url)
}

#[inline]
fn check_length(text: &str, bytes_max: usize, empty: Reason, too_long: Reason) -> Result<(), Reason> {
    match text.len() {
        0 => Err(empty),
        length if length > bytes_max => Err(too_long),
        _ => Ok(()),
    }
}

/// Whether `url` is an absolute http(s) URL with a host, or a path beginning with `/`, without white space: the regular
/// expression `https?://[^/?#\s]+([/?#]\S*)?|/\S*`.
fn names_a_page(url: &str) -> bool {
    let host = || url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let has_host = || host().is_some_and(|host| !host.is_empty() && !host.starts_with(['/', '?', '#']));
    (url.starts_with('/') || has_host()) && !has_white_space(url)
}

/// Whether `text` has a character that a regular expression's `\s` matches: Unicode's white space and the four separators
/// U+001C to U+001F.
fn has_white_space(text: &str) -> bool {
    // One pass without branches settles the usual case, in which every byte is a visible one of ASCII: at least 0x21, and
    // below 0x80.
    let unusual = |word: u64| (word.wrapping_sub(words::repeat(b' ' + 1)) | word) & words::repeat(0x80);
    words::any(text.as_bytes(), unusual) && text.chars().any(|c| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c))
}

/// An event that passes every check, for tests to change.
#[cfg(test)]
pub(crate) fn valid_event() -> DecodedEvent<'static> {
    DecodedEvent {
        user_id: "u".into(),
        session_id: "s".into(),
        page_url: "/".into(),
        event_type: clicktide_dataflows::event::EventType::View,
        timestamp: 1_700_000_000_000,
        session_duration: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_distinct_and_complete() {
        let labels: Vec<_> = Reason::all().iter().map(Reason::label).collect();
        let distinct: std::collections::BTreeSet<_> = labels.iter().collect();
        assert_eq!(distinct.len(), labels.len());
        for field in ["user_id", "session_id", "page_url"] {
            for prefix in ["empty", "too_long"] {
                assert!(labels.contains(&format!("{prefix}_{field}").as_str()));
            }
        }
    }

    #[test]
    fn each_reason_in_its_order() {
        fn check(expected: Option<Reason>, change: impl FnOnce(&mut DecodedEvent<'static>)) {
            let mut event = valid_event();
            change(&mut event);
            assert_eq!(validate(&event, Some(1_700_000_000_000), &Limits::default()).err(), expected, "{event:?}");
        }
        let text = |bytes: usize| "x".repeat(bytes).into();
        check(None, |_| ());
        check(Some(Reason::EmptyUserId), |e| e.user_id = "".into());
        check(None, |e| e.user_id = text(256));
        check(Some(Reason::TooLongUserId), |e| e.user_id = text(257));
        // Bytes count, not characters.
        check(Some(Reason::TooLongUserId), |e| e.user_id = "é".repeat(129).into());
        check(Some(Reason::EmptySessionId), |e| e.session_id = "".into());
        check(Some(Reason::TooLongSessionId), |e| e.session_id = text(257));
        check(Some(Reason::EmptyPageUrl), |e| e.page_url = "".into());
        check(None, |e| e.page_url = format!("/{}", "x".repeat(2047)).into());
        check(Some(Reason::TooLongPageUrl), |e| e.page_url = format!("/{}", "x".repeat(2048)).into());
        check(Some(Reason::InvalidPageUrl), |e| e.page_url = "x".into());
        check(Some(Reason::InvalidTimestamp), |e| e.timestamp = 0);
        check(Some(Reason::InvalidTimestamp), |e| e.timestamp = i64::MIN);
        check(Some(Reason::InvalidTimestamp), |e| e.timestamp = 1 << 62);
        check(Some(Reason::FutureTimestamp), |e| e.timestamp = (1 << 62) - 1);
        check(None, |e| e.timestamp = 1);
        check(None, |e| e.timestamp += 300_000);
        check(Some(Reason::FutureTimestamp), |e| e.timestamp += 300_001);
        check(None, |e| e.session_duration = Some(0));
        check(Some(Reason::InvalidSessionDuration), |e| e.session_duration = Some(-1));
        check(Some(Reason::EmptyUserId), |e| (e.user_id, e.page_url, e.timestamp) = ("".into(), "x".into(), 0));
        check(Some(Reason::InvalidPageUrl), |e| (e.page_url, e.timestamp) = ("x".into(), 0));
    }

    #[test]
    fn the_record_timestamp_may_be_anything() {
        fn check(record_timestamp: Option<i64>, timestamp: i64, expected: Option<Reason>) {
            let event = DecodedEvent { timestamp, ..valid_event() };
            assert_eq!(validate(&event, record_timestamp, &Limits::default()).err(), expected);
        }
        check(None, TIMESTAMP_END - 1, None);
        check(Some(i64::MAX), TIMESTAMP_END - 1, None);
        check(Some(i64::MIN), 1, Some(Reason::FutureTimestamp));
        check(Some(-1), 1, None);
        check(Some(-300_000), 1, Some(Reason::FutureTimestamp));
    }

    #[test]
    fn pages() {
        fn check(url: &str, expected: bool) {
            assert_eq!(names_a_page(url), expected, "{url:?}");
        }
        for valid in
            ["/", "/a", "//", "/?#", "/é", "http://h", "https://h/", "https://h?q", "https://h#f", "http://h:1/a?b#c"]
        {
            check(valid, true);
        }
        for invalid in [
            "a",
            "a/b",
            "?a",
            "http://",
            "https://",
            "https:///a",
            "http://?q",
            "http://#",
            "HTTP://h",
            "ftp://h",
            "http:/h",
            "httpss://h",
            " /",
            "mailto:a@b",
        ] {
            check(invalid, false);
        }
        // Python's `\s` for text, and some that it does not match.
        for space in "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \u{85}\u{a0}\u{1680}\u{2000}\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}"
            .chars()
        {
            check(&format!("/a{space}"), false);
            check(&format!("/{space}a"), false);
            check(&format!("http://h{space}"), false);
            check(&format!("http://{space}h"), false);
            check(&format!("http://h/a{space}b"), false);
        }
        for other in ['\0', '\x08', '\x1b', '\x7f', '\u{84}', '\u{200b}', '\u{feff}', '\u{180e}'] {
            check(&format!("/a{other}"), true);
            check(&format!("http://{other}"), true);
        }
    }
}
