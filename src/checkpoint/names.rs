//! The names of what a job keeps in its checkpoint store. Anything else found there is left alone.

use clicktide_dataflows::time::Tick;

/// Where the markers of runs are.
pub const GENERATIONS: &str = "generations/";
/// Where pane objects are.
pub const PANES: &str = "panes/";
/// Where manifests of automatic checkpoints are.
pub const CHECKPOINTS: &str = "checkpoints/";
/// Where manifests that were asked for are.
pub const SAVEPOINTS: &str = "savepoints/";
/// Where probes are.
pub const PROBES: &str = "probes/";

/// The longest name of a savepoint.
pub const SAVEPOINT_NAME_BYTES_MAX: usize = 200;

/// The marker of a run.
pub fn generation(generation: i64) -> String {
    format!("{GENERATIONS}{generation}")
}

/// The run whose marker has this name.
pub fn generation_of(name: &str) -> Option<i64> {
    let number = name.strip_prefix(GENERATIONS)?.parse().ok()?;
    (generation(number) == name).then_some(number)
}

/// The manifest of a run's checkpoint.
///
/// From 2001 to 2286 the names are in the order of the window ends. Nothing depends on it: [`checkpoint_of`] does the same
/// for all.
///
/// ```
/// use clicktide::checkpoint::names::{checkpoint, checkpoint_of};
/// use clicktide_dataflows::time::Tick;
///
/// assert_eq!(checkpoint(Tick(1_795_737_600_000), 7), "checkpoints/1795737600000-7");
/// assert_eq!(checkpoint_of("checkpoints/-0000000010000-7"), Some((Tick(-10_000), 7)));
/// ```
pub fn checkpoint(through: Tick, generation: i64) -> String {
    let sign = if through.0 < 0 { "-" } else { "" };
    format!("{CHECKPOINTS}{sign}{:013}-{generation}", through.0.unsigned_abs())
}

/// The window end and the run of the checkpoint whose manifest has this name.
pub fn checkpoint_of(name: &str) -> Option<(Tick, i64)> {
    let (through, generation) = name.strip_prefix(CHECKPOINTS)?.rsplit_once('-')?;
    let (through, generation) = (Tick(through.parse().ok()?), generation.parse().ok()?);
    (checkpoint(through, generation) == name).then_some((through, generation))
}

/// The manifest of the savepoint that is called so.
///
/// # Errors
/// When a savepoint can't be called so.
pub fn savepoint(called: &str) -> Result<String, BadName> {
    if is_plain(called) { Ok(format!("{SAVEPOINTS}{called}")) } else { Err(BadName(called.to_owned())) }
}

/// What the savepoint whose manifest has this name is called.
pub fn savepoint_of(name: &str) -> Option<&str> {
    name.strip_prefix(SAVEPOINTS).filter(|called| is_plain(called))
}

/// A pane object of a run; `rest` tells it from the run's others and is letters, digits, dots, underscores and hyphens.
pub fn pane(generation: i64, rest: impl std::fmt::Display) -> String {
    format!("{PANES}{generation}-{rest}")
}

/// The run that wrote the pane object with this name.
pub fn pane_generation(name: &str) -> Option<i64> {
    own(name.strip_prefix(PANES)?)
}

/// A probe of a run.
pub fn probe(generation: i64, rest: impl std::fmt::Display) -> String {
    format!("{PROBES}{generation}-{rest}")
}

/// The run that put the probe with this name.
pub fn probe_generation(name: &str) -> Option<i64> {
    own(name.strip_prefix(PROBES)?)
}

/// The run that wrote the object with this name; none for a savepoint's.
pub fn generation_in(name: &str) -> Option<i64> {
    let checkpoint = || checkpoint_of(name).map(|(_, generation)| generation);
    generation_of(name).or_else(|| pane_generation(name)).or_else(|| probe_generation(name)).or_else(checkpoint)
}

/// `7` of `7-anything`.
fn own(name: &str) -> Option<i64> {
    let (generation, rest) = name.split_once('-')?;
    let number: i64 = generation.parse().ok()?;
    (is_plain(rest) && number.to_string() == generation).then_some(number)
}

/// A name that no savepoint can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a savepoint can't be called {0:?}: its name must be 1 to {SAVEPOINT_NAME_BYTES_MAX} letters, digits, dots, underscores and hyphens"
)]
pub struct BadName(String);

/// What can stand between two slashes in any store, and on any file system.
pub(super) fn is_plain(segment: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=SAVEPOINT_NAME_BYTES_MAX).contains(&segment.len())
        && segment.bytes().all(plain)
        && !matches!(segment, "." | "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_back() {
        for through in [0, 10_000, -10_000, 1_795_737_600_000, i64::MIN, i64::MAX] {
            let name = checkpoint(Tick(through), 7);
            assert_eq!(checkpoint_of(&name), Some((Tick(through), 7)), "{name}");
        }
        assert_eq!(generation_of(&generation(7)), Some(7));
        assert_eq!(pane_generation(&pane(7, "0-1")), Some(7));
        assert_eq!(probe_generation(&probe(7, "x")), Some(7));
        assert_eq!(savepoint_of(&savepoint("before.v2_x-1").unwrap()), Some("before.v2_x-1"));
    }

    #[test]
    fn names_that_are_not_ours() {
        for name in ["checkpoints/10-7", "checkpoints/x-7", "checkpoints/0000000000010", "checkpoints/", "panes/7-1"] {
            assert_eq!(checkpoint_of(name), None, "{name}");
        }
        for name in ["checkpoints/0000000000010-07", "checkpoints/+000000000010-7", "checkpoints/0000000000010-7#1"] {
            assert_eq!(checkpoint_of(name), None, "{name}");
        }
        assert_eq!(generation_of("generations/07"), None);
        for name in ["panes/7", "panes/7-", "panes/07-1", "panes/7-a b", "panes/7-1#1", "panes/7-a/b", "probes/7-1"] {
            assert_eq!(pane_generation(name), None, "{name}");
        }
        for called in ["", ".", "..", "a/b", "a b", "ü", "a\0", &"x".repeat(201)] {
            let error = savepoint(called).unwrap_err().to_string();
            assert!(error.contains("1 to 200 letters"), "{error}");
            assert_eq!(savepoint_of(&format!("{SAVEPOINTS}{called}")), None);
        }
    }
}
