//! Presets of the settings, by name.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A kind of traffic: a name for some keys and their values.
///
/// Whoever loads the configuration applies it ([`Scenario::keys`]): above the sources that stand below the one that names it, and
/// below every key that is given there or above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Clean traffic at a steady rate; sets nothing.
    #[default]
    Normal,
    /// 5,000 events/s for 5 minutes, after a minute at the usual rate.
    Burst,
    /// Late, doubled, damaged and invalid records, wrong clocks, late uploads, partitions that fall silent.
    Messy,
    /// Every 4 minutes another page gets half of the views for 2 minutes, at three times the rate.
    FlashCrowd,
    /// Five bots make 30 % of the events.
    Bots,
    /// Few users and 20 events/s, of which bots make much, and partitions that fall silent for long.
    Night,
}

impl Scenario {
    /// All of them.
    pub fn all() -> &'static [Scenario] {
        Scenario::value_variants()
    }

    /// The name, as in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Normal => "normal",
            Scenario::Burst => "burst",
            Scenario::Messy => "messy",
            Scenario::FlashCrowd => "flash-crowd",
            Scenario::Bots => "bots",
            Scenario::Night => "night",
        }
    }

    /// The one of this name.
    pub fn of_name(name: &str) -> Option<Scenario> {
        Scenario::all().iter().copied().find(|scenario| scenario.name() == name)
    }

    /// What it sets: keys of the section of the generator, and their values as texts.
    pub fn keys(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Scenario::Normal => &[],
            Scenario::Burst => &[
                ("burst.enabled", "true"),
                ("burst.events_per_second", "5000"),
                ("burst.start", "1m"),
                ("burst.duration", "5m"),
            ],
            Scenario::Messy => &[
                ("delays.enabled", "true"),
                ("mobile.enabled", "true"),
                ("duplicates.enabled", "true"),
                ("malformed.enabled", "true"),
                ("invalid.enabled", "true"),
                ("clock_skew.enabled", "true"),
                ("silence.enabled", "true"),
            ],
            Scenario::FlashCrowd => &[
                ("flash_crowd.enabled", "true"),
                ("flash_crowd.share", "0.5"),
                ("flash_crowd.start", "1m"),
                ("flash_crowd.duration", "2m"),
                ("flash_crowd.repeat", "4m"),
                ("burst.enabled", "true"),
                ("burst.events_per_second", "3000"),
                ("burst.start", "1m"),
                ("burst.duration", "2m"),
                ("burst.repeat", "4m"),
            ],
            Scenario::Bots => &[("bots.enabled", "true"), ("bots.count", "5"), ("bots.share", "0.3")],
            Scenario::Night => &[
                ("events_per_second", "20"),
                ("active_share", "0.02"),
                ("bots.enabled", "true"),
                ("bots.count", "3"),
                ("bots.share", "0.4"),
                ("silence.enabled", "true"),
                ("silence.start", "1m"),
                ("silence.duration", "3m"),
                ("silence.repeat", "5m"),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_configurations_and_of_the_command_line() {
        for scenario in Scenario::all() {
            assert_eq!(serde_json::to_value(scenario).unwrap(), scenario.name());
            assert_eq!(scenario.to_possible_value().unwrap().get_name(), scenario.name());
            assert_eq!(Scenario::of_name(scenario.name()), Some(*scenario));
        }
        assert_eq!(Scenario::of_name("calm"), None);
    }

    #[test]
    fn the_document_lists_what_each_sets() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/generator.md");
        let text = std::fs::read_to_string(file).unwrap();
        for scenario in Scenario::all() {
            let set: Vec<_> = scenario.keys().iter().map(|(key, value)| format!("`{key} = {value}`")).collect();
            let set = if set.is_empty() { "nothing".to_owned() } else { set.join(", ") };
            let row = format!("| `{}` | {set} |", scenario.name());
            assert!(text.lines().any(|line| line == row), "docs/generator.md has no line {row}");
        }
    }
}
