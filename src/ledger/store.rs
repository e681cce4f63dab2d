//! What the stores have in common beside the port: how they fail to open, and how their schema is judged.

/// Why a store cannot be used. Each kind asks something else of the operator.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// It does not answer, or cannot be opened. It may come back by itself.
    #[error("the store cannot be reached: {0}")]
    Unreachable(String),
    /// It answers, and does not let us in: credentials or permissions.
    #[error("the store refuses: {0}")]
    Refused(String),
    /// Another daemon works on it.
    #[error("the store is in use by {holder}")]
    Locked {
        /// Who: a process id, as far as it can be told.
        holder: String,
    },
    /// It answers, but not as it should: a damaged file, a migration that was edited.
    #[error("the store is broken: {0}")]
    Broken(String),
}
