//! jitauth
fn main() {}
