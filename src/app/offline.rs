//! The pipeline without an edge: requests of this process, decided one after the other.

use super::{AppError, schema_is_current, wall_now};
use crate::{
    codec::request::Decoded,
    config::{Config, StoreKind},
    facts::{memory::Memory, tiered::FactTiers},
    ledger::{Store, postgres::Postgres, sqlite::Sqlite},
    pipeline::{self, Answer, Intake, Job, Pipeline, Requester, WallClock, deadline::deadline},
    telemetry::{Spans, Telemetry},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

/// On top of its deadline, how long an answer is waited for.
const ANSWER_MARGIN: Duration = Duration::from_secs(5);

/// Decides `requests` in this process, through the same store, pipeline and rules as a daemon, though without Redis. `heard` takes
/// each answer with how long it took; an approval counts as heard then.
///
/// # Errors
/// Why the store cannot be used; [`AppError::Unavailable`] names the daemon that has a SQLite file.
pub async fn offline(config: &Config, requests: Vec<Decoded>, heard: impl FnMut(Answer, Duration)) -> Result<(), AppError> {
    match config.store {
        StoreKind::Sqlite => {
            let store = Sqlite::open(&config.sqlite).await?;
            store.migrate().await?;
            decide(store, config, requests, heard).await
        }
        StoreKind::Postgres => decide(Postgres::connect(&config.postgres).await?, config, requests, heard).await,
    }
}

async fn decide<S: Store>(
    store: S,
    config: &Config,
    requests: Vec<Decoded>,
    mut heard: impl FnMut(Answer, Duration),
) -> Result<(), AppError> {
    schema_is_current(&store).await?;
    let telemetry = Telemetry::new(None, &config.telemetry);
    let wall: WallClock = Arc::new(wall_now);
    let facts = FactTiers::new(Memory::new(config.memory), None, store.clone(), telemetry.clone());
    let (pipeline, running) = pipeline::start(config.pipeline, facts, || store.ledger(), &wall, &telemetry);
    for request in requests {
        let began = Instant::now();
        heard(ask(&pipeline, config, request, &wall).await?, began.elapsed());
    }
    pipeline.idle().await;
    running.finish().await;
    Ok(())
}

/// One request. An approval that came too late is taken back, and what stands then is the answer.
async fn ask<S: Store>(pipeline: &Pipeline<S>, config: &Config, decoded: Decoded, wall: &WallClock) -> Result<Answer, AppError> {
    let received = Instant::now();
    let (default, reserve) = (config.pipeline.deadline_default, config.pipeline.deadline_reserve);
    let (deadline, ..) = deadline(received, wall(), decoded.sent_at, decoded.deadline_ms, default, reserve);
    let (requester, mut answer) = Waiting::new();
    pipeline.submit(Job {
        request: decoded.request,
        received,
        deadline,
        spans: Spans::default(),
        lossy_reply: false,
        redelivered: false,
        requester,
    });
    let patience = deadline.saturating_duration_since(received) + ANSWER_MARGIN;
    loop {
        let Ok(Ok(mut arrived)) = timeout(patience, answer).await else {
            return Err(AppError::Broken { what: "the pipeline did not answer".to_owned() });
        };
        match arrived.fresh.take() {
            Some(fresh) if fresh.deadline().is_some_and(|deadline| deadline <= Instant::now()) => {
                let (requester, second) = Waiting::new();
                fresh.void(Some(requester));
                answer = second;
            }
            fresh => {
                if let Some(fresh) = fresh {
                    fresh.heard();
                }
                return Ok(arrived);
            }
        }
    }
}

struct Waiting(oneshot::Sender<Answer>);

impl Waiting {
    fn new() -> (Box<Self>, oneshot::Receiver<Answer>) {
        let (sender, receiver) = oneshot::channel();
        (Box::new(Self(sender)), receiver)
    }
}

impl Requester for Waiting {
    fn answer(self: Box<Self>, answer: Answer) {
        // Nobody waits any more only when the process is ending; an approval in it then counts as unheard by itself.
        drop(self.0.send(answer));
    }
}
