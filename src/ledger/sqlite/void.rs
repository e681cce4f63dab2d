//! Taking an approval back.

use super::{
    arguments::Parameters,
    commit::{SqliteLedger, Stopped},
    group, statements,
};
use crate::ledger::{LedgerError, Void, Voided};
use sqlx::Row;
use std::sync::Arc;

/// The guard that means that the approval is not ours to take back any more.
const STANDS: &str = "stands";

impl SqliteLedger {
    pub(super) async fn take_back(&mut self, void: &Void) -> Result<Voided, LedgerError> {
        let parameters = Parameters::of(statements::VOID)
            .text(void.id.as_str())?
            .bytes(&void.response)?
            .text(void.id.as_str())?
            .integer(void.held)?
            .integer(void.account.0)?
            .integer(void.held)?
            .integer(void.account.0)?
            .integer(void.held)?
            .text(&group::keys(&void.counters))?
            .integer(i64::from(void.reason.number()))?
            .bytes(&void.decline)?
            .text(void.id.as_str())?
            .text(void.id.as_str())?;
        match self.run(parameters).await {
            Ok(_) => Ok(Voided::Done),
            Err(Stopped::By(guard)) if guard == STANDS => self.what_stands(void).await,
            Err(stopped) => Err(stopped.into_error()),
        }
    }

    /// What an approval has become that could not be taken back. It cannot become voidable again, so there is no race with the
    /// guard that said so.
    async fn what_stands(&mut self, void: &Void) -> Result<Voided, LedgerError> {
        let parameters = Parameters::of(statements::STANDS).bytes(&void.decline)?.text(void.id.as_str())?;
        let rows = self.run(parameters).await.map_err(Stopped::into_error)?;
        let Some(row) = rows.first() else {
            return Err(LedgerError::Refused(format!("{} was never committed", void.id.as_str())));
        };
        let stored: &[u8] = row.try_get(0).map_err(|error| LedgerError::Transient(error.to_string()))?;
        Ok(if stored == &*void.decline { Voided::Done } else { Voided::Stands(Arc::from(stored)) })
    }
}
