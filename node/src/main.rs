//! The Cortado daemon: one binary for every role.
fn main() {}
