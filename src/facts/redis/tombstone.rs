//! Telling Redis that facts have changed.

use super::{BACKGROUND_TIMEOUT, Redis, Settings, TOMBSTONE_TTL, Task, client, options, row, silent};
use crate::{
    domain::time::Timestamp,
    facts::{
        FactError,
        change::{Announced, Change},
    },
};
use fred::prelude::{ClientLike, FredResult, Value};
use std::{sync::atomic::Ordering::Relaxed, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout_at},
};

/// Changes that wait for a Redis that cannot be reached. Of more, the rows live out their time and cost a refused commit each.
pub(super) const WAITING_MAX: usize = 10_000;
/// Changes told in one command.
const BATCH_MAX: usize = 128;
/// How often Redis may refuse a batch before it is given up.
const REFUSALS_MAX: u32 = 5;
/// The pauses between attempts double between these.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Tells a Redis that nothing is known about yet of some changes, and returns when it has heard of all of them: for commands. Says how
/// many rows have a tombstone now that had none.
///
/// # Errors
/// [`FactError`] when it could not be told within `patience`. Its rows live out their time then, and the commits that were decided on
/// them are refused and decided again: slower, never wrong.
pub async fn tell(settings: &Settings, changes: &[Change], at: Option<Timestamp>, patience: Duration) -> Result<usize, FactError> {
    let until = Instant::now() + patience;
    let client = client(settings)?;
    let late = || FactError::Unavailable(format!("Redis did not answer within {} ms", patience.as_millis()));
    let failed = |error: fred::error::Error| FactError::Unavailable(format!("Redis could not be told: {error}"));
    let _connection = timeout_at(until, client.init()).await.map_err(|_| late())?.map_err(failed)?;
    let announced: Vec<_> = changes.iter().map(|change| Announced { change: change.clone(), at }).collect();
    let mut buried = 0;
    for batch in announced.chunks(BATCH_MAX) {
        for (task, keys, values) in commands(batch) {
            let client = client.with_options(&options(patience));
            let rows = timeout_at(until, task.run(&client, &keys, &values)).await.map_err(|_| late())?.map_err(failed)?;
            buried += usize::try_from(rows).unwrap_or_default();
        }
    }
    // Everything was answered; a connection that does not end well has told what it had to.
    drop(timeout_at(until, client.quit()).await);
    Ok(buried)
}

/// Tells what is ordered, in order, and again until it has been heard.
pub(super) async fn bury(redis: Redis, mut orders: mpsc::Receiver<Announced>) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    let (mut pause, mut refusals) = (PAUSE, 0);
    loop {
        if batch.is_empty() && orders.recv_many(&mut batch, BATCH_MAX).await == 0 {
            return;
        }
        let closed = redis.inner.breaker.is_closed();
        let refused = match closed {
            true => write(&redis, &batch).await.map_err(|error| !silent(&error)),
            false => Err(false),
        };
        if refused == Err(true) {
            refusals += 1;
        }
        if refused.is_ok() || refusals >= REFUSALS_MAX {
            if refused.is_err() {
                // It answers, and does not want them: out of memory, read only, not allowed. Others must not wait behind these.
                batch.iter().for_each(|_| redis.inner.telemetry.tombstone_lost());
            }
            batch.clear();
            (pause, refusals) = (PAUSE, 0);
            redis.inner.behind.store(!orders.is_empty(), Relaxed);
        } else {
            redis.inner.behind.store(true, Relaxed);
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

async fn write(redis: &Redis, batch: &[Announced]) -> FredResult<()> {
    for (task, keys, values) in commands(batch) {
        redis.run(task, keys, values, BACKGROUND_TIMEOUT).await?;
    }
    Ok(())
}

fn commands(batch: &[Announced]) -> Vec<(Task, Vec<String>, Vec<Value>)> {
    let seconds = i64::try_from(TOMBSTONE_TTL.as_secs()).unwrap_or(i64::MAX);
    let (mut keys, mut values) = (Vec::new(), Vec::<Value>::new());
    let mut commands = Vec::new();
    for Announced { change, at } in batch {
        let (stale, id, version) = row::stale(change);
        for key in stale {
            keys.push(key);
            values.push(version.map_or_else(String::new, |version| version.to_string()).into());
            values.push(row::rest_of_tombstone(*at, id).into());
        }
        if let (Change::Everything, Some(at)) = (change, at) {
            commands.push((Task::Everything, vec![row::EVERYTHING_KEY.to_owned()], vec![at.0.into(), seconds.into()]));
        }
    }
    if !keys.is_empty() {
        values.push(seconds.into());
        commands.push((Task::Bury, keys, values));
    }
    commands
}
