//! The command line of Clicktide.

fn main() {}
