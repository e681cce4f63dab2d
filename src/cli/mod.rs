//! One file per subcommand.

pub mod seed;
