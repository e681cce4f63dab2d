//! The whole seeding as a row of batches.

use super::{
    ids,
    load::Draw,
    programs::{self, BUSINESS, PERSONAL, PROGRAMS, TEST, TEST_JPY, TEST_KWD},
    rows::{Batch, Funding},
    test_cards::{self, TEST_CARDS},
};

/// Cards in one batch, and so in one transaction: enough to make its commit cheap, few enough to see progress.
pub const BATCH_CARDS: u64 = 10_000;

/// What is to be in the store. The same plan makes the same rows, always.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    cards: u64,
    draw: Draw,
}

impl Plan {
    /// A plan for the test cards and `cards` load cards, at most [`ids::CARDS_MAX`].
    #[must_use]
    pub fn new(cards: u64, seed: u64) -> Self {
        Self { cards: cards.min(ids::CARDS_MAX), draw: Draw::new(seed) }
    }

    /// Load cards in this plan.
    #[must_use]
    pub const fn cards(&self) -> u64 {
        self.cards
    }

    /// What is left to chance in this plan.
    #[must_use]
    pub const fn draw(&self) -> Draw {
        self.draw
    }

    /// Programs and test cards first, then load cards. Made one at a time, so a million cards take the memory of one batch.
    pub fn batches(self) -> impl Iterator<Item = Batch> {
        let firsts = (1..=self.cards).step_by(usize::try_from(BATCH_CARDS).unwrap_or(usize::MAX));
        std::iter::once_with(foundation).chain(firsts.map(move |first| self.load_batch(first)))
    }

    fn load_batch(self, first: u64) -> Batch {
        let numbers = first..=self.cards.min(first + BATCH_CARDS - 1);
        let draw = self.draw;
        Batch {
            accounts: numbers.clone().filter_map(|number| draw.account(number)).collect(),
            funding: [PERSONAL, BUSINESS].map(|program| funding(program, &format!("{first:07}"))).into(),
            users: numbers.clone().filter_map(|number| draw.user(number)).collect(),
            limits: numbers.clone().flat_map(|number| draw.limits(number)).collect(),
            cards: numbers.map(|number| draw.card(number)).collect(),
            ..Batch::default()
        }
    }
}

/// The programs with their limits and funding accounts, and the test cards.
fn foundation() -> Batch {
    let test_cards = || TEST_CARDS.iter().enumerate();
    Batch {
        programs: PROGRAMS.iter().map(|template| template.program).collect(),
        funding_accounts: (0..PROGRAMS.len()).map(programs::funding_account).collect(),
        accounts: test_cards().map(|(position, card)| card.account(position)).collect(),
        funding: [TEST, TEST_JPY, TEST_KWD].map(|program| funding(program, "cards")).into(),
        users: test_cards().map(|(position, card)| card.user(position)).collect(),
        limits: programs::limits().chain(test_cards::limits()).collect(),
        cards: test_cards().map(|(position, card)| card.card(position)).collect(),
    }
}

fn funding(program: usize, what: &str) -> Funding {
    let template = &PROGRAMS[program].program;
    Funding {
        program_id: template.id,
        account_id: programs::funding_account(program).id,
        transfer: format!("seed:{}:{what}", template.token),
    }
}
