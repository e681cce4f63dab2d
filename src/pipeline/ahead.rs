//! Money read ahead: once memory has the cards' facts, lanes take the money of their accounts into their books, so that an account's
//! first request does not wait for it to be read.
//!
//! A lane does it while nothing waits for it, in pieces that take no longer than a commit, until its book is full. What it reads is as
//! good a hint as anything in a book, and as old as it is: where others move the same money, an account's first answer may tell what was available
//! at the start. Whatever is missing is read when it is needed.

use super::{
    book::{Missing, Sheet},
    gather::Inner,
    lane::Lane,
};
use crate::{domain::facts::CardFile, facts::FactSource, ledger::Ledger};
use std::time::Duration;
use tokio::sync::mpsc;

/// Cards whose money is read at once.
const PIECE: usize = 128;
/// How long a lane may have something else to do before it is left alone.
const IDLE_WAIT_MAX: Duration = Duration::from_secs(1);
/// Pieces that wait in front of a lane: one, while it reads another.
pub(super) const PIECES_MAX: usize = 1;

/// What a lane is to read ahead.
pub(super) type Pieces = mpsc::Receiver<Vec<CardFile>>;

impl<S: FactSource> Inner<S> {
    /// Hands every card that memory knows to the lane of its account, at the pace of the lanes. One that is busy all the time gets no more:
    /// it has the money of those who are asked about. Ends early when none takes any more.
    pub(super) async fn read_ahead(&self) {
        let mut lanes: Vec<_> = self.ahead.iter().map(|lane| Some((lane, Vec::with_capacity(PIECE)))).collect();
        for file in self.facts.known() {
            let Some(place) = lanes.get_mut(self.lane_of(&file.card.account.id)) else { return };
            let Some((lane, piece)) = place else { continue };
            piece.push(file);
            if piece.len() < PIECE {
                continue;
            }
            let full = std::mem::replace(piece, Vec::with_capacity(PIECE));
            if lane.send_timeout(full, IDLE_WAIT_MAX).await.is_err() {
                *place = None;
                if lanes.iter().all(Option::is_none) {
                    return;
                }
            }
        }
        for (lane, piece) in lanes.into_iter().flatten().filter(|(_, piece)| !piece.is_empty()) {
            drop(lane.send_timeout(piece, IDLE_WAIT_MAX).await);
        }
    }
}

impl<L: Ledger, S: FactSource> Lane<L, S> {
    /// Takes the money of these cards into the book. Takes no further pieces once there is no room, or the store fails.
    pub(super) async fn read_ahead(&mut self, files: &[CardFile]) {
        let wall = (self.wall)();
        let (mut sheet, mut missing) = (Sheet::default(), Missing::default());
        for file in files {
            let Ok(starts) = self.calendars.starts(&file.program, wall) else { continue };
            sheet.want_account(file.card.account.id, &self.book, &mut missing);
            for key in file.limits().filter_map(|limit| limit.counter(&file.card, &starts)) {
                sheet.want_counter(key, false, &self.book, &mut missing);
            }
        }
        if missing.accounts.is_empty() && missing.counters.is_empty() {
            return;
        }
        if !self.book.has_room_for(&missing) {
            return self.ahead.close();
        }
        match self.queue.alongside(self.ledger.positions(&missing.accounts, &missing.counters)).await {
            Ok(read) => sheet.fill(&missing, &read, &mut self.book),
            Err(error) => {
                tracing::debug!(event = "read_ahead_ended", error = %error, "money is read when it is needed");
                self.ahead.close();
            }
        }
    }
}
