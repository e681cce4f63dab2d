//! The one task that publishes: answers and dead letters out, then the ack.
//!
//! Every publish in flight has a channel to itself (see [`attempt`]); idle channels are used again, the last
//! one first, so that a calm daemon keeps few of them warm. What happens to a delivery's parcel is all in
//! [`Publisher::conclude`]: **confirmed, then acked**.

use super::{
    Phase, Settings,
    acks::Acks,
    attempt::{self, Attempted, Fate, Surroundings},
    attempts::Attempts,
    connection::{self, Link, Pauses, ask},
    envelope::{DeadLetter, Response},
    ticket::Ticket,
    topology::{self, short},
};
use crate::{
    codec::dead_letter::DeadLetterReason,
    domain::time::Timestamp,
    pipeline::FreshApproval,
    telemetry::{Telemetry, events::Settlement},
};
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use lapin::{Channel, Connection, options::ConfirmSelectOptions};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};

/// The first pause before a parcel is tried again, and the longest.
const AGAIN_MIN: Duration = Duration::from_millis(50);
const AGAIN_MAX: Duration = Duration::from_secs(5);
/// How often the broker must have left an answer unconfirmed before it is given up: it may be slow for a moment.
const UNCONFIRMED_MIN: u32 = 3;

/// Something to publish for a delivery.
pub(super) struct Parcel {
    pub(super) ticket: Ticket,
    pub(super) load: Load,
}

/// What is in a parcel.
pub(super) enum Load {
    Answer(Response),
    DeadLetter(DeadLetter),
}

impl Parcel {
    /// Notes that an approval may or may not have been heard. Its hold stays.
    pub(super) fn unheard(&mut self) {
        if let Load::Answer(Response { fresh, .. }) = &mut self.load
            && let Some(fresh) = fresh.take()
        {
            fresh.unheard();
        }
    }

    /// Lets go of a parcel that was never handed over: an approval in it is taken back, the delivery comes again.
    pub(super) fn abandon(self) {
        if let Load::Answer(Response { fresh: Some(fresh), .. }) = self.load {
            match fresh.deadline() {
                Some(_) => fresh.void(None),
                // It stands, and comes again with the delivery.
                None => fresh.heard(),
            }
        }
        self.ticket.give_back();
    }

    /// Whether the same bytes would be published again, were the delivery to come again.
    const fn journaled(&self) -> bool {
        matches!(&self.load, Load::Answer(answer) if answer.journaled)
    }

    /// Until when an approval in it may be sent.
    fn fresh_until(&self) -> Option<Instant> {
        match &self.load {
            Load::Answer(Response { fresh: Some(fresh), .. }) => fresh.deadline(),
            _ => None,
        }
    }

    fn pause(&self) -> Duration {
        let doublings = self.ticket.about.tries.saturating_sub(1).min(16);
        AGAIN_MIN.saturating_mul(1 << doublings).min(AGAIN_MAX)
    }
}

/// Wall clock, passed in.
pub(super) type Wall = Arc<dyn Fn() -> Timestamp + Send + Sync>;

type Opening = BoxFuture<'static, Result<Channel, ()>>;

pub(super) struct Publisher {
    around: Arc<Surroundings>,
    wall: Wall,
    open_timeout: Duration,
    channels_max: usize,
    pauses: Pauses,
    outbox: mpsc::Receiver<Parcel>,
    ready: Arc<AtomicBool>,
    idle: Vec<Channel>,
    openings: FuturesUnordered<Opening>,
    attempts: Attempts<Attempted>,
    acks: Acks,
    rests: FuturesUnordered<BoxFuture<'static, Parcel>>,
    waiting: VecDeque<Parcel>,
    /// When the first approval in `waiting` must not be sent any more, or earlier.
    due: Option<Instant>,
    /// When the broker last said what became of a publish, or opened a channel.
    spoke_at: Option<Instant>,
    link: Link,
}

