//! Searching short texts eight bytes at a time.

/// A byte in every byte of a word.
#[inline]
pub(crate) const fn repeat(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Marks every zero byte of `word` in its upper bit, and perhaps bytes above one.
#[inline]
pub(crate) const fn zeros(word: u64) -> u64 {
    word.wrapping_sub(repeat(1)) & !word & repeat(0x80)
}

/// Whether `marks` is not zero for any eight bytes that follow each other in `text`, which end at a multiple of eight or at its
/// end. A shorter text is filled up with the letter x.
#[inline]
pub(crate) fn any(text: &[u8], marks: impl Fn(u64) -> u64) -> bool {
    let of = |bytes: &[u8; 8]| marks(u64::from_le_bytes(*bytes));
    let (words, rest) = text.as_chunks();
    let found = words.iter().fold(0, |found, word| found | of(word));
    let at_the_end = match text.last_chunk() {
        Some(last) => of(last),
        None => {
            let mut filled = [b'x'; 8];
            filled[..rest.len()].copy_from_slice(rest);
            of(&filled)
        }
    };
    found | at_the_end != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_found_wherever_it_stands() {
        for length in 0..40 {
            // What short texts are filled up with is found in them.
            for byte in (0..=u8::MAX).filter(|byte| *byte != b'x') {
                let found = |text: &[u8]| any(text, |word| zeros(word ^ repeat(byte)));
                let mut text = vec![byte ^ 1; length];
                assert!(!found(&text));
                for place in 0..length {
                    text[place] = byte;
                    assert!(found(&text));
                    text[place] = byte ^ 1;
                }
            }
        }
    }
}
