//! The closed sets that label metrics and log lines.

use crate::domain::reason::ReasonClass;

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $text:literal,)* })*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$value_doc])* $value,)* }

        impl $name {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$value),*];

            /// The name in metrics and logs.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$value => $text),* }
            }
        }
    )* };
}

labels! {
    /// Which cache tier was asked.
    Tier {
        /// In this process.
        Memory = "memory",
        /// Redis.
        Redis = "redis",
    }

    /// What a tier answered.
    CacheResult {
        /// Had it.
        Hit = "hit",
        /// Did not have it.
        Miss = "miss",
        /// Had it, but of another moment than the rest, or too old.
        Stale = "stale",
        /// Failed or was too slow.
        Error = "error",
        /// Was not asked.
        Bypass = "bypass",
    }

    /// By which way news of a changed fact came.
    Path {
        /// The store's own notifications.
        Store = "store",
        /// Redis's pushes.
        Redis = "redis",
        /// The broker's exchange for events.
        Events = "events",
    }

    /// What changed.
    ChangeKind {
        /// A card, its account or its limits.
        Card = "card",
        /// A user.
        User = "user",
        /// A program.
        Program = "program",
        /// More than was told one by one.
        Everything = "everything",
    }

    /// How a breaker stands.
    BreakerState {
        /// Everything goes through.
        Closed = "closed",
        /// Nothing goes through.
        Open = "open",
        /// One probe is under way, and nothing else goes through.
        HalfOpen = "half_open",
    }

    /// What Redis was asked to do.
    RedisCommand {
        /// Hand over facts.
        Read = "read",
        /// Keep facts.
        Write = "write",
    }

    /// What became of a published message.
    PublishOutcome {
        /// The broker has it.
        Confirmed = "confirmed",
        /// No queue takes it.
        Returned = "returned",
        /// The broker refused it.
        Nacked = "nacked",
        /// No confirm in time, or the connection was lost: fate unknown.
        Timeout = "timeout",
    }

    /// What became of an event, heard or told.
    EventOutcome {
        /// Heard, and it says what has changed.
        Accepted = "accepted",
        /// Heard, and it is none.
        Refused = "refused",
        /// Told.
        Sent = "sent",
        /// Not told: the broker could not take it.
        Dropped = "dropped",
    }

    /// How a delivery ended.
    Settlement {
        /// Acknowledged after its response was confirmed.
        Answered = "answered",
        /// Acknowledged after its dead letter was confirmed.
        DeadLettered = "dead_lettered",
        /// Not acknowledged: the broker will deliver it again.
        Returned = "returned",
    }

    /// How a commit ended.
    CommitOutcome {
        /// Durable.
        Committed = "committed",
        /// A guard failed: decided again.
        Rejected = "rejected",
        /// A lock or the statement ran out of time.
        Contended = "contended",
        /// Deadlock or the like: sent again.
        Transient = "transient",
        /// No connection.
        Unreachable = "unreachable",
        /// The answer was lost: sent again until known.
        Unknown = "unknown",
        /// Not acceptable: the batch is halved.
        Refused = "refused",
    }

    /// What the daemon depends on.
    Dependency {
        /// PostgreSQL or SQLite.
        Store = "store",
        /// Redis.
        Redis = "redis",
        /// RabbitMQ.
        Broker = "broker",
    }

    /// How bad a latency alert is.
    Level {
        /// Worth a look.
        Warning = "warning",
        /// Processors may hang up.
        Critical = "critical",
    }

    /// What a slow decision spent its time on.
    Cause {
        /// Its bytes took long to read.
        Decode = "decode",
        /// Facts were not in memory, and neither Redis nor the store explain the wait: pauses between tries, or another's read.
        MemoryMiss = "memory_miss",
        /// Facts were read from Redis, or waited for in vain there.
        Redis = "redis",
        /// Facts were read from the store.
        Database = "database",
        /// The decision proper.
        Decision = "decision",
        /// The lane was busy with the commit before.
        LaneWait = "lane_wait",
        /// The durable commit: locks, disk, tries.
        CommitWait = "commit_wait",
        /// The answer could not be written: no connection or channel, or a requester that does not read.
        Publish = "publish",
        /// The broker took long to confirm the answer.
        ConfirmWait = "confirm_wait",
        /// Between the spans: no processor was free.
        Scheduling = "scheduling",
        /// It waited for us before we received it.
        QueueWait = "queue_wait",
        /// Nothing at all is answered.
        Stalled = "stalled",
    }

    /// Which of the two broker connections.
    Role {
        /// Takes deliveries, acks.
        Consumer = "consumer",
        /// Publishes, waits for confirms.
        Publisher = "publisher",
    }
}

/// The label of a reason's class; an approval's is `ok`.
pub(super) const fn class_name(class: ReasonClass) -> &'static str {
    match class {
        ReasonClass::Input => "input",
        ReasonClass::Business => "business",
        ReasonClass::System => "system",
    }
}
