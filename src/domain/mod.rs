//! The rules of card authorization, and nothing else.
//!
//! The ground floor: standard library only, no clock, no randomness, no float, no await. Time, ids and everything
//! that was read from a store come in as arguments, so one call with the same arguments always gives the same answer.
//!
//! **Invariant**: nothing in here can block, and nothing in here knows how a request arrived or where its effect is stored.
#![deny(clippy::pedantic)]
#![expect(clippy::module_name_repetitions, reason = "the field's words repeat: `CardStatus` is read outside of `card`")]

pub mod decision;
pub mod facts;
pub mod hold;
pub mod ids;
pub mod limits;
pub mod money;
pub mod reason;
pub mod request;
pub mod rules;
pub mod time;
