//! The tidegate command: operator commands, serve and dev.

fn main() {}
