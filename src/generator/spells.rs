//! Spells: stretches of a run in which something is so, once or again and again.

use crate::millis::Millis;

/// When spells begin, and how long they last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spells {
    start_us: u64,
    duration_us: u64,
    repeat_us: Option<u64>,
}

/// What is so at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spell {
    /// The number of the spell that is on, from 0; none between spells.
    pub number: Option<u64>,
    /// When that changes, µs after the start of the run; `u64::MAX` for never.
    pub until_us: u64,
}

impl Spells {
    /// The first spell begins `start` after the start of the run, the others `repeat` after one another.
    pub fn new(start: Millis, duration: Millis, repeat: Option<Millis>) -> Self {
        let us = |millis: Millis| millis.as_u64() * 1_000;
        Spells { start_us: us(start), duration_us: us(duration), repeat_us: repeat.map(us) }
    }

    /// The spell `offset_us` µs after the start of the run.
    pub fn at(&self, offset_us: u64) -> Spell {
        let Some(since_first_us) = offset_us.checked_sub(self.start_us) else {
            return Spell { number: None, until_us: self.start_us };
        };
        let (number, since_latest_us, next_us) = match self.repeat_us {
            Some(repeat_us) => {
                let since_latest_us = since_first_us % repeat_us;
                (since_first_us / repeat_us, since_latest_us, offset_us - since_latest_us + repeat_us)
            }
            None => (0, since_first_us, u64::MAX),
        };
        if since_latest_us < self.duration_us {
            Spell { number: Some(number), until_us: offset_us - since_latest_us + self.duration_us }
        } else {
            Spell { number: None, until_us: next_us }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spells_come_and_go() {
        let check = |repeat: Option<i64>, offset_us, number, until_us| {
            let spells = Spells::new(Millis(10), Millis(2), repeat.map(Millis));
            assert_eq!(spells.at(offset_us), Spell { number, until_us }, "{repeat:?} {offset_us}");
        };
        for repeat in [None, Some(5)] {
            check(repeat, 0, None, 10_000);
            check(repeat, 9_999, None, 10_000);
            check(repeat, 10_000, Some(0), 12_000);
            check(repeat, 11_999, Some(0), 12_000);
        }
        check(None, 12_000, None, u64::MAX);
        check(Some(5), 12_000, None, 15_000);
        check(Some(5), 15_001, Some(1), 17_000);
        check(Some(2), 12_000, Some(1), 14_000);
    }
}
