//! The tasks of a pipeline: watched while it runs, ended in order.

use super::Pulse;
use tokio::task::JoinSet;

/// The tasks of a running pipeline.
pub struct Running {
    lanes: JoinSet<()>,
    /// One task; a set can be asked again after it has ended.
    desk: JoinSet<()>,
    pulse: Pulse,
}

impl Running {
    pub(super) fn new(lanes: JoinSet<()>, desk: impl Future<Output = ()> + Send + 'static, pulse: Pulse) -> Self {
        let mut set = JoinSet::new();
        set.spawn(desk);
        Self { lanes, desk: set, pulse }
    }

    /// Tells whether the lanes turn.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Resolves with the name of a part that has ended, which none does by itself: a bug. What it had in hand is not answered, or
    /// not taken back; the process has to end so that the broker delivers its requests again.
    pub async fn broken(&mut self) -> &'static str {
        tokio::select! {
            biased;
            Some(_) = self.lanes.join_next() => "a lane",
            Some(_) = self.desk.join_next() => "the late desk",
            else => std::future::pending().await,
        }
    }

    /// Ends the lanes, which are idle by now, and lets the late desk finish. Answers still held by the edges keep the desk open.
    pub async fn finish(mut self) {
        self.lanes.shutdown().await;
        while self.desk.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        future::{pending, ready},
        time::Duration,
    };
    use tokio::time::timeout;

    async fn check(lane: impl Future<Output = ()> + Send + 'static, desk: impl Future<Output = ()> + Send + 'static, broken: Option<&str>) {
        let mut lanes = JoinSet::new();
        lanes.spawn(pending());
        lanes.spawn(lane);
        let mut running = Running::new(lanes, desk, Pulse::default());
        assert_eq!(timeout(Duration::from_secs(3600), running.broken()).await.ok(), broken);
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_ends_is_noticed_whichever_it_is() {
        check(pending(), pending(), None).await;
        check(ready(()), pending(), Some("a lane")).await;
        check(async { panic!("a bug in a lane") }, pending(), Some("a lane")).await;
        check(pending(), ready(()), Some("the late desk")).await;
        check(pending(), async { panic!("a bug in the desk") }, Some("the late desk")).await;
    }
}
