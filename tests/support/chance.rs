//! Chance that can be repeated.

/// Numbers that only look like chance.
pub struct Chance(u64);

impl Chance {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    /// From 0 up to `end`, not included.
    pub fn below(&mut self, end: i64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as i64 % end
    }

    pub fn one_in(&mut self, number: i64) -> bool {
        self.below(number) == 0
    }
}
