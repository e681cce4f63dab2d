#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed unwrap is a failed test")]
use super::*;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const EXAMPLE: &str = r#"{"version": 1, "type": "authorization", "id": "auth-7a31c2f4", "card": "crd_0000417", "user": "usr_0000417",
 "amount": "42.50", "currency": "EUR",
 "merchant": {"id": "000000012345678", "name": "CAFE DE ROOS", "mcc": "5812", "city": "AMSTERDAM", "country": "NLD"},
 "channel": "contactless", "partial_approval": false, "sent_at": "2026-03-04T10:15:07.112Z", "deadline_ms": 3000}"#;

/// The example with one text replaced by another.
fn with(old: &str, new: &str) -> String {
    assert!(EXAMPLE.contains(old), "{old}");
    EXAMPLE.replacen(old, new, 1)
}

/// The example with one more field at the front.
fn plus(field: &str) -> String {
    with("{\"version\"", &format!("{{{field}, \"version\""))
}

/// Checks the reason, and what the detail begins with.
fn check(body: impl AsRef<[u8]>, reason: Reason, detail: &str) {
    let body = body.as_ref();
    let error = decode(body).expect_err(&String::from_utf8_lossy(body));
    let shown = String::from_utf8_lossy(body);
    assert_eq!(error.reason, reason, "{error} for {shown}");
    assert!(error.detail.starts_with(detail), "{error} for {shown}");
}

#[test]
fn the_example_of_the_contract_reads_as_it_means() {
    let Decoded { request, sent_at, deadline_ms, unknown_fields } = decode(EXAMPLE.as_bytes()).unwrap();
    assert_eq!((request.id.as_str(), request.card.as_str()), ("auth-7a31c2f4", "crd_0000417"));
    assert_eq!(request.user.unwrap().as_str(), "usr_0000417");
    assert_eq!((request.amount.minor, request.amount.currency.code()), (4250, "EUR"));
    assert_eq!(request.merchant.id.as_str(), "000000012345678");
    assert_eq!((request.merchant.mcc.number(), request.merchant.country.code()), (5812, "NLD"));
    assert_eq!((request.channel, request.partial_approval), (Channel::Contactless, false));
    assert_eq!((sent_at, deadline_ms, unknown_fields), (Some(Timestamp(1_772_619_307_112_000)), Some(3000), 0));
}

