//! The store's news as a feed that cannot die: a task of its own listens, and starts again after every failure.

use crate::facts::change::{Announced, Change, ChangeFeed, Heard};
use backon::{BackoffBuilder, ExponentialBuilder};
use std::{future::pending, time::Duration};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep},
};

/// Most changes that wait to be heard, and most that are heard at once. More of them count as [`Change::Everything`], so that neither
/// our memory nor the store's queue grows with a listener that is slow.
const CHANGES_MAX: usize = 1_000;
/// Pieces of news that wait to be taken.
const NEWS_MAX: usize = 4;
/// Pauses between attempts grow from the first to the second; jitter may double one.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(2_500));
/// A connection that lived this long was well: the next pause is the first again.
const WELL_AFTER: Duration = Duration::from_secs(5);

/// How a store is listened to.
pub(super) trait Source: Send + 'static {
    /// Connects, in place of a connection that failed. From its return on no change may be missed. Must end by itself.
    fn connect(&mut self) -> impl Future<Output = Result<(), String>> + Send;

    /// Waits for changes. An error means that some may have been missed. Is dropped while it waits, and must lose nothing by that.
    fn changes(&mut self) -> impl Future<Output = Result<Vec<Announced>, String>> + Send;
}

/// The news of a store. Connects with the first call of [`ChangeFeed::next`]; dropping it ends the connection.
#[derive(Debug)]
pub struct StoreFeed<S> {
    state: State<S>,
}

#[derive(Debug)]
enum State<S> {
    /// Not asked yet; without a source, ended.
    Idle(Option<S>),
    Listening {
        news: mpsc::Receiver<Heard>,
        task: JoinHandle<()>,
    },
}

impl<S> StoreFeed<S> {
    pub(super) const fn new(source: S) -> Self {
        Self { state: State::Idle(Some(source)) }
    }
}

impl<S: Source> ChangeFeed for StoreFeed<S> {
    async fn next(&mut self) -> Heard {
        if let State::Idle(source) = &mut self.state
            && let Some(source) = source.take()
        {
            let (told, news) = mpsc::channel(NEWS_MAX);
            // A task of its own: it answers the server and finds out about a dead one also while nobody waits for news.
            self.state = State::Listening { news, task: tokio::spawn(listen(source, told)) };
        }
        let State::Listening { news, .. } = &mut self.state else { return pending().await };
        match news.recv().await {
            Some(heard) => heard,
            // It ends with this feed only, so this is a panic: a fault of ours that must not look like silence.
            None => {
                self.state = State::Idle(None);
                Heard::Lost("the task that listens has ended".to_owned())
            }
        }
    }
}

impl<S> Drop for StoreFeed<S> {
    fn drop(&mut self) {
        if let State::Listening { task, .. } = &self.state {
            task.abort();
        }
    }
}

/// Listens for ever, or until nobody takes the news any more.
async fn listen(mut source: impl Source, told: mpsc::Sender<Heard>) {
    let (shortest, longest) = PAUSES;
    let builder = ExponentialBuilder::new().with_min_delay(shortest).with_max_delay(longest).with_jitter().without_max_times();
    let mut pauses = builder.build();
    let mut lost = false;
    loop {
        let begun = Instant::now();
        let why = match source.connect().await {
            Ok(()) => {
                lost = false;
                if told.send(Heard::Listening).await.is_err() {
                    return;
                }
                let Some(why) = hand_on(&mut source, &told).await else { return };
                why
            }
            Err(why) => why,
        };
        // Said once: nothing is heard until the next `Listening` anyway.
        if !lost && told.send(Heard::Lost(why)).await.is_err() {
            return;
        }
        lost = true;
        if begun.elapsed() >= WELL_AFTER {
            pauses = builder.build();
        }
        sleep(pauses.next().unwrap_or(longest)).await;
    }
}

