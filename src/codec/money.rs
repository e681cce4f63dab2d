//! Decimal strings to minor units and back.