#[test]
fn what_is_optional_may_be_absent_null_or_unknown() {
    for (body, unknown) in [
        (with(r#""user": "usr_0000417","#, ""), 0),
        (with(r#""usr_0000417""#, "null"), 0),
        (with(r#""partial_approval": false, "sent_at": "2026-03-04T10:15:07.112Z", "deadline_ms": 3000"#, r#""x": 1"#), 1),
        (with(r#""partial_approval": false, "sent_at": "2026-03-04T10:15:07.112Z", "deadline_ms": 3000"#, r#""sent_at": null"#), 0),
        (with("07.112Z", "07.112"), 0),
        (with("3000", "null"), 0),
        (with("false", "null"), 0),
        (with(r#""name": "CAFE DE ROOS""#, r#""name": 5"#), 0),
        (with("CAFE DE ROOS", r"A\u0000\u001b[31m\u202e\n"), 0),
        (with("CAFE DE ROOS", &"x".repeat(10_000)), 0),
        (with(r#""name": "CAFE DE ROOS","#, r#""postcode": "1012","#), 1),
        (plus(r#""a": {"b": [1, 2.5e3, null, "\ud83d\ude00"]}, "c": 1763628000123"#), 2),
        (
            plus(
                r#""network": "visa", "preauthorization": false, "recurring": true, "original_amount": "1.00", "original_currency": "USD""#,
            ),
            0,
        ),
        (plus(r#""authorization": "a", "amount_kind": "total", "sequence": 1, "final": false"#), 0),
        (format!(" \t\r\n{EXAMPLE}\n"), 0),
        (plus(&format!(r#""deep": {}{}"#, "[".repeat(15), "]".repeat(15))), 1),
        (plus(&format!(r#""brackets": "{}""#, "[{".repeat(100))), 1),
        (with("42.50", "9999999999.99"), 0),
        (with("42.50", "0.01"), 0),
    ] {
        let decoded = decode(body.as_bytes());
        assert_eq!(decoded.map(|decoded| decoded.unknown_fields), Ok(unknown), "{body}");
    }
}

#[test]
fn bytes_that_are_no_request_are_malformed() {
    use Reason::Malformed;
    let deep = format!(r#""deep": {}{}"#, "[".repeat(16), "]".repeat(16));
    for (body, detail) in [
        // rows 1 to 3
        (String::new(), "not_json"),
        (" \n".into(), "not_json"),
        (EXAMPLE[..100].into(), "not_json"),
        (format!("{EXAMPLE} {EXAMPLE}"), "not_json"),
        (with("{", "{/* */"), "not_json"),
        (with("3000}", "3000,}"), "not_json"),
        (format!("\u{feff}{EXAMPLE}"), "not_json"),
        (with("CAFE", "\u{7}"), "not_json"),
        (with("CAFE", r"\ud800"), "not_json"),
        (plus(r#""x": "\ud800""#), "not_json"),
        (with("42.50", r"\ud800"), "not_json"),
        (format!("[{EXAMPLE}]"), "not_json"),
        (r#"[1,"authorization","a","b"]"#.into(), "not_json"),
        ("5".into(), "not_json"),
        ("{}".into(), "missing_field: currency"),
        // row 4
        (plus(r#""amount": "1.00""#), "duplicate_field: amount"),
        (plus(r#""am\u006funt": "1.00""#), "duplicate_field: amount"),
        (plus(r#""id": "auth-7a31c2f4""#), "duplicate_field: id"),
        (plus(r#""user": null"#), "duplicate_field: user"),
        (plus(r#""sequence": 1, "sequence": 1"#), "duplicate_field: sequence"),
        (plus(r#""merchant": {}"#), "duplicate_field: merchant"),
        (with(r#""mcc""#, r#""mcc": "5812", "mcc""#), "duplicate_field: merchant.mcc"),
        // rows 6 and 7
        (with("CAFE", &"x".repeat(BODY_BYTES_MAX)), "too_large"),
        (with("3000", &"9".repeat(1 << 20)), "too_large"),
        (plus(&deep), "too_large"),
        (with("\"city\": \"AMSTERDAM\"", &deep), "too_large"),
        // row 16
        (with(r#""id": "auth-7a31c2f4","#, ""), "invalid_id"),
        (with("auth-7a31c2f4", ""), "invalid_id"),
        (with("auth-7a31c2f4", &"a".repeat(65)), "invalid_id"),
        (with("auth-7a31c2f4", r"a\u0000"), "invalid_id"),
        (with("auth-7a31c2f4", r"a\n"), "invalid_id"),
        (with("auth-7a31c2f4", r"\u202egnp"), "invalid_id"),
        (with("auth-7a31c2f4", "аuth"), "invalid_id"),
        (with(r#""auth-7a31c2f4""#, "7"), "invalid_id"),
        // row 37, and the other fields
        (with("\"5812\"", "\"581\""), "invalid_merchant"),
        (with("\"5812\"", "5812"), "invalid_merchant"),
        (with("NLD", "NL"), "invalid_merchant"),
        (with("NLD", "nld"), "invalid_merchant"),
        (with("000000012345678", ""), "invalid_merchant"),
        (with("{\"id\": \"000000012345678\",", "{"), "invalid_merchant"),
        (with("\"merchant\": {", "\"merchant\": null, \"x\": {"), "invalid_merchant"),
        (with("\"merchant\": {", "\"merchant\": [\"a\"], \"x\": {"), "invalid_merchant"),
        (with("crd_0000417", "crd 417"), "invalid_card"),
        (with("usr_0000417", "usr 417"), "invalid_user"),
        (with("contactless", "telepathy"), "invalid_channel"),
        (with("\"authorization\"", "\"reversal\""), "unsupported_type"),
        (with("\"type\": \"authorization\",", ""), "missing_field: type"),
        (with("\"version\": 1,", ""), "missing_field: version"),
        (with("\"currency\": \"EUR\",", ""), "missing_field: currency"),
        (with("false", "\"false\""), "invalid_partial_approval"),
        (with("2026-03-04T10:15:07.112Z", "soon"), "invalid_sent_at"),
        (with("\"2026-03-04T10:15:07.112Z\"", "1763628000123"), "invalid_sent_at"),
        (with("3000", "99"), "invalid_deadline"),
        (with("3000", "60001"), "invalid_deadline"),
        (with("3000", "4294968296"), "invalid_deadline"),
        (with("3000", "-3000"), "invalid_deadline"),
        (with("3000", "3000.0"), "invalid_deadline"),
        (with("3000", "\"3000\""), "invalid_deadline"),
    ] {
        check(body, Malformed, detail);
    }
    check([EXAMPLE.as_bytes(), b"\xff"].concat(), Malformed, "not_json");
    check(with("CAFE", "\u{0}").as_bytes(), Malformed, "not_json");
    let utf16: Vec<u8> = EXAMPLE.encode_utf16().flat_map(u16::to_le_bytes).collect();
    check(utf16, Malformed, "not_json");
}

#[test]
fn every_wrong_value_has_its_own_reason() {
    use Reason::{InvalidAmount, InvalidCurrency, InvalidPrecision, PanPresent, UnsupportedVersion};
    let amount = |raw: &str| with("\"42.50\"", raw);
    let currency = |raw: &str| with("\"EUR\"", raw);
    let jpy = |raw: &str| with("\"EUR\"", "\"JPY\"").replacen("42.50", raw, 1);
    for (body, reason, detail) in [
        // rows 8 to 11
        (with("\"amount\": \"42.50\",", ""), InvalidAmount, "invalid_amount"),
        (amount("null"), InvalidAmount, "invalid_amount"),
        (amount("true"), InvalidAmount, "invalid_amount"),
        (amount("42.50"), InvalidAmount, "invalid_amount"),
        (amount("4250"), InvalidAmount, "invalid_amount"),
        (amount("1e3"), InvalidAmount, "invalid_amount"),
        (amount("1e400"), InvalidAmount, "invalid_amount"),
        (amount("[\"42.50\"]"), InvalidAmount, "invalid_amount"),
        (amount("\"1e3\""), InvalidAmount, "invalid_amount"),
        (amount("\"\""), InvalidAmount, "invalid_amount"),
        (amount("\"42,50\""), InvalidAmount, "invalid_amount"),
        (amount("\"42.50 \""), InvalidAmount, "invalid_amount"),
        (amount("\"42.50\\u0000\""), InvalidAmount, "invalid_amount"),
        (amount("\"-42.50\""), InvalidAmount, "invalid_amount"),
        (amount("\"-42.505\""), InvalidAmount, "invalid_amount"),
        (amount("\"0\""), InvalidAmount, "invalid_amount"),
        (amount("\"0.00\""), InvalidAmount, "invalid_amount"),
        (amount("\"10000000000.00\""), InvalidAmount, "invalid_amount"),
        (amount("\"10000000000.001\""), InvalidAmount, "invalid_amount"),
        (amount("\"92233720368547758.08\""), InvalidAmount, "invalid_amount"),
        (jpy("1000000000000"), InvalidAmount, "invalid_amount"),
        // row 13
        (amount("\"42.505\""), InvalidPrecision, "invalid_precision"),
        (amount("\"0.001\""), InvalidPrecision, "invalid_precision"),
        (jpy("100.5"), InvalidPrecision, "invalid_precision"),
        // row 14
        (currency("\"\""), InvalidCurrency, "invalid_currency"),
        (currency("\"eur\""), InvalidCurrency, "invalid_currency"),
        (currency("\"978\""), InvalidCurrency, "invalid_currency"),
        (currency("978"), InvalidCurrency, "invalid_currency"),
        (currency("\"XXX\""), InvalidCurrency, "invalid_currency"),
        (currency("\"XAU\""), InvalidCurrency, "invalid_currency"),
        // row 36
        (with("\"version\": 1", "\"version\": 2"), UnsupportedVersion, "unsupported_version"),
        (with("\"version\": 1", "\"version\": 1.0"), UnsupportedVersion, "unsupported_version"),
        (with("\"version\": 1", "\"version\": \"1\""), UnsupportedVersion, "unsupported_version"),
        // rows 18 and 19
        (with("crd_0000417", "4111111111111111"), PanPresent, "pan_present"),
        (with("crd_0000417", "crd_4111111111111111"), PanPresent, "pan_present"),
        (with("auth-7a31c2f4", "4111-1111-1111-1111"), PanPresent, "pan_present"),
        (with("usr_0000417", "5555555555554444"), PanPresent, "pan_present"),
        (with("CAFE DE ROOS", "CAFE4111111111111111"), PanPresent, "pan_present"),
        (with("CAFE DE ROOS", "4111 1111 1111 1111"), PanPresent, "pan_present"),
        (with("CAFE DE ROOS", r"\u0034111111111111111"), PanPresent, "pan_present"),
        (with("AMSTERDAM", "X4111111111111111"), PanPresent, "pan_present"),
        (with("000000012345678", "M4111111111111111"), PanPresent, "pan_present"),
        (plus(r#""note": "4111111111111111""#), PanPresent, "pan_present"),
        (plus(r#""note": 4111111111111111"#), PanPresent, "pan_present"),
        (plus(r#""4111111111111111": 1"#), PanPresent, "pan_present"),
        (plus(r#""note": {"a": ["4111111111111111"]}"#), PanPresent, "pan_present"),
        (plus(r#""pan": "x""#), PanPresent, "pan_present"),
        (plus(r#""card_number": "x""#), PanPresent, "pan_present"),
        (plus(r#""cvv": "123""#), PanPresent, "sad_present"),
        (plus(r#""CVC2": 123"#), PanPresent, "sad_present"),
        (plus(r#""pin\u005fblock": "x""#), PanPresent, "sad_present"),
        (with("\"city\"", "\"track2\": \"x\", \"city\""), PanPresent, "sad_present"),
    ] {
        if reason == PanPresent {
            let error = decode(body.as_bytes()).unwrap_err();
            assert!(pan::contains(body.as_bytes()), "{body}");
            assert!(!format!("{error:?}").contains("1111"), "{error:?}");
        }
        check(body, reason, detail);
    }
    // rows 17 and 18: neither a hexadecimal id nor a time in milliseconds is a card number.
    decode(with("auth-7a31c2f4", "a4111111111111111f").as_bytes()).unwrap();
    decode(plus(r#""at": 1763628000123"#).as_bytes()).unwrap();
}

#[test]
fn of_several_wrong_things_the_first_in_the_enum_is_named() {
    let wrongs: [(Reason, &str, &str); 6] = [
        (Reason::Malformed, "contactless", "telepathy"),
        (Reason::UnsupportedVersion, "\"version\": 1", "\"version\": 2"),
        (Reason::InvalidAmount, "42.50", "-42.50"),
        (Reason::InvalidPrecision, "42.50", "42.505"),
        (Reason::InvalidCurrency, "EUR", "XXX"),
        (Reason::PanPresent, "CAFE DE ROOS", "4111111111111111"),
    ];
    for (index, (first, old, new)) in wrongs.iter().enumerate() {
        for (later, other_old, other_new) in &wrongs[index + 1..] {
            // Amount and precision are wrong in one text, and a precision needs a currency.
            let one_text = old == other_old;
            let no_exponent = *first == Reason::InvalidPrecision && *later == Reason::InvalidCurrency;
            if !one_text && !no_exponent {
                check(with(old, new).replacen(other_old, other_new, 1), *first, "");
            }
        }
    }
    check(with("42.50", "-42.505"), Reason::InvalidAmount, "");
}

#[test]
fn id_and_currency_are_salvaged_for_the_answer() {
    for (body, id, currency) in [
        (with("42.50", "x"), Some("auth-7a31c2f4"), Some("EUR")),
        (with("EUR", "XXX"), Some("auth-7a31c2f4"), None),
        (with("auth-7a31c2f4", "a b"), None, Some("EUR")),
        (plus(r#""id": "other""#), None, Some("EUR")),
        (plus(r#""currency": "USD""#), Some("auth-7a31c2f4"), None),
        (plus(r#""amount": "1.00""#), Some("auth-7a31c2f4"), Some("EUR")),
        (EXAMPLE[..EXAMPLE.len() - 1].into(), Some("auth-7a31c2f4"), Some("EUR")),
        (plus(&format!(r#""deep": {}{}"#, "[".repeat(16), "]".repeat(16))), Some("auth-7a31c2f4"), Some("EUR")),
        (with("auth-7a31c2f4", "4111111111111111"), None, Some("EUR")),
        ("[]".into(), None, None),
    ] {
        let error = decode(body.as_bytes()).expect_err(&body);
        assert_eq!(error.id.as_ref().map(RequestId::as_str), id, "{body}");
        assert_eq!(error.currency.as_ref().map(Currency::code), currency, "{body}");
    }
}

#[test]
fn the_digest_moves_with_the_material_fields_only() {
    let digest = |body: &str| decode(body.as_bytes()).unwrap().request.digest;
    let same = digest(EXAMPLE);
    for (old, new, material) in [
        ("crd_0000417", "crd_0000418", true),
        ("42.50", "42.51", true),
        ("EUR", "USD", true),
        ("000000012345678", "000000012345679", true),
        ("auth-7a31c2f4", "auth-other", false),
        ("42.50", "42.5", false),
        ("5812", "5813", false),
        ("contactless", "chip", false),
        ("NLD", "BEL", false),
        ("3000", "2000", false),
        ("false", "true", false),
        ("usr_0000417", "usr_0000418", false),
    ] {
        assert_eq!(digest(&with(old, new)) != same, material, "{old} {new}");
    }
    // A fixed value: the digest is stored, so it may not change between versions.
    let hex: String = same.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "4df9bb4477d0109fc67da961fa8cbcda");
}

/// A valid request with everything in it varied.
fn valid() -> impl Strategy<Value = Map<String, Value>> {
    let id = "[A-Za-z_.:][a-z_.:]{0,40}";
    let channel = prop::sample::select(Channel::ALL).prop_map(Channel::name);
    let currency = prop::sample::select(vec!["EUR", "USD", "JPY", "KWD", "CLF"]);
    let fields = (id, id, prop::option::of(id), 1..=AMOUNT_MINOR_MAX, currency, channel, any::<bool>());
    (fields, id, "[0-9]{4}", "[A-Z]{3}", prop::option::of(DEADLINE_MS)).prop_map(
        |((id, card, user, minor, currency, channel, partial), merchant, mcc, country, deadline_ms)| {
            let amount = money::format(minor, Currency::from_code(currency).unwrap());
            let request = json!({
                "version": 1, "type": "authorization", "id": id, "card": card, "user": user, "amount": amount, "currency": currency,
                "merchant": {"id": merchant, "mcc": mcc, "country": country, "name": "A \"B\" \u{7} é"}, "channel": channel,
                "partial_approval": partial, "deadline_ms": deadline_ms,
            });
            request.as_object().unwrap().clone()
        },
    )
}

proptest! {
    #[test]
    fn what_was_asked_is_what_is_read(sent in valid()) {
        let Decoded { request, deadline_ms, .. } = decode(&serde_json::to_vec(&sent).unwrap()).unwrap();
        let currency = request.amount.currency;
        let again = json!({
            "version": 1, "type": "authorization", "id": request.id.as_str(), "card": request.card.as_str(),
            "user": request.user.as_ref().map(UserToken::as_str), "amount": money::format(request.amount.minor, currency),
            "currency": currency.code(), "channel": request.channel.name(), "partial_approval": request.partial_approval,
            "deadline_ms": deadline_ms,
            "merchant": {"id": request.merchant.id.as_str(), "mcc": request.merchant.mcc.to_string(),
                "country": request.merchant.country.code(), "name": "A \"B\" \u{7} é"},
        });
        prop_assert_eq!(Value::Object(sent), again);
    }

    #[test]
    fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..300), text in "\\{.{0,200}") {
        prop_assert!(decode(&body).is_err());
        prop_assert!(decode(text.as_bytes()).is_err());
    }

    #[test]
    fn no_damage_to_a_request_panics_or_makes_money(
        damage in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), prop::sample::select(b"\"{}[],:0919.-e\\".to_vec())]), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut body = EXAMPLE.as_bytes().to_vec();
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
        match decode(&body) {
            Ok(decoded) => prop_assert!((1..=AMOUNT_MINOR_MAX).contains(&decoded.request.amount.minor)),
            Err(error) => {
                prop_assert!(error.reason <= Reason::PanPresent);
                prop_assert!(error.reason != Reason::PanPresent || pan::contains(&body));
            }
        }
    }
}
