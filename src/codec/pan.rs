//! Card numbers in bytes: found, and blotted out.

/// Whether the bytes hold what looks like a card number.
#[must_use]
pub fn contains(bytes: &[u8]) -> bool {
    bytes.split(|byte| !byte.is_ascii_digit()).any(|run| (13..=19).contains(&run.len()) && run[0] == b'4')
}

/// The bytes with every such number blotted out.
#[must_use]
pub fn redact(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| if byte.is_ascii_digit() { b'*' } else { *byte }).collect()
}
