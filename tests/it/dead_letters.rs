//! What cannot be read, and what nobody can be answered, is kept for a person as it came, with the reason, and holds nothing up.

use crate::support::{
    PATIENCE,
    amqp::{Amqp, CREATED, DEAD_LETTERS, Mailbox, REQUESTS},
    daemon::Daemon,
    eventually,
    request::Request,
    sandbox::Sandbox,
    store::Store,
    world::{Holder, Program, World},
};
use crate::traffic::figure;
use futures_util::StreamExt;
use lapin::{
    BasicProperties,
    message::Delivery,
    options::{BasicConsumeOptions, BasicGetOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::timeout;

const REPLIES: &str = "reply.letters";
const DIRECT: &str = "amq.rabbitmq.reply-to";
/// Valid by its check digit, and nobody's.
const PAN: &str = "4111111111111111";

async fn prepare(store: &Store) {
    let world = World::new(store);
    let program = world.program("letters", Program::default()).await;
    world.holder(program, "approve", Holder { posted: 100_000_000, ..Holder::default() }).await;
    world.holder(program, "poor", Holder { posted: 0, ..Holder::default() }).await;
}

/// Everything that a producer can say about a message, and that a dead letter must still say.
fn properties(name: &str) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert("x-tenant".into(), AMQPValue::LongString("acme".into()));
    headers.insert("x-hops".into(), AMQPValue::LongInt(7));
    BasicProperties::default()
        .with_message_id(name.into())
        .with_correlation_id(format!("cor-{name}").into())
        .with_reply_to(REPLIES.into())
        .with_content_type("application/json".into())
        .with_type("jit.request".into())
        .with_app_id("acquirer-7".into())
        .with_timestamp(1_772_619_307)
        .with_priority(3)
        .with_headers(headers)
}

async fn letter(amqp: &Amqp) -> Option<Delivery> {
    let channel = amqp.channel().await.expect("RabbitMQ answers");
    let got = channel.basic_get(DEAD_LETTERS.into(), BasicGetOptions { no_ack: true }).await.expect("the queue exists");
    got.map(|got| got.delivery)
}

async fn next_letter(amqp: &Amqp) -> Delivery {
    eventually("a dead letter", async || letter(amqp).await).await
}

fn header(letter: &Delivery, name: &str) -> String {
    let headers = letter.properties.headers().clone().unwrap_or_default();
    match headers.inner().get(&ShortString::from(name)) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        Some(AMQPValue::LongLongInt(number)) => number.to_string(),
        Some(AMQPValue::LongInt(number)) => number.to_string(),
        other => panic!("{name}: {other:?} in {headers:?}"),
    }
}

/// The named headers, and every property of the original but its headers.
fn check_envelope(letter: &Delivery, original: &BasicProperties, reason: &str, key: (&str, &str)) {
    let name = original.message_id().as_ref().map_or("", ShortString::as_str);
    assert_eq!(header(letter, "x-reason"), reason, "{name}");
    assert!(!header(letter, "x-detail").is_empty(), "{name}");
    assert!(header(letter, "x-attempts").parse::<u32>().unwrap() >= 1, "{name}");
    assert_eq!((header(letter, "x-original-exchange").as_str(), header(letter, "x-original-routing-key").as_str()), key, "{name}");
    let failed_at = header(letter, "x-failed-at");
    assert!(failed_at.ends_with('Z') && failed_at.contains('T'), "{name}: {failed_at}");
    assert_eq!(header(letter, "x-dlq-id").len(), 32, "{name}");
    assert_eq!((header(letter, "x-tenant").as_str(), header(letter, "x-hops").as_str()), ("acme", "7"), "{name}");
    let plain = |properties: &BasicProperties| properties.clone().with_headers(FieldTable::default()).with_delivery_mode(2);
    assert_eq!(plain(&letter.properties), plain(original), "{name}");
}

/// Bytes that are no request.
struct Bad {
    name: &'static str,
    body: Vec<u8>,
    reason: &'static str,
    code: &'static str,
    detail: &'static str,
    /// Whether the answer can name the request.
    id: bool,
}

fn bad(name: &'static str, body: impl Into<Vec<u8>>, detail: &'static str) -> Bad {
    Bad { name, body: body.into(), reason: "malformed", code: "30", detail, id: false }
}