impl Publisher {
    pub(super) fn new(
        settings: &Settings,
        around: Surroundings,
        wall: Wall,
        outbox: mpsc::Receiver<Parcel>,
        ready: Arc<AtomicBool>,
    ) -> Self {
        Self {
            link: around.link.clone(),
            around: Arc::new(around),
            wall,
            open_timeout: settings.connect_timeout,
            channels_max: settings.confirms_max.max(1),
            pauses: Pauses::up_to(settings.reconnect_max),
            outbox,
            ready,
            idle: Vec::new(),
            openings: FuturesUnordered::new(),
            attempts: Attempts::new(settings.prefetch),
            acks: Acks::new(settings.ack_within, settings.prefetch),
            rests: FuturesUnordered::new(),
            waiting: VecDeque::new(),
            due: None,
            spoke_at: None,
        }
    }

    pub(super) async fn run(mut self, mut phase: watch::Receiver<Phase>) {
        loop {
            self.dispatch();
            let due = self.due;
            tokio::select! { biased;
                () = Phase::Closing.reached(&mut phase) => break,
                () = self.link.changed() => self.on_link(),
                done = self.attempts.next(!self.waiting.is_empty()) => self.conclude(done),
                () = self.acks.progress() => {}
                Some(opened) = self.openings.next() => self.on_opened(opened),
                Some(parcel) = self.rests.next() => self.queue(parcel),
                Some(parcel) = self.outbox.recv() => self.arrive(parcel),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.sweep(),
            }
        }
        self.ready.store(false, Ordering::Relaxed);
        // These were not handed over, or not any more; what is in flight is of unknown fate and says so when it is dropped.
        self.outbox.close();
        while let Ok(parcel) = self.outbox.try_recv() {
            parcel.abandon();
        }
        self.waiting.drain(..).for_each(Parcel::abandon);
    }

    /// An answer from the pipeline, or a dead letter from the consumer.
    fn arrive(&mut self, parcel: Parcel) {
        let Parcel { ticket, load } = parcel;
        if ticket.about.given_up && matches!(load, Load::Answer(_)) {
            self.dead_letter(ticket, DeadLetterReason::ReplyUnroutable, "no queue took the answer until the deadline");
        } else {
            self.queue(Parcel { ticket, load });
        }
    }

    fn queue(&mut self, parcel: Parcel) {
        if let Some(until) = parcel.fresh_until() {
            self.due = Some(self.due.map_or(until, |due| due.min(until)));
        }
        self.waiting.push_back(parcel);
    }

    fn dead_letter(&mut self, ticket: Ticket, reason: DeadLetterReason, detail: &str) {
        let letter = ticket.dead_letter(reason, detail, (self.wall)());
        self.queue(Parcel { ticket, load: Load::DeadLetter(letter) });
    }

    /// Hands out what is waiting, as far as there are channels.
    fn dispatch(&mut self) {
        let state = self.link.state();
        let connection = state.connection.filter(|_| !state.blocked);
        self.idle.retain(|channel| channel.status().connected());
        while connection.is_some() && !self.idle.is_empty() {
            let Some(parcel) = self.waiting.pop_front() else { break };
            let Some(parcel) = self.fit_to_send(parcel) else { continue };
            let Some(channel) = self.idle.pop() else { break };
            // The ack of an answer that the journal does not have must not wait.
            let awaited = !parcel.journaled();
            self.attempts.push(attempt::attempt(channel, parcel, Arc::clone(&self.around)), awaited);
        }
        if self.waiting.is_empty() {
            self.due = None;
        }
        if let Some(connection) = &connection {
            self.open_as_needed(connection);
        }
        let open = !self.idle.is_empty() || !self.attempts.is_empty();
        self.ready.store(open && connection.is_some(), Ordering::Relaxed);
    }

