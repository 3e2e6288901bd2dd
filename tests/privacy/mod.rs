//! What the tests of privacy are made of.

pub mod outputs;
pub mod people;
pub mod search;
