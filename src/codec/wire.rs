//! The request's JSON as it is, before anything is said about its meaning: no value has the wrong type here, so that each wrong one
//! gets its own reason. A derived struct would stop at the first.

use super::pan::{self, Sensitive};
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt};

/// A value of a known field.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Field<'a> {
    /// The key is not there.
    #[default]
    Missing,
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number without sign, point and exponent.
    Integer(u64),
    /// A string.
    Text(Cow<'a, str>),
    /// An object, which was read.
    Object,
    /// Anything else.
    Other,
}

macro_rules! keys {
    ($name_of:ident: $($key:ident = $text:literal)*; $merchant_name_of:ident: $($merchant_key:ident = $merchant_text:literal)*) => {
        /// A known field.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(super) enum Key { $($key,)* $($merchant_key,)* }

        const KEYS: usize = [$(Key::$key,)* $(Key::$merchant_key,)*].len();

        fn $name_of(name: &str) -> Option<Key> {
            match name { $($text => Some(Key::$key),)* _ => None }
        }

        fn $merchant_name_of(name: &str) -> Option<Key> {
            match name { $($merchant_text => Some(Key::$merchant_key),)* _ => None }
        }

        impl Key {
            /// The name on the wire.
            pub(super) const fn name(self) -> &'static str {
                match self { $(Self::$key => $text,)* $(Self::$merchant_key => concat!("merchant.", $merchant_text),)* }
            }
        }
    };
}

keys! {
    top_level:
        Version = "version" Type = "type" Id = "id" Card = "card" User = "user" Amount = "amount" Currency = "currency"
        Merchant = "merchant" Channel = "channel" PartialApproval = "partial_approval" SentAt = "sent_at" DeadlineMs = "deadline_ms"
        Network = "network" Preauthorization = "preauthorization" Recurring = "recurring" OriginalAmount = "original_amount"
        OriginalCurrency = "original_currency" Authorization = "authorization" AmountKind = "amount_kind" Sequence = "sequence"
        Final = "final";
    in_merchant:
        MerchantId = "id" MerchantName = "name" MerchantMcc = "mcc" MerchantCity = "city" MerchantCountry = "country"
}

/// A request's fields.
#[derive(Debug, Default)]
pub(super) struct Wire<'a> {
    fields: [Field<'a>; KEYS],
    /// The first known field that came twice. Its value is not to be had: nobody knows which one was meant.
    pub(super) duplicate: Option<Key>,
    /// What a field of a known level is named for that may not be there.
    pub(super) sensitive: Option<Sensitive>,
    /// Fields that are not known.
    pub(super) unknown: u32,
}

impl<'a> Wire<'a> {
    /// Reads an object. After an error what was read until then is there.
    pub(super) fn read(&mut self, text: &'a str) -> Result<(), serde_json::Error> {
        let mut json = serde_json::Deserializer::from_str(text);
        Level { wire: self, key_of: top_level }.deserialize(&mut json)?;
        json.end()
    }

    /// The value of a field.
    pub(super) fn get(&self, key: Key) -> &Field<'a> {
        &self.fields[key as usize]
    }

    fn set(&mut self, key: Key, value: Field<'a>) {
        let place = &mut self.fields[key as usize];
        if *place == Field::Missing {
            *place = value;
        } else {
            *place = Field::Other;
            self.duplicate = self.duplicate.or(Some(key));
        }
    }
}

/// Reads the fields of one known object into the wire.
struct Level<'w, 'a> {
    wire: &'w mut Wire<'a>,
    key_of: fn(&str) -> Option<Key>,
}

impl<'a> Level<'_, 'a> {
    fn unknown(&mut self, name: &str) {
        self.wire.sensitive = self.wire.sensitive.or(pan::sensitive_name(name.as_bytes()));
        self.wire.unknown = self.wire.unknown.saturating_add(1);
    }

    fn value<M: MapAccess<'a>>(&mut self, key: Key, map: &mut M) -> Result<(), M::Error> {
        let value = match key {
            Key::Merchant => map.next_value_seed(Level { wire: self.wire, key_of: in_merchant })?,
            // Any number is an amount of the wrong shape, also one that fits no float.
            Key::Amount => {
                let raw = map.next_value::<&RawValue>()?.get();
                if raw.starts_with(['"', 'n']) { serde_json::from_str(raw).map_err(de::Error::custom)? } else { Field::Other }
            }
            _ => map.next_value()?,
        };
        self.wire.set(key, value);
        Ok(())
    }
}

impl<'a> DeserializeSeed<'a> for Level<'_, 'a> {
    type Value = Field<'a>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Field<'a>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// The values of a JSON scalar, for visitors that do not care for objects.
macro_rules! scalars {
    ($life:lifetime) => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("JSON")
        }
        fn visit_unit<E>(self) -> Result<Field<$life>, E> {
            Ok(Field::Null)
        }
        fn visit_bool<E>(self, value: bool) -> Result<Field<$life>, E> {
            Ok(Field::Bool(value))
        }
        fn visit_u64<E>(self, value: u64) -> Result<Field<$life>, E> {
            Ok(Field::Integer(value))
        }
        fn visit_i64<E>(self, _: i64) -> Result<Field<$life>, E> {
            Ok(Field::Other)
        }
        fn visit_f64<E>(self, _: f64) -> Result<Field<$life>, E> {
            Ok(Field::Other)
        }
        fn visit_borrowed_str<E>(self, value: &$life str) -> Result<Field<$life>, E> {
            Ok(Field::Text(Cow::Borrowed(value)))
        }
        fn visit_str<E>(self, value: &str) -> Result<Field<$life>, E> {
            Ok(Field::Text(Cow::Owned(value.to_owned())))
        }
        fn visit_seq<A: SeqAccess<$life>>(self, mut items: A) -> Result<Field<$life>, A::Error> {
            while items.next_element::<Field<'_>>()?.is_some() {}
            Ok(Field::Other)
        }
    };
}

impl<'a> Visitor<'a> for Level<'_, 'a> {
    type Value = Field<'a>;
    scalars!('a);

    fn visit_map<M: MapAccess<'a>>(mut self, mut map: M) -> Result<Field<'a>, M::Error> {
        while let Some(Name(name)) = map.next_key()? {
            match (self.key_of)(&name) {
                Some(key) => self.value(key, &mut map)?,
                None => {
                    self.unknown(&name);
                    map.next_value::<Field<'_>>()?;
                }
            }
        }
        Ok(Field::Object)
    }
}

/// Reads any value. What is nested in it is checked to be JSON, strings included, and dropped.
struct AnyValue;

impl<'a> Visitor<'a> for AnyValue {
    type Value = Field<'a>;
    scalars!('a);

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<Field<'a>, M::Error> {
        while map.next_entry::<Name<'_>, Field<'_>>()?.is_some() {}
        Ok(Field::Other)
    }
}

impl<'a> Deserialize<'a> for Field<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

/// A key, borrowed when it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
