//! RFC 3339 instants.
