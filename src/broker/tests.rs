use super::*;
pub(super) fn settings(url: &str, prefix: &str) -> Settings {
    let name = |base: &str| format!("{prefix}{base}");
    Settings {
        url: url.into(),
        queue_type: QueueType::Quorum,
        exchange: name("transactions"),
        events_exchange: name("events"),
        request_queue: name("jit-funding-queue"),
        response_queue: name("jit-funding-responses"),
        dead_letter_queue: name("jit-funding-dlq"),
        transaction_queue: name("transaction-processing-queue"),
        webhook_queue: name("webhook-queue"),
        reply_to_allowed: ["amq.gen-", "amq.rabbitmq.reply-to.", "reply.", "jit-funding-responses"].map(String::from).to_vec(),
        prefetch: 64,
        confirms_max: 64,
        confirm_timeout: Duration::from_secs(2),
        connect_timeout: Duration::from_secs(5),
        heartbeat: Duration::from_secs(10),
        reconnect_max: Duration::from_secs(1),
    }
}
