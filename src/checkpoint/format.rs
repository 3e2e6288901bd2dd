//! What pane objects and manifests have in common: the checksum, and why bytes are refused.

use xxhash_rust::xxh3::xxh3_64;

/// Why bytes are not what they should be. Nothing of what they hold may be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// They begin as something else does.
    #[error("it is no {what} of Clicktide")]
    Foreign {
        /// What they should be: `pane object` or `manifest`.
        what: &'static str,
    },
    /// They begin well, but end too early.
    #[error("it is cut off: {0}")]
    Truncated(String),
    /// They are not as they were written.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// They are whole, but of a format that this program does not know.
    #[error(
        "it is of format version {found}, and this program reads version {known}; a later release may have written it"
    )]
    Version {
        /// The version they are of.
        found: u32,
        /// The version that is known here.
        known: u32,
    },
}

/// XXH3, 64 bits, of `bytes`: 16 hexadecimal digits, as `xxhsum -H3` prints them. It tells damage, not forgery. About
/// 0.1 ns per byte.
///
/// ```
/// assert_eq!(clicktide::checkpoint::format::checksum(b""), "2d06800538d394c2");
/// ```
pub fn checksum(bytes: &[u8]) -> String {
    format!("{:016x}", xxh3_64(bytes))
}