/// Hands on what a connection brings until it fails; says why. `None` when nobody takes it any more.
async fn hand_on(source: &mut impl Source, told: &mpsc::Sender<Heard>) -> Option<String> {
    let mut waiting: Vec<Announced> = Vec::new();
    loop {
        tokio::select! {
            biased;
            place = told.reserve(), if !waiting.is_empty() => place.ok()?.send(Heard::Changes(std::mem::take(&mut waiting))),
            () = told.closed() => return None,
            heard = source.changes() => match heard {
                Ok(changes) => {
                    waiting.extend(changes);
                    if waiting.len() > CHANGES_MAX {
                        let at = waiting.last().and_then(|last| last.at);
                        waiting = vec![Announced { change: Change::Everything, at }];
                    }
                }
                Err(why) => {
                    if !waiting.is_empty() {
                        told.send(Heard::Changes(waiting)).await.ok()?;
                    }
                    return Some(why);
                }
            },
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::domain::{ids::ProgramId, time::Timestamp};
    use std::collections::VecDeque;

    /// What happens, in order; then nothing more.
    struct Script {
        connects: VecDeque<Result<(), String>>,
        changes: VecDeque<Result<Vec<Announced>, String>>,
    }

    impl Source for Script {
        async fn connect(&mut self) -> Result<(), String> {
            match self.connects.pop_front() {
                Some(result) => result,
                None => pending().await,
            }
        }

        async fn changes(&mut self) -> Result<Vec<Announced>, String> {
            match self.changes.pop_front() {
                Some(result) => result,
                None => pending().await,
            }
        }
    }

    fn change(id: i64) -> Announced {
        Announced { change: Change::Program { id: ProgramId(id), version: Some(id) }, at: Some(Timestamp(id)) }
    }

    fn feed(connects: &[Result<(), &str>], changes: Vec<Result<Vec<Announced>, &str>>) -> StoreFeed<Script> {
        let connects = connects.iter().map(|result| result.map_err(str::to_owned)).collect();
        let changes = changes.into_iter().map(|result| result.map_err(str::to_owned)).collect();
        StoreFeed::new(Script { connects, changes })
    }

    #[tokio::test(start_paused = true)]
    async fn a_gap_is_told_once_and_ends_with_listening() {
        let mut feed = feed(&[Ok(()), Err("b"), Err("c"), Ok(())], vec![Ok(vec![change(1)]), Err("a"), Ok(vec![change(2)])]);
        for expected in [
            Heard::Listening,
            Heard::Changes(vec![change(1)]),
            Heard::Lost("a".to_owned()),
            Heard::Listening,
            Heard::Changes(vec![change(2)]),
        ] {
            assert_eq!(feed.next().await, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_connection_that_fails_is_told() {
        let mut feed = feed(&[Err("no server"), Ok(())], Vec::new());
        assert_eq!(feed.next().await, Heard::Lost("no server".to_owned()));
        assert_eq!(feed.next().await, Heard::Listening);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_takes_becomes_everything() {
        let many = (1..=10_000).map(|id| Ok(vec![change(id)])).collect();
        let mut feed = feed(&[Ok(())], many);
        assert_eq!(feed.next().await, Heard::Listening);
        // Long enough for the task to read all of it while nothing is taken.
        sleep(Duration::from_secs(1)).await;
        let mut heard = Vec::new();
        while heard.last() != Some(&change(10_000)) && !heard.iter().any(|it: &Announced| it.change == Change::Everything) {
            match feed.next().await {
                Heard::Changes(changes) => {
                    assert!(changes.len() <= CHANGES_MAX, "{} at once", changes.len());
                    heard.extend(changes);
                }
                other => panic!("{other:?}"),
            }
        }
        let everything = heard.iter().position(|it| it.change == Change::Everything).unwrap();
        assert!(everything <= NEWS_MAX * CHANGES_MAX, "{everything} changes were kept for a listener that is slow");
    }

    #[tokio::test(start_paused = true)]
    async fn the_task_ends_with_the_feed() {
        struct Alive(#[expect(dead_code, reason = "held, not read")] mpsc::Sender<()>);
        impl Source for Alive {
            async fn connect(&mut self) -> Result<(), String> {
                Ok(())
            }
            async fn changes(&mut self) -> Result<Vec<Announced>, String> {
                pending().await
            }
        }
        let (alive, mut gone) = mpsc::channel(1);
        let mut feed = StoreFeed::new(Alive(alive));
        assert_eq!(feed.next().await, Heard::Listening);
        drop(feed);
        assert_eq!(gone.recv().await, None);
    }
}
