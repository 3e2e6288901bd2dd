//! Properties of librdkafka, and options of other libraries, as the configuration gives them, of which some are secret.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

/// Properties of librdkafka by name. `Debug` does not show what is secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties {
    values: BTreeMap<String, String>,
    /// Those that came from the environment or a file, whatever they are called.
    hidden: BTreeSet<String>,
}

/// Whether the value of a property of this name, or an inline value of the configuration, must not be shown.
pub fn names_a_secret(name: &str) -> bool {
    const PARTS: [&str; 8] =
        ["password", "secret", ".pem", "token", "jaas", "oauthbearer.config", "access_key", "customer_key"];
    let name = name.to_ascii_lowercase();
    PARTS.iter().any(|part| name.contains(part))
}

impl Properties {
    /// The value of a property, if it is set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Sets a property that may be shown unless its name says otherwise.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let name = name.into();
        self.hidden.remove(&name);
        self.values.insert(name, value.into());
    }

    /// Sets a property whose value is never shown.
    pub fn set_hidden(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let name = name.into();
        self.hidden.insert(name.clone());
        self.values.insert(name, value.into());
    }

    /// Whether the value of a property must not be shown.
    pub fn is_hidden(&self, name: &str) -> bool {
        names_a_secret(name) || self.hidden.contains(name)
    }

    /// Names and values, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Names and values as a map. What is secret is in it as it is.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.values.clone()
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |(name, value)| (name, if self.is_hidden(name) { "***" } else { value });
        f.debug_map().entries(self.iter().map(shown)).finish()
    }
}

impl<S: Into<String>> FromIterator<(S, S)> for Properties {
    fn from_iter<I: IntoIterator<Item = (S, S)>>(properties: I) -> Self {
        let values = properties.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Properties { values, hidden: BTreeSet::new() }
    }
}

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let values = BTreeMap::<String, PropertyValue>::deserialize(deserializer)?;
        Ok(values.into_iter().map(|(name, PropertyValue(value))| (name, value)).collect())
    }
}

/// A string, number or boolean as librdkafka takes it.
struct PropertyValue(String);

impl<'de> Deserialize<'de> for PropertyValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = PropertyValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a number, or true or false")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<PropertyValue, E> {
                Ok(PropertyValue(text.to_owned()))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<PropertyValue, E> {
                Ok(PropertyValue(value.to_string()))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<PropertyValue, E> {
                Ok(PropertyValue(number.to_string()))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<PropertyValue, E> {
                Ok(PropertyValue(number.to_string()))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<PropertyValue, E> {
                Ok(PropertyValue(number.to_string()))
            }
        }

        deserializer.deserialize_any(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let mut properties: Properties =
            [("sasl.password", "hunter2"), ("ssl.key.pem", "hunter2"), ("linger.ms", "5")].into_iter().collect();
        properties.set_hidden("sasl.username", "hunter2");
        let shown = format!("{properties:?} {properties:#?}");
        assert!(!shown.contains("hunter2") && shown.contains("linger.ms") && shown.contains('5'), "{shown}");
        assert_eq!(properties.get("sasl.password"), Some("hunter2"));
    }

    #[test]
    fn values_may_be_text_numbers_and_booleans() {
        let properties: Properties = serde_json::from_str(r#"{"a": "x", "b": -7, "c": true, "d": 0.5}"#).unwrap();
        assert_eq!(properties.iter().collect::<Vec<_>>(), [("a", "x"), ("b", "-7"), ("c", "true"), ("d", "0.5")]);
        assert!(serde_json::from_str::<Properties>(r#"{"a": []}"#).is_err());
    }
}