    /// Takes the parcel back where it must not be sent: the approval is late, or the delivery comes again anyway.
    fn fit_to_send(&mut self, parcel: Parcel) -> Option<Parcel> {
        let now = Instant::now();
        match parcel.fresh_until() {
            Some(until) if now >= until => {
                self.take_back(parcel);
                None
            }
            // A fresh approval is sent even if it cannot be acked: nobody else could send it in time.
            None if !parcel.ticket.usable() => {
                parcel.abandon();
                None
            }
            _ => Some(parcel),
        }
    }

    /// Has an approval taken back that was certainly not sent; the requester is answered with what stands then.
    fn take_back(&mut self, parcel: Parcel) {
        let Parcel { ticket, load } = parcel;
        if let Load::Answer(Response { fresh: Some(fresh), told, .. }) = load {
            let now = Instant::now();
            attempt::tell(&self.around.telemetry, &told, &ticket.about, now, now);
            if ticket.usable() {
                fresh.void(Some(Box::new(ticket)));
            } else {
                fresh.void(None);
                ticket.give_back();
            }
        }
    }

    /// Takes late approvals out of what is waiting.
    fn sweep(&mut self) {
        self.due = None;
        for parcel in std::mem::take(&mut self.waiting) {
            if let Some(parcel) = self.fit_to_send(parcel) {
                self.queue(parcel);
            }
        }
    }

    fn open_as_needed(&mut self, connection: &Arc<Connection>) {
        let max = self.channels_max.min(usize::from(connection.configuration().channel_max()).saturating_sub(1).max(1));
        let open = self.idle.len() + self.attempts.len();
        let wanted = self.waiting.len().max(usize::from(open == 0)).min(max.saturating_sub(open));
        while self.openings.len() < wanted {
            self.openings.push(Box::pin(open_channel(Arc::clone(connection), Duration::ZERO, self.open_timeout)));
        }
    }

    fn on_opened(&mut self, opened: Result<Channel, ()>) {
        if let Ok(channel) = opened {
            self.idle.push(channel);
            self.pauses.reset();
            self.spoke_at = Some(Instant::now());
            return;
        }
        self.link.doubt();
        // Nor is a broker asked that reads nothing; what is needed is opened once it does.
        let state = self.link.state();
        if let Some(connection) = state.connection.filter(|_| !state.blocked) {
            // Keeps its place among the openings while it pauses, so a broker that refuses channels is asked gently.
            self.openings.push(Box::pin(open_channel(connection, self.pauses.next(), self.open_timeout)));
        }
    }

    fn on_link(&mut self) {
        let up = self.link.seen().connection.is_some();
        self.idle.retain(|channel| channel.status().connected());
        if !up {
            self.idle.clear();
            self.openings.clear();
        }
    }

    /// What follows from the end of a try.
    fn conclude(&mut self, done: Attempted) {
        match done.channel {
            Some(channel) => self.idle.push(channel),
            None => self.link.doubt(),
        }
        if matches!(done.fate, Fate::Confirmed | Fate::Returned | Fate::Refused) {
            self.spoke_at = Some(Instant::now());
        }
        match done.fate {
            Fate::Confirmed => self.confirmed(done.parcel),
            Fate::Returned => self.returned(done.parcel),
            Fate::Refused => self.untaken(done.parcel, true, "the queue named by reply_to refused the answer until the deadline"),
            Fate::Unconfirmed => self.unconfirmed(done.parcel),
            Fate::Unknown => {
                let mut parcel = done.parcel;
                parcel.unheard();
                self.rest(parcel);
            }
            Fate::NotSent => self.queue(done.parcel),
        }
    }

