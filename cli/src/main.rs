//! The pcocc command.
fn main() {}
