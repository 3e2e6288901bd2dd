//! The greeting of two processes, at either end, against somebody who speaks the truth at some turns and anything at others.
//!
//! The first byte says at which end (bit 0), and at which of the three turns the truth is said (bits 1 to 3); what is said at
//! the other turns are the rest's parts, with a line `==` between them. Nobody who has not said the truth where it proves that
//! the secret is known is let in; whoever always does is.

use clicktide::cluster::fuzzing::{Words, accept, connect};

/// Checks one conversation.
pub fn run(data: &[u8]) {
    let Some((flags, mut rest)) = data.split_first() else { return };
    let says: [Words<'_>; 3] = std::array::from_fn(|turn| {
        if flags >> (turn + 1) & 1 == 1 {
            return Words::Right;
        }
        let (words, others) = super::parts(rest);
        rest = others;
        Words::Other(words)
    });
    let outcome = if flags & 1 == 0 { accept(says) } else { connect(says) };
    if says[1] != Words::Right {
        assert!(outcome.is_err(), "whoever does not know the secret was let in: {says:?}");
    }
    if says == [Words::Right; 3] {
        assert_eq!(outcome, Ok(()));
    }
}
