//! The bytes of a body, and Avro's primitive types read from their front.

use super::DecodeError;

/// What is left to read of a body. Nothing is allocated, whatever the bytes claim.
pub(super) struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// All of `body`.
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    /// How many bytes are left.
    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// That nothing is left.
    pub(super) fn finish(&self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(DecodeError::TrailingBytes { count }),
        }
    }

    /// A `long`: a zigzag varint of at most ten bytes.
    #[inline]
    pub(super) fn long(&mut self) -> Result<i64, DecodeError> {
        match self.rest {
            [first, rest @ ..] if *first < 0x80 => {
                self.rest = rest;
                Ok(unzigzag(u64::from(*first)))
            }
            _ => self.long_of_several_bytes(),
        }
    }

    #[inline]
    fn long_of_several_bytes(&mut self) -> Result<i64, DecodeError> {
        let Some(eight) = self.rest.first_chunk() else { return self.long_by_bytes() };
        let word = u64::from_le_bytes(*eight);
        // The last byte of a varint is the one without its upper bit.
        let ends = !word & 0x8080_8080_8080_8080;
        if ends == 0 {
            return self.long_by_bytes();
        }
        let bits = ends.trailing_zeros() + 1;
        let groups = word & (u64::MAX >> (64 - bits)) & 0x7f7f_7f7f_7f7f_7f7f;
        // Groups of 7 bits in 8 are moved together, to 14 in 16, 28 in 32 and 56.
        let pairs = (groups & 0x007f_007f_007f_007f) | ((groups & 0x7f00_7f00_7f00_7f00) >> 1);
        let fours = (pairs & 0x0000_3fff_0000_3fff) | ((pairs & 0x3fff_0000_3fff_0000) >> 2);
        let value = (fours & 0x0fff_ffff) | ((fours & 0x0fff_ffff_0000_0000) >> 4);
        self.rest = &self.rest[bits as usize / 8..];
        Ok(unzigzag(value))
    }

    /// A `long` near the body's end, or one that is longer than eight bytes.
    #[cold]
    fn long_by_bytes(&mut self) -> Result<i64, DecodeError> {
        let mut value = 0;
        for (index, byte) in self.rest.iter().enumerate() {
            // The tenth byte holds the 64th bit, and nothing else.
            if index == 9 && *byte > 1 {
                return Err(DecodeError::BadVarint);
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if *byte < 0x80 {
                self.rest = &self.rest[index + 1..];
                return Ok(unzigzag(value));
            }
        }
        Err(DecodeError::Truncated)
    }

    /// An `int`: a `long` within 32 bits.
    #[inline]
    pub(super) fn int(&mut self) -> Result<i32, DecodeError> {
        i32::try_from(self.long()?).map_err(|_| DecodeError::IntOutOfRange)
    }

    /// A `double`, little-endian.
    #[inline]
    pub(super) fn double(&mut self) -> Result<f64, DecodeError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(f64::from_le_bytes(*bytes))
    }

    /// The next `count` bytes.
    #[inline]
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A length, and as many bytes: the encoding of `bytes`, of `string`, and of what follows a block's byte count.
    #[inline]
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.long()?;
        if length < 0 {
            return Err(DecodeError::NegativeLength);
        }
        self.take(usize::try_from(length).map_err(|_| DecodeError::Truncated)?)
    }

    /// A `string`.
    #[inline]
    pub(super) fn string(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| DecodeError::InvalidUtf8)
    }
}

/// Zigzag puts numbers near zero first: 0, -1, 1, -2, ...
fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints() {
        fn check(bytes: &[u8], expected: Result<i64, DecodeError>) {
            assert_eq!(Input::new(bytes).long(), expected, "{bytes:x?}");
        }
        check(&[0], Ok(0));
        check(&[1], Ok(-1));
        check(&[2], Ok(1));
        check(&[0x80, 0x01], Ok(64));
        // Longer than necessary is allowed, as everywhere.
        check(&[0x80, 0x00], Ok(0));
        check(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], Ok(i64::MIN));
        check(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], Ok(i64::MAX));
        check(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], Err(DecodeError::BadVarint));
        check(&[0x80; 11], Err(DecodeError::BadVarint));
        check(&[0x80; 9], Err(DecodeError::Truncated));
        check(&[], Err(DecodeError::Truncated));
    }

    #[test]
    fn varints_of_any_length_end_where_they_end() {
        for bits in 0..64 {
            for value in [1 << bits, !(1 << bits), i64::MAX >> bits, i64::MIN >> bits, 0x5555_5555_5555_5555 >> bits] {
                let mut rest = ((value << 1) ^ (value >> 63)) as u64;
                let mut bytes = Vec::new();
                while rest >= 0x80 {
                    bytes.push(rest as u8 | 0x80);
                    rest >>= 7;
                }
                bytes.push(rest as u8);
                // Whatever follows is left, in the same word or at the end.
                for following in [&[][..], &[0xff; 3], &[0; 20]] {
                    let body = [&bytes, following].concat();
                    let mut input = Input::new(&body);
                    assert_eq!((input.long(), input.remaining()), (Ok(value), following.len()), "{body:x?}");
                }
                for end in 0..bytes.len() {
                    assert_eq!(Input::new(&bytes[..end]).long(), Err(DecodeError::Truncated));
                }
            }
        }
    }

    #[test]
    fn lengths() {
        fn check(bytes: &[u8], expected: Result<&str, DecodeError>) {
            assert_eq!(Input::new(bytes).string(), expected, "{bytes:x?}");
        }
        check(&[4, b'o', b'k', b'!'], Ok("ok"));
        check(&[6, b'o', b'k'], Err(DecodeError::Truncated));
        check(&[1], Err(DecodeError::NegativeLength));
        check(&[2, 0xff], Err(DecodeError::InvalidUtf8));
        // The longest length there is allocates nothing.
        check(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], Err(DecodeError::Truncated));
    }
}
