//! Durations as people write them: whole milliseconds, given and shown as text with units.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time in milliseconds, written `"5m"`, `"250ms"`, `"1h 30m"`; a negative one has a `-` in front.
///
/// ```
/// use clicktide::millis::Millis;
///
/// assert_eq!("1h 30m".parse(), Ok(Millis(5_400_000)));
/// assert_eq!("-3s".parse(), Ok(Millis(-3_000)));
/// assert_eq!(Millis(300_000).to_string(), "5m");
/// assert!("10".parse::<Millis>().is_err(), "a number needs a unit");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub i64);

/// A text is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{DURATION} is expected")]
pub struct NotMillis;

const DURATION: &str = "a duration of whole milliseconds with its unit, such as \"5m\", \"10s\" or \"250ms\"";

impl Millis {
    /// The number of milliseconds, 0 if it is negative.
    pub fn as_u64(self) -> u64 {
        self.0.max(0) as u64
    }

    /// The same length as the standard library has it, 0 if it is negative.
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.as_u64())
    }
}

impl FromStr for Millis {
    type Err = NotMillis;

    fn from_str(text: &str) -> Result<Self, NotMillis> {
        let (sign, length) = match text.strip_prefix('-') {
            Some(length) => (-1, length),
            None => (1, text),
        };
        let length = humantime::parse_duration(length).map_err(|_| NotMillis)?;
        if length.subsec_nanos() % 1_000_000 != 0 {
            return Err(NotMillis);
        }
        i64::try_from(length.as_millis()).map(|ms| Millis(sign * ms)).map_err(|_| NotMillis)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "{sign}{}", humantime::format_duration(Duration::from_millis(self.0.unsigned_abs())))
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Millis;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(DURATION)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Millis, E> {
                text.parse().map_err(|NotMillis| E::invalid_value(Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// Reads and writes an `Option` as a value or `"off"`: `#[serde(with = "or_off")]`.
pub mod or_off {
    use std::fmt;
    use std::marker::PhantomData;
    use std::str::FromStr;

    use serde::de::{Error, Unexpected, Visitor};
    use serde::{Deserializer, Serializer};

    use super::{DURATION, Millis};

    /// What can be off.
    pub trait Switchable: FromStr + fmt::Display {
        /// What is expected where it is on.
        const EXPECTED: &'static str;
    }

    impl Switchable for Millis {
        const EXPECTED: &'static str = DURATION;
    }

    impl Switchable for std::net::SocketAddr {
        const EXPECTED: &'static str = "an address and port, such as \"127.0.0.1:8080\"";
    }

    impl Switchable for crate::checkpoint::store::StoreLocation {
        const EXPECTED: &'static str = "a path, file:///path, or s3://bucket/prefix";
    }

    impl Switchable for String {
        const EXPECTED: &'static str = "a text";
    }

    impl Switchable for crate::registry::RegistryUrls {
        const EXPECTED: &'static str = "http://host:port or https://host:port with the path of Confluent's API, and without a user; several of them \
             separated by commas";
    }

    impl Switchable for u32 {
        const EXPECTED: &'static str = "a whole number";
    }

    /// `off` for none, otherwise the value's own text.
    ///
    /// # Errors
    /// When the serializer fails.
    pub fn serialize<T: Switchable, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.collect_str(value),
            None => serializer.serialize_str("off"),
        }
    }

    /// None for `off`, otherwise the value that the text stands for.
    ///
    /// # Errors
    /// When the text stands for neither.
    pub fn deserialize<'de, T: Switchable, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
        struct TextOrOff<T>(PhantomData<T>);

        impl<T: Switchable> Visitor<'_> for TextOrOff<T> {
            type Value = Option<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}, or \"off\"", T::EXPECTED)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Option<T>, E> {
                if text == "off" {
                    return Ok(None);
                }
                text.parse().map(Some).map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Option<T>, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Option<T>, E> {
                self.visit_str(&number.to_string())
            }
        }

        deserializer.deserialize_any(TextOrOff(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let check = |text: &str, expected: Option<i64>| {
            assert_eq!(text.parse::<Millis>().ok(), expected.map(Millis), "{text:?}");
        };
        check("5m", Some(300_000));
        check("250ms", Some(250));
        check("0s", Some(0));
        check("-1m 30s", Some(-90_000));
        check("1500us", None);
        check("5", None);
        check("--5s", None);
        check("", None);
        check("-", None);
        check("off", None);
        check("five minutes", None);
        check("300000000years", None);
        check("99999999999999999999s", None);
    }

    #[test]
    fn a_text_that_was_shown_is_read_as_the_same() {
        for ms in [0, 1, -1, 999, 60_001, 86_400_000 * 31, 1 << 40, i64::MAX, i64::MIN + 1] {
            assert_eq!(Millis(ms).to_string().parse(), Ok(Millis(ms)), "{}", Millis(ms));
        }
    }

    #[test]
    fn values_that_may_be_off() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Settings {
            #[serde(with = "or_off")]
            timeout: Option<Millis>,
            #[serde(with = "or_off")]
            count: Option<u32>,
        }
        let check = |json: &str, timeout: Option<i64>, count: Option<u32>| {
            let settings = Settings { timeout: timeout.map(Millis), count };
            assert_eq!(serde_json::from_str::<Settings>(json).unwrap(), settings);
            assert_eq!(serde_json::from_str::<Settings>(&serde_json::to_string(&settings).unwrap()).unwrap(), settings);
        };
        check(r#"{"timeout": "5s", "count": 7}"#, Some(5_000), Some(7));
        check(r#"{"timeout": "off", "count": "off"}"#, None, None);
        check(r#"{"timeout": "off", "count": "7"}"#, None, Some(7));
        for json in [r#"{"timeout": 5, "count": 7}"#, r#"{"timeout": "5s", "count": -7}"#] {
            assert!(serde_json::from_str::<Settings>(json).is_err(), "{json}");
        }
    }
}
