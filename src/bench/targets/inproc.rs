//! The pipeline and its store in this process, without an edge: what the machine could do if nothing came in and nothing went out.
#![expect(clippy::disallowed_methods, reason = "the load is measured from outside, on the real clock")]

use super::{Parcel, Target};
use crate::{
    bench::{
        pacer::wall_now,
        record::{Reply, Seat},
    },
    codec::request,
    facts::{
        invalidator::{self, Invalidator},
        memory::{self, Memory},
        tiered::FactTiers,
    },
    ledger::Store,
    pipeline::{self, Answer, Intake, Job, Pipeline, Requester, Running, WallClock, deadline::deadline},
    telemetry::{Span, Spans, Telemetry},
};
use std::{
    sync::Arc,
    time::{Duration, Instant as Clock},
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep},
};

/// How often it is looked at whether memory is warm.
const POLL: Duration = Duration::from_millis(5);

/// A pipeline at work.
pub struct Inproc<S> {
    pipeline: Pipeline<S>,
    settings: pipeline::Settings,
    /// To whoever writes answers down: that is work of the bench, which a lane must not be held up by.
    ear: mpsc::Sender<Heard>,
    /// What keeps memory fresh, while this lasts.
    _news: JoinSet<()>,
}

impl<S: Store> Inproc<S> {
    /// Starts the pipeline on a store; with `freshness` as a daemon does, listening for news and with every card in memory. End it with
    /// [`Running::finish`] after [`Inproc::idle`].
    pub async fn start(
        settings: pipeline::Settings,
        memory: memory::Settings,
        freshness: Option<invalidator::Settings>,
        store: &S,
    ) -> (Self, Running) {
        let telemetry = Telemetry::default();
        let wall: WallClock = Arc::new(wall_now);
        let facts = FactTiers::new(Memory::new(memory), None, store.clone(), telemetry.clone());
        let mut news = JoinSet::new();
        if let Some(freshness) = freshness {
            let readiness = telemetry.readiness();
            news = Invalidator::new(facts.clone(), freshness, wall.clone()).start(None, Some(readiness.check("warm")));
            while !readiness.is_ready() && !news.is_empty() {
                sleep(POLL).await;
            }
        }
        let (pipeline, running) = pipeline::start(settings, facts, || store.ledger(), &wall, &telemetry);
        if freshness.is_some() {
            pipeline.read_ahead().await;
        }
        // Each answer has the place of its request, so there is room for all of them.
        let (ear, mut heard) = mpsc::channel::<Heard>(settings.in_flight_max.max(1));
        tokio::spawn(async move {
            while let Some(answer) = heard.recv().await {
                answer.note();
            }
        });
        (Self { pipeline, settings, ear, _news: news }, running)
    }

    /// Waits until every request is answered.
    pub async fn idle(&self) {
        self.pipeline.idle().await;
    }
}

impl<S: Store> Target for Inproc<S> {
    fn send(&self, parcel: Parcel) {
        let Parcel { body, seat } = parcel;
        let decoded = match request::decode(&body) {
            Ok(decoded) => decoded,
            Err(error) => return seat.refused(|| error.to_string()),
        };
        let (received, settings) = (Instant::now(), &self.settings);
        seat.sent(Clock::now());
        let (ends, _, queued) =
            deadline(received, wall_now(), decoded.sent_at, decoded.deadline_ms, settings.deadline_default, settings.deadline_reserve);
        let mut spans = Spans::default();
        if let Some(queued) = queued {
            spans.set(Span::Queue, queued);
        }
        self.pipeline.submit(Job {
            request: decoded.request,
            received,
            deadline: ends,
            spans,
            lossy_reply: false,
            redelivered: false,
            requester: Box::new(Waiting { seat, received, ear: self.ear.clone() }),
        });
    }
}

/// A requester who only takes note.
struct Waiting {
    seat: Seat,
    received: Instant,
    ear: mpsc::Sender<Heard>,
}

/// An answer, and when it was heard.
struct Heard {
    seat: Seat,
    at: Clock,
    body: Arc<[u8]>,
    journaled: bool,
    spans: Spans,
}

impl Heard {
    fn note(self) {
        self.seat.answered(self.at, Reply { body: &self.body, journaled: self.journaled, spans: self.spans });
    }
}

impl Requester for Waiting {
    fn answer(self: Box<Self>, answer: Answer) {
        let mut spans = answer.spans;
        spans.set(Span::Total, self.received.elapsed());
        if let Some(fresh) = answer.fresh {
            fresh.heard();
        }
        let Self { seat, ear, .. } = *self;
        let heard = Heard { seat, at: Clock::now(), body: answer.body, journaled: answer.journaled, spans };
        if let Err(refused) = ear.try_send(heard) {
            refused.into_inner().note();
        }
    }
}