    fn confirmed(&mut self, parcel: Parcel) {
        let lossy = parcel.ticket.about.reply.as_ref().is_some_and(|reply| reply.lossy);
        let journaled = parcel.journaled();
        let Parcel { ticket, load } = parcel;
        let settlement = match load {
            Load::DeadLetter(letter) => {
                self.around.telemetry.dead_lettered(letter.reason.name());
                Settlement::DeadLettered
            }
            Load::Answer(Response { then: Some((reason, detail)), .. }) => return self.dead_letter(ticket, reason, &detail),
            Load::Answer(Response { fresh, .. }) => {
                match fresh {
                    // The journal lists a new one from the start.
                    Some(fresh) if lossy && fresh.deadline().is_some() => {
                        self.around.telemetry.approval_unheard();
                        fresh.heard();
                    }
                    Some(fresh) if lossy => fresh.unheard(),
                    Some(fresh) => fresh.heard(),
                    None => {}
                }
                Settlement::Answered
            }
        };
        self.acks.add(ticket, settlement, journaled);
    }

    fn returned(&mut self, mut parcel: Parcel) {
        match parcel.load {
            Load::DeadLetter(_) => {
                tracing::error!(event = "dead_letter_returned", "no queue takes dead letters; run `jitauth topology apply`");
                self.rest(parcel);
            }
            Load::Answer(Response { then: Some((reason, detail)), .. }) => self.dead_letter(parcel.ticket, reason, &detail),
            Load::Answer(Response { ref fresh, .. }) => {
                let until = fresh.as_ref().and_then(FreshApproval::deadline).unwrap_or(parcel.ticket.about.deadline);
                if Instant::now() + parcel.pause() < until {
                    return self.rest(parcel);
                }
                parcel.ticket.about.given_up = true;
                if fresh.is_some() {
                    self.take_back(parcel);
                } else {
                    self.arrive(parcel);
                }
            }
        }
    }

    fn unconfirmed(&mut self, mut parcel: Parcel) {
        parcel.ticket.about.unconfirmed += 1;
        // A broker that has been silent altogether, for most of these tries, says nothing of this queue: what it did not hear goes out
        // on the next connection.
        let spoke = self.spoke_at.is_some_and(|at| at.elapsed() < 2 * self.around.confirm_timeout);
        let enough = spoke && parcel.ticket.about.unconfirmed >= UNCONFIRMED_MIN;
        self.untaken(parcel, enough, "the broker did not confirm the answer until the deadline");
    }

    /// A queue that has not taken an answer until the deadline has nobody who waits for it; a delivery must not be kept for it for
    /// ever, or a few such queues would use up all that may be unsettled.
    fn untaken(&mut self, mut parcel: Parcel, enough: bool, why: &str) {
        parcel.unheard();
        let late = enough && Instant::now() + parcel.pause() >= parcel.ticket.about.deadline;
        match parcel.load {
            Load::Answer(Response { then: Some((reason, detail)), .. }) if late => self.dead_letter(parcel.ticket, reason, &detail),
            Load::Answer(_) if late => self.dead_letter(parcel.ticket, DeadLetterReason::ReplyUnroutable, why),
            _ => self.rest(parcel),
        }
    }

    /// Puts a parcel aside to be tried again.
    fn rest(&self, parcel: Parcel) {
        let pause = parcel.pause();
        self.rests.push(Box::pin(async move {
            sleep(pause).await;
            parcel
        }));
    }
}

async fn open_channel(connection: Arc<Connection>, pause: Duration, patience: Duration) -> Result<Channel, ()> {
    sleep(pause).await;
    let opening = async {
        let channel = connection::channel(&connection).await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    };
    ask(&connection, patience, opening).await.map_err(|error| tracing::debug!(event = "publish_channel_failed", %error))
}

/// The key and exchange that dead letters go to.
pub(super) fn surroundings(settings: &Settings, link: Link, telemetry: Telemetry) -> Surroundings {
    Surroundings {
        exchange: short(&settings.exchange),
        failed_key: short(topology::FAILED),
        confirm_timeout: settings.confirm_timeout,
        link,
        recorder: telemetry.recorder(),
        telemetry,
    }
}