fn because(bad: Bad, reason: &'static str, code: &'static str) -> Bad {
    Bad { reason, code, ..bad }
}

fn with_id(bad: Bad) -> Bad {
    Bad { id: true, ..bad }
}

fn version(name: &'static str, version: serde_json::Value) -> Bad {
    because(bad(name, Request::new(name).with("version", version).body(), "unsupported_version"), "unsupported_version", "12")
}

fn text(request: Request) -> String {
    String::from_utf8(request.body()).unwrap()
}

fn table() -> Vec<Bad> {
    let request = |name: &str| Request::new(name);
    let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    vec![
        bad("empty", "", "is empty"),
        bad("blank", " \n\t ", "is empty"),
        bad("prose", "authorize this, please", "does not begin with an object"),
        bad("array", format!("[{}]", text(request("array"))), "does not begin with an object"),
        bad("fields-in-order", r#"[1, "authorization", "fields-in-order", "crd_approve"]"#, "does not begin with an object"),
        bad("mark", [b"\xef\xbb\xbf".as_slice(), &request("mark").body()].concat(), "does not begin with an object"),
        bad("binary", b"{\xff\xfe\x00}".as_slice(), "UTF-8"),
        bad("cut", &text(request("cut"))[..40], "json"),
        with_id(bad("trailing", format!("{}{{}}", text(request("trailing"))), "json")),
        with_id(bad("twice", text(request("twice")).replacen('{', r#"{"amount": "1.00", "#, 1), "duplicate_field: amount")),
        bad("two-ids", text(request("two-ids")).replacen('{', r#"{"id": "other", "#, 1), "duplicate_field: id"),
        bad("large", request("large").with("padding", "x".repeat(17 * 1024)).body(), "too_large"),
        bad("huge", vec![b'{'; 1024 * 1024], "too_large"),
        with_id(bad("deep", text(request("deep")).replacen('{', &format!(r#"{{"deep": {}, "#, nested(17)), 1), "too_large")),
        bad("deepest", format!("{{\"a\":{}}}", nested(7_000)), "too_large"),
        bad("nul", text(request("nul")).replace("nul", r"nu\u0000l"), "id"),
        bad("nul-byte", [b"{\"version\":1,\"id\":\"nul\0\"".as_slice(), b"}"].concat(), "json"),
        bad("no-id", request("no-id").without("id").body(), "missing"),
        bad("long-id", request(&"x".repeat(65)).body(), "id"),
        with_id(bad("no-card", request("no-card").without("card").body(), "missing")),
        with_id(bad("no-merchant", request("no-merchant").with("merchant", "GROCER").body(), "invalid_merchant")),
        with_id(bad("type", request("type").with("type", "refund").body(), "unsupported_type")),
        with_id(version("version", 2.into())),
        with_id(version("version-text", "1".into())),
        with_id(because(bad("float", request("float").with("amount", 10.0).body(), "not a string"), "invalid_amount", "13")),
        with_id(because(bad("precision", request("precision").amount("10.005").body(), "precision"), "invalid_precision", "13")),
        with_id(because(bad("currency", request("currency").currency("XXQ").body(), "invalid_currency"), "invalid_currency", "12")),
    ]
}

/// A request beside the bad ones, which must fare as if it were alone.
async fn neighbour(amqp: &Amqp, replies: &Mailbox, number: usize) {
    let id = format!("neighbour-{number}");
    let message = BasicProperties::default().with_message_id(id.as_str().into()).with_reply_to(REPLIES.into());
    amqp.request(Request::new(&id).body(), message).await;
    let answer = replies.response(&id).await.json();
    assert_eq!(answer["decision"], "approved", "{id}: {answer}");
}

/// Nothing is left in work or waiting, and only `decided` requests are in the journal.
async fn nothing_else_happened(daemon: &mut Daemon, amqp: &Amqp, store: &Store, decided: usize) {
    eventually("an empty work queue", async || (amqp.depth(REQUESTS).await == 0).then_some(())).await;
    let status = daemon.terminate().await;
    assert!(status.success(), "{status}");
    assert_eq!(amqp.depth(REQUESTS).await, 0, "something was dealt with and not acknowledged");
    assert_eq!(amqp.depth(DEAD_LETTERS).await, 0, "a dead letter too many");
    assert_eq!(store.number("select count(*) from authorizations").await, i64::try_from(decided).unwrap());
    store.check_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_answered_and_kept_as_it_came() {
    let Some(sandbox) = Sandbox::services().await else { return };
    let store = sandbox.store().await;
    prepare(&store).await;
    let mut daemon = sandbox.daemon().await;
    let amqp = sandbox.amqp().await;
    let replies = amqp.collect(REPLIES).await;
    let table = table();
    for (number, bad) in table.iter().enumerate() {
        amqp.request(bad.body.clone(), properties(bad.name)).await;
        neighbour(&amqp, &replies, number).await;
    }
    let mut letters = BTreeMap::new();
    for _ in &table {
        let letter = next_letter(&amqp).await;
        let name = letter.properties.message_id().as_ref().expect("a message id").to_string();
        assert!(letters.insert(name.clone(), letter).is_none(), "{name} was dead-lettered twice");
    }
    for bad in &table {
        let letter = &letters[bad.name];
        check_envelope(letter, &properties(bad.name), bad.reason, ("transactions", CREATED));
        assert!(header(letter, "x-detail").contains(bad.detail), "{}: {}", bad.name, header(letter, "x-detail"));
        assert!(letter.data == bad.body, "{}: another body", bad.name);
        let correlation = format!("cor-{}", bad.name);
        let answers: Vec<_> =
            replies.all().into_iter().filter(|answer| answer.correlation_id.as_deref() == Some(correlation.as_str())).collect();
        assert_eq!(answers.len(), 1, "{} is answered once", bad.name);
        let answer = answers[0].json();
        assert_eq!((&answer["decision"], &answer["reason"]), (&"declined".into(), &bad.reason.into()), "{}", bad.name);
        assert_eq!((&answer["response_code"], answer["hold"].is_null()), (&bad.code.into(), true), "{}", bad.name);
        assert_eq!(answer["id"].as_str(), bad.id.then_some(bad.name));
        assert_eq!(answers[0].header("x-final"), Some("false"), "{}", bad.name);
    }
    figure(&format!("{} kinds of bad bytes, each answered and kept", table.len()));
    nothing_else_happened(&mut daemon, &amqp, &store, table.len()).await;
}

/// A request that is answered nowhere: what its dead letter says, and what the journal says.
struct Lost {
    name: &'static str,
    body: Vec<u8>,
    reply_to: &'static str,
    letter: &'static str,
    /// The reason in the journal, by name; `None` when it is not there.
    journal: Option<&'static str>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_can_be_answered_is_kept_and_holds_nothing() {
    let Some(sandbox) = Sandbox::services().await else { return };
    let store = sandbox.store().await;
    prepare(&store).await;
    let mut daemon = sandbox.daemon().await;
    let amqp = sandbox.amqp().await;
    let replies = amqp.collect(REPLIES).await;
    let request = |name: &str| Request::new(name).deadline_ms(700);
    let lost = |name, body, reply_to, letter, journal| Lost { name, body, reply_to, letter, journal };
    let cases = [
        lost("gone", request("gone").body(), "reply.gone", "reply_unroutable", Some("deadline_exceeded")),
        lost("gone-exclusive", request("gone-exclusive").body(), "amq.gen-gone", "reply_unroutable", Some("deadline_exceeded")),
        lost("gone-poor", request("gone-poor").card("crd_poor").body(), "reply.gone", "reply_unroutable", Some("insufficient_funds")),
        lost("gone-bad", request("gone-bad").without("card").body(), "reply.gone", "malformed", None),
        lost("forbidden", request("forbidden").body(), "payroll", "reply_to_forbidden", None),
        lost("forbidden-work", request("forbidden-work").body(), REQUESTS, "reply_to_forbidden", None),
        lost("forbidden-bad", b"[]".to_vec(), DEAD_LETTERS, "malformed", None),
    ];
    let original = |case: &Lost| properties(case.name).with_reply_to(case.reply_to.into());
    for (number, case) in cases.iter().enumerate() {
        amqp.request(case.body.clone(), original(case)).await;
        neighbour(&amqp, &replies, number).await;
    }
    let mut letters = BTreeMap::new();
    for _ in &cases {
        let letter = next_letter(&amqp).await;
        letters.insert(letter.properties.message_id().as_ref().expect("a message id").to_string(), letter);
    }
    for case in &cases {
        let letter = letters.get(case.name).unwrap_or_else(|| panic!("{} is in no dead letter", case.name));
        check_envelope(letter, &original(case), case.letter, ("transactions", CREATED));
        assert_eq!(letter.data, case.body, "{}", case.name);
        let stored = store.response(case.name).await.map(|body| serde_json::from_slice::<serde_json::Value>(&body).unwrap());
        assert_eq!(stored.as_ref().and_then(|body| body["reason"].as_str()), case.journal, "{}", case.name);
        if case.letter == "reply_unroutable" {
            assert!(header(letter, "x-attempts").parse::<u32>().unwrap() > 1, "{} was tried once only", case.name);
        }
    }
    let open = "select count(*) from holds where status = 1 and authorization_id not like 'neighbour-%'";
    assert_eq!(store.number(open).await, 0, "an approval that nobody heard still holds money");
    let neighbours = cases.len();
    let decided = neighbours + cases.iter().filter(|case| case.journal.is_some()).count();
    assert_eq!(replies.all().len(), neighbours);
    nothing_else_happened(&mut daemon, &amqp, &store, decided).await;
}

/// Direct reply-to returns what it has delivered, so a return says nothing there: the approval was heard, and its hold stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approval_that_went_by_direct_reply_to_is_kept() {
    let Some(sandbox) = Sandbox::services().await else { return };
    let store = sandbox.store().await;
    prepare(&store).await;
    let mut daemon = sandbox.daemon().await;
    let amqp = sandbox.amqp().await;
    let request = Request::new("direct").deadline_ms(700);
    let channel = amqp.channel().await.expect("RabbitMQ answers");
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let inbox = channel.basic_consume(DIRECT.into(), "".into(), options, FieldTable::default()).await;
    let mut inbox = inbox.expect("answers are taken on the channel that asks");
    amqp.request(request.body(), properties("direct").with_reply_to(DIRECT.into())).await;
    let first = timeout(PATIENCE, inbox.next()).await.expect("an answer").expect("a channel").expect("an answer").data;
    let answer: serde_json::Value = serde_json::from_slice(&first).unwrap();
    assert_eq!(answer["decision"], "approved");
    // Past its deadline it would have been taken back, had it counted as unsent.
    let again = timeout(Duration::from_secs(2), inbox.next()).await;
    assert!(again.is_err(), "the answer was sent again: {again:?}");
    assert_eq!(store.response("direct").await, Some(first), "the journal has what the requester heard");
    let unheard = store.text("select cast(unheard as text) from authorizations where id = 'direct'").await;
    assert_eq!(unheard.as_deref(), Some("true"), "nobody can be sure of it");
    nothing_else_happened(&mut daemon, &amqp, &store, 1).await;
}

/// Bodies with a card number in them, each in another place or spelling.
fn with_pan() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let request = |name: &str| Request::new(name);
    let escaped: String = PAN.chars().map(|digit| format!("\\u{:04x}", digit as u32)).collect();
    vec![
        ("as-card", request("as-card").card(PAN).body(), "pan_present"),
        ("as-id", request(PAN).body(), "pan_present"),
        ("as-merchant", request("as-merchant").merchant(PAN).body(), "pan_present"),
        ("in-field", request("in-field").with("note", format!("card {PAN} of mine")).body(), "pan_present"),
        ("as-number", text(request("as-number")).replacen('{', &format!(r#"{{"raw": {PAN}, "#), 1).into_bytes(), "pan_present"),
        ("in-groups", request("in-groups").with("note", "4111 1111 1111 1111").body(), "pan_present"),
        ("with-dashes", request("with-dashes").with("note", "4111-1111-1111-1111").body(), "pan_present"),
        ("escaped", text(request("escaped")).replacen('{', &format!(r#"{{"note": "{escaped}", "#), 1).into_bytes(), "pan_present"),
        (
            "nested",
            request("nested").with("extra", serde_json::json!({"deep": [{"track2": "4111111111111111=29121010000000000000"}]})).body(),
            "pan_present",
        ),
        ("in-prose", format!("please charge {PAN} today").into_bytes(), "malformed"),
        ("in-cut-json", format!(r#"{{"version": 1, "pan": "{PAN}"#).into_bytes(), "malformed"),
        ("in-array", format!(r#"["{PAN}"]"#).into_bytes(), "malformed"),
        ("in-large", format!("{{\"x\": \"{}\", \"pan\": \"{PAN}\"}}", "y".repeat(20_000)).into_bytes(), "malformed"),
    ]
}

/// Whether eight digits of the number stand anywhere in a text, its separators aside, or in hexadecimal, or escaped.
fn shows_digits(text: &str) -> bool {
    let plain: String = text.chars().filter(|character| !matches!(character, ' ' | '-')).collect();
    let hex: String = PAN.bytes().take(8).map(|byte| format!("{byte:02x}")).collect();
    plain.contains(&PAN[..8]) || plain.contains(&PAN[8..]) || text.contains(&hex) || text.contains("\\u0031\\u0031\\u0031")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_card_number_is_in_no_byte_of_ours() {
    let Some(sandbox) = Sandbox::services().await else { return };
    let store = sandbox.store().await;
    prepare(&store).await;
    // Everything there is to log.
    let settings = sandbox.settings.clone().with("JITAUTH_LOG__FILTER", "debug,jitauth=trace");
    let mut daemon = Daemon::serve(settings).await;
    let amqp = sandbox.amqp().await;
    let replies = amqp.collect(REPLIES).await;
    let cases = with_pan();
    for (number, (name, body, _)) in cases.iter().enumerate() {
        assert!(body.len() < 64 * 1024);
        amqp.request(body.clone(), properties(name)).await;
        neighbour(&amqp, &replies, number).await;
    }
    // In what surrounds the bytes as well.
    let mut headers = FieldTable::default();
    headers.insert("x-card".into(), AMQPValue::LongString(PAN.into()));
    headers.insert("x-tenant".into(), AMQPValue::LongString("acme".into()));
    let around = properties("around").with_headers(headers).with_app_id(PAN.into()).with_type(format!("card {PAN}").into());
    amqp.request(b"[]".to_vec(), around).await;
    for _ in 0..=cases.len() {
        let letter = next_letter(&amqp).await;
        let name = letter.properties.message_id().as_ref().expect("a message id").to_string();
        let shown = format!("{} {:?}", String::from_utf8_lossy(&letter.data), letter.properties);
        assert!(!shows_digits(&shown), "{name}: {shown}");
        assert_eq!(header(&letter, "x-tenant"), "acme", "{name}");
        if let Some((_, body, reason)) = cases.iter().find(|(case, ..)| *case == name) {
            assert_eq!(header(&letter, "x-reason"), *reason, "{name}");
            assert_eq!(letter.data.len(), body.len(), "{name}: blotted out, not cut");
            let kept = letter.data.iter().zip(body).filter(|(kept, original)| kept == original).count();
            assert!(kept * 2 > body.len() || body.len() < 60, "{name}: only {kept} of {} bytes are as they came", body.len());
        }
    }
    for answer in replies.all() {
        assert!(!shows_digits(&String::from_utf8_lossy(&answer.body)), "{answer:?}");
    }
    nothing_else_happened(&mut daemon, &amqp, &store, cases.len()).await;
    assert!(daemon.text().contains("invalid_input"), "the log was not there to be looked at");
    let line = daemon.text().lines().find(|line| shows_digits(line)).map(str::to_owned);
    assert_eq!(line, None, "a card number in the log");
    let base = "table_schema = 'public' and table_type = 'BASE TABLE'";
    let tables = store.rows(&format!("select cast(table_name as text) from information_schema.tables where {base}")).await;
    assert!(tables.len() > 5, "{tables:?}");
    for table in tables.into_iter().filter_map(|mut row| row[0].take()) {
        for row in store.rows(&format!("select cast(t as text) from {table} t")).await {
            let row = row[0].clone().unwrap_or_default();
            assert!(!shows_digits(&row), "{table}: {row}");
        }
    }
    figure(&format!("{} card numbers, none in the log, the store, an answer or a dead letter", cases.len() + 1));
}
