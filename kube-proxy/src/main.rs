//! Parse, build, run.

fn main() {}
