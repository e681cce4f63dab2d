//! Values as they were written, before they mean anything.

use super::problem::Origin;
use std::collections::BTreeMap;

/// A value of one of the four types that keys have. Has no `Debug`: it may be a secret.
#[derive(Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Whole(i64),
    Flag(bool),
    List(Vec<String>),
}

impl Value {
    /// The type, in words that finish "must be …".
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Whole(_) => "a whole number",
            Self::Flag(_) => "true or false",
            Self::List(_) => "a list of texts",
        }
    }

    pub(super) fn same_kind(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    /// Reads `text`, from the environment or a flag, as a value of this one's type.
    pub(super) fn parse_alike(&self, text: &str) -> Option<Self> {
        match self {
            Self::Text(_) => Some(Self::Text(text.to_owned())),
            Self::Whole(_) => text.trim().parse().ok().map(Self::Whole),
            Self::Flag(_) => text.trim().parse().ok().map(Self::Flag),
            Self::List(_) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Some(Self::List(items.map(str::to_owned).collect()))
            }
        }
    }

    /// Whether it says nothing.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Text(text) if text.is_empty())
    }

    /// As it would be written in a file.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Text(text) => format!("{text:?}"),
            Self::Whole(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
            Self::List(items) => format!("{items:?}"),
        }
    }
}

/// A value and where it came from.
#[derive(Clone)]
pub(super) struct Leaf {
    pub(super) value: Value,
    pub(super) origin: Origin,
    /// How many layers lie below the one that set it.
    pub(super) layer: usize,
}

/// Values by key, where a key is a path such as `promise.commit.p99_us`.
pub(super) type Leaves = BTreeMap<String, Leaf>;
