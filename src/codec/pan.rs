//! Card numbers in bytes: found, and blotted out.
