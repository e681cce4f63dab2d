//! Authorization requests as a processor writes them (JSON, version 1).

use serde_json::{Map, Value, json};

/// One request: 10.00 USD at a grocer's, chip inserted, unless told otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Request(Map<String, Value>);

impl Request {
    pub(crate) fn new(id: &str) -> Self {
        let body = json!({
            "version": 1, "type": "authorization", "id": id, "card": "crd_approve", "amount": "10.00", "currency": "USD",
            "merchant": {"id": "mrc_grocer", "name": "GROCER", "mcc": "5411", "city": "AUSTIN", "country": "USA"}, "channel": "chip",
        });
        let Value::Object(fields) = body else { unreachable!("an object was written above") };
        Self(fields)
    }

    pub(crate) fn id(&self) -> &str {
        self.0.get("id").and_then(Value::as_str).unwrap_or_default()
    }

    /// Sets any field, also to what is not allowed.
    #[must_use]
    pub(crate) fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.0.insert(field.to_owned(), value.into());
        self
    }

    #[must_use]
    pub(crate) fn without(mut self, field: &str) -> Self {
        self.0.remove(field);
        self
    }

    #[must_use]
    fn with_merchant(mut self, field: &str, value: &str) -> Self {
        self.0["merchant"][field] = value.into();
        self
    }

    #[must_use]
    pub(crate) fn card(self, token: &str) -> Self {
        self.with("card", token)
    }

    #[must_use]
    pub(crate) fn user(self, token: &str) -> Self {
        self.with("user", token)
    }

    #[must_use]
    pub(crate) fn amount(self, decimal: &str) -> Self {
        self.with("amount", decimal)
    }

    #[must_use]
    pub(crate) fn currency(self, code: &str) -> Self {
        self.with("currency", code)
    }

    #[must_use]
    pub(crate) fn channel(self, name: &str) -> Self {
        self.with("channel", name)
    }

    #[must_use]
    pub(crate) fn merchant(self, id: &str) -> Self {
        self.with_merchant("id", id)
    }

    #[must_use]
    pub(crate) fn mcc(self, code: &str) -> Self {
        self.with_merchant("mcc", code)
    }

    #[must_use]
    pub(crate) fn country(self, alpha3: &str) -> Self {
        self.with_merchant("country", alpha3)
    }

    /// The terminal can take less than it asked for.
    #[must_use]
    pub(crate) fn partial(self) -> Self {
        self.with("partial_approval", true)
    }

    #[must_use]
    pub(crate) fn deadline_ms(self, milliseconds: u32) -> Self {
        self.with("deadline_ms", milliseconds)
    }

    /// RFC 3339, in UTC.
    #[must_use]
    pub(crate) fn sent_at(self, instant: &str) -> Self {
        self.with("sent_at", instant)
    }

    /// The bytes on the wire.
    pub(crate) fn body(&self) -> Vec<u8> {
        serde_json::to_vec(&self.0).unwrap()
    }
}
