//! What the stores have in common beside the port: how they fail to open, and how their schema is judged.

use sqlx::migrate::Migrator;

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

/// How a store's schema compares with the one that this build was written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaState {
    /// The same.
    Current,
    /// There is none.
    Missing,
    /// Migrations are still to be applied.
    Older,
    /// A newer build has migrated it.
    Newer,
}

impl SchemaState {
    /// Compares the migrations `applied` (version and checksum, ascending) with those of this build.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when a migration was applied in another wording.
    pub fn compare(ours: &Migrator, applied: &[(i64, Vec<u8>)]) -> Result<Self, StoreError> {
        let mut missing = 0_usize;
        for migration in ours.iter() {
            match applied.iter().find(|(version, _)| *version == migration.version) {
                None => missing += 1,
                Some((_, checksum)) if checksum.as_slice() == migration.checksum.as_ref() => {}
                Some(_) => {
                    return Err(StoreError::Broken(format!(
                        "migration {} was applied in another wording than this build has; restore the store from a backup or migrate a \
                         fresh one",
                        migration.version
                    )));
                }
            }
        }
        let known = |version: i64| ours.iter().any(|migration| migration.version == version);
        Ok(if applied.is_empty() {
            Self::Missing
        } else if applied.iter().any(|(version, _)| !known(*version)) {
            Self::Newer
        } else if missing > 0 {
            Self::Older
        } else {
            Self::Current
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use sqlx::{
        SqlSafeStr,
        migrate::{Migration, MigrationType},
    };

    fn migrator(versions: &[i64]) -> Migrator {
        let migration = |version: &i64| Migration::new(*version, "step".into(), MigrationType::Simple, "select 1".into_sql_str(), false);
        Migrator::with_migrations(versions.iter().map(migration).collect())
    }

    #[test]
    fn a_schema_is_judged_by_its_migrations() {
        let applied = |versions: &[i64]| -> Vec<(i64, Vec<u8>)> {
            migrator(versions).iter().map(|migration| (migration.version, migration.checksum.to_vec())).collect()
        };
        for (ours, theirs, expected) in [
            (&[1, 2][..], &[][..], SchemaState::Missing),
            (&[1, 2], &[1], SchemaState::Older),
            (&[1, 2], &[1, 2], SchemaState::Current),
            (&[1, 2], &[1, 2, 3], SchemaState::Newer),
            (&[1, 2], &[1, 3], SchemaState::Newer),
        ] {
            assert_eq!(SchemaState::compare(&migrator(ours), &applied(theirs)).unwrap(), expected, "{ours:?} {theirs:?}");
        }
        let edited = vec![(1, b"other".to_vec())];
        assert!(matches!(SchemaState::compare(&migrator(&[1]), &edited), Err(StoreError::Broken(_))));
    }
}
