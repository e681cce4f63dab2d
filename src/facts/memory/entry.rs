//! What stands in the map: a fact, and until when it is believed.

use crate::domain::{
    facts::{Card, Program, User},
    ids::{CardToken, ProgramId, UserId},
};
use foldhash::quality::RandomState;
use std::{
    hash::{BuildHasher, Hash, Hasher},
    sync::Arc,
};

/// Whom a fact is about, as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Asked<'a> {
    Card(&'a CardToken),
    User(UserId),
    Program(ProgramId),
}

/// [`Asked`], of what is not there to say it itself.
#[derive(Clone, Debug)]
pub(super) enum Whom {
    Card(CardToken),
    User(UserId),
    Program(ProgramId),
}

impl Whom {
    const fn asked(&self) -> Asked<'_> {
        match self {
            Self::Card(token) => Asked::Card(token),
            Self::User(id) => Asked::User(*id),
            Self::Program(id) => Asked::Program(*id),
        }
    }
}

impl From<Asked<'_>> for Whom {
    fn from(asked: Asked<'_>) -> Self {
        match asked {
            Asked::Card(token) => Self::Card(token.clone()),
            Asked::User(id) => Self::User(id),
            Asked::Program(id) => Self::Program(id),
        }
    }
}

/// A place in the map: the hash of whom it is about. The fact itself says who that is, so a name is not kept twice. Of two with the
/// same hash only one is known at a time; among 64 bits that is not to be expected, and would cost reads only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u64);

impl Place {
    pub(super) fn of(asked: Asked<'_>, hashing: &RandomState) -> Self {
        Self(hashing.hash_one(asked))
    }
}

impl Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

/// Takes the hash that a [`Place`] is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not used: a place is one number.
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// The stamp stands in each variant and not beside them, because that takes 8 bytes less; there are millions.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    Card {
        generation: u16,
        until: u32,
        card: Arc<Card>,
    },
    User {
        generation: u16,
        until: u32,
        user: Arc<User>,
    },
    Program {
        generation: u16,
        until: u32,
        program: Arc<Program>,
    },
    /// No card has the token.
    Absent {
        generation: u16,
        until: u32,
        whom: Arc<Whom>,
    },
    /// Whatever is older than this version has changed since.
    Outdated {
        generation: u16,
        until: u32,
        what: Arc<Outdated>,
    },
}

/// What is left of a fact that was dropped.
#[derive(Debug)]
pub(super) struct Outdated {
    pub(super) whom: Whom,
    /// The version that it has to have to be believed again.
    pub(super) at_least: i64,
}

impl Entry {
    pub(super) const fn stamp(&self) -> (u16, u32) {
        match self {
            Self::Card { generation, until, .. }
            | Self::User { generation, until, .. }
            | Self::Program { generation, until, .. }
            | Self::Absent { generation, until, .. }
            | Self::Outdated { generation, until, .. } => (*generation, *until),
        }
    }

    /// Whether it is about whom is asked for, and not about somebody who has the same place.
    pub(super) fn is_about(&self, asked: Asked<'_>) -> bool {
        asked
            == match self {
                Self::Card { card, .. } => Asked::Card(&card.token),
                Self::User { user, .. } => Asked::User(user.id),
                Self::Program { program, .. } => Asked::Program(program.id),
                Self::Absent { whom, .. } => whom.asked(),
                Self::Outdated { what, .. } => what.whom.asked(),
            }
    }

    /// The least version that may take its place.
    pub(super) fn version(&self) -> Option<i64> {
        match self {
            Self::Card { card, .. } => Some(card.version),
            Self::User { user, .. } => Some(user.version),
            Self::Program { program, .. } => Some(program.version),
            Self::Absent { .. } => None,
            Self::Outdated { what, .. } => Some(what.at_least),
        }
    }

    /// Whether both are the very same fact.
    pub(super) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::User { user, .. }, Self::User { user: other, .. }) => Arc::ptr_eq(user, other),
            (Self::Program { program, .. }, Self::Program { program: other, .. }) => Arc::ptr_eq(program, other),
            _ => false,
        }
    }

    pub(super) const fn is_fact(&self) -> bool {
        !matches!(self, Self::Outdated { .. })
    }
}
