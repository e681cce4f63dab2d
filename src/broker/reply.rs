//! Where an answer goes, and where it may not.

use super::{Settings, topology};
use lapin::types::ShortString;

/// What RabbitMQ makes of the reply address of a requester that uses direct reply-to.
const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to.";

/// An address for an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReplyAddress {
    /// The exchange; empty for the default exchange, which routes to the queue named by the key.
    pub(super) exchange: ShortString,
    /// The routing key.
    pub(super) key: ShortString,
    /// Whether messages can be lost on this way after they were confirmed.
    pub(super) lossy: bool,
}

/// `reply_to` names an address that answers may not be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReplyToForbidden;

/// The rule about reply addresses. Who may publish a request must not be able to make us write into any queue of the broker,
/// least of all into our own.
#[derive(Clone, Debug)]
pub(super) struct ReplyRule {
    exchange: String,
    allowed: Vec<String>,
    ours: Vec<String>,
}

impl ReplyRule {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            exchange: settings.exchange.clone(),
            allowed: settings.reply_to_allowed.clone(),
            ours: topology::work_queues_and_dead_letter_queues(settings),
        }
    }

    /// The address for a request's `reply_to`. An empty one is none.
    pub(super) fn address(&self, reply_to: Option<&str>) -> Result<ReplyAddress, ReplyToForbidden> {
        let Some(queue) = reply_to.filter(|queue| !queue.is_empty()) else {
            return address(&self.exchange, topology::DECIDED, false);
        };
        let allowed = self.allowed.iter().any(|prefix| !prefix.is_empty() && queue.starts_with(prefix.as_str()));
        if !allowed || self.ours.iter().any(|ours| ours == queue) {
            return Err(ReplyToForbidden);
        }
        address("", queue, queue.starts_with(DIRECT_REPLY_TO))
    }
}

fn address(exchange: &str, key: &str, lossy: bool) -> Result<ReplyAddress, ReplyToForbidden> {
    let (Ok(exchange), Ok(key)) = (ShortString::try_new(exchange), ShortString::try_new(key)) else {
        return Err(ReplyToForbidden);
    };
    Ok(ReplyAddress { exchange, key, lossy })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::tests::settings;

    fn check(reply_to: Option<&str>, expected: Option<(&str, &str, bool)>) {
        let address = ReplyRule::new(&settings("amqp://127.0.0.1/%2f", "")).address(reply_to);
        let expected = expected
            .map(|(exchange, key, lossy)| ReplyAddress { exchange: exchange.into(), key: key.into(), lossy })
            .ok_or(ReplyToForbidden);
        assert_eq!(address, expected, "{reply_to:?}");
    }

    #[test]
    fn answers_go_to_allowed_addresses_only() {
        check(None, Some(("transactions", "jit-funding.decided", false)));
        check(Some(""), Some(("transactions", "jit-funding.decided", false)));
        check(Some("reply.acquirer-7"), Some(("", "reply.acquirer-7", false)));
        check(Some("amq.gen-JzTY20BRgKO"), Some(("", "amq.gen-JzTY20BRgKO", false)));
        check(Some("amq.rabbitmq.reply-to.g1h2AA"), Some(("", "amq.rabbitmq.reply-to.g1h2AA", true)));
        check(Some("jit-funding-responses"), Some(("", "jit-funding-responses", false)));
        check(Some("somebody.else"), None);
        check(Some("Reply.acquirer-7"), None);
        check(Some("jit-funding-queue"), None);
        check(Some("jit-funding-dlq"), None);
        check(Some("transaction-processing-queue"), None);
        check(Some("webhook-queue-dlq"), None);
    }

    #[test]
    fn our_own_queues_are_forbidden_whatever_is_allowed() {
        let mut settings = settings("amqp://127.0.0.1/%2f", "");
        settings.reply_to_allowed = vec!["jit-".into(), "transaction-".into(), "webhook-".into(), String::new()];
        let rule = ReplyRule::new(&settings);
        for queue in topology::work_queues_and_dead_letter_queues(&settings) {
            assert_eq!(rule.address(Some(&queue)), Err(ReplyToForbidden), "{queue}");
        }
        assert_eq!(rule.address(Some("unlisted")), Err(ReplyToForbidden), "an empty prefix allows nothing");
    }
}
