use super::*;
use proptest::prelude::*;

/// Numbers the networks publish for tests.
const NUMBERS: &[&str] = &[
    "4111111111111111",
    "4222222222222",
    "5555555555554444",
    "2223003122003222",
    "378282246310005",
    "6011111111111117",
    "30569309025904",
    "36227206271667",
    "3530111333300000",
    "6212345678901232",
    "6759649826438453",
];

fn check(text: &str, letters: Letters, expected: bool) {
    assert_eq!(number_in(text.as_bytes(), letters), expected, "{text} {letters:?}");
}

#[test]
fn a_number_is_found_wherever_it_stands_alone() {
    for number in NUMBERS {
        let spaced: String =
            number.chars().enumerate().map(|(i, c)| if i > 0 && i % 4 == 0 { format!(" {c}") } else { c.into() }).collect();
        for text in [
            (*number).to_string(),
            format!("{{\"x\":\"{number}\"}}"),
            format!("{{\"x\":{number}}}"),
            format!("card {number} please"),
            format!("crd_{number}"),
            format!("auth-{number}"),
            spaced.clone(),
            spaced.replace(' ', "-"),
            format!("{spaced} 12/29 123"),
            format!("123 {spaced}"),
            format!(r"\n{number}"),
            format!(r"\u003{}{}", &number[..1], &number[1..]),
            format!(r#"{{\"x\":\"\\n{number}\"}}"#),
            format!("%B{number}^DOE/JOHN^29121010000000000000?"),
            format!(";{number}=29121010000000000000?"),
            number.chars().flat_map(|c| [c, '\0']).collect(),
        ] {
            check(&text, Letters::Apart, true);
        }
        check(&format!("CAFE{number}BAR"), Letters::MayTouch, true);
    }
}

#[test]
fn other_numbers_do_not_trip_it() {
    for text in [
        "4111111111111112",
        "1234567890123452",
        "1763628000123",
        "1763628000123456",
        "1763628000123456789",
        "2036-01-01 10:15:07.114",
        "000000012345678",
        "41111111111111111111",
        "41111111111111110000",
        "4111 1111 1111",
        "4111  1111 1111 1111",
        "a4111111111111111",
        "4111111111111111f",
        "0192f0c1-7d3a-7c2e-9a55-4111111111111111b",
        "40000000-0000-0002-9a55-3b6f2f0d4b11",
        r#"{"score":0.4111111111111111}"#,
        r#"{"lon":-52.4111111111111111}"#,
        "+49 30 901820",
        "",
    ] {
        check(text, Letters::Apart, false);
    }
    check("5018000000000000000000", Letters::MayTouch, false);
}

#[test]
fn what_is_sensitive_is_blotted_and_nothing_else() {
    for (body, expected) in [
        (r#"{"id":"a","card":"4111111111111111"}"#, r#"{"id":"a","card":"****************"}"#),
        (r#"{"card":4111111111111111,"b":1}"#, r#"{"card":"**************","b":1}"#),
        (r#"{"note":"x, 4111 1111 1111 1111, y"}"#, r#"{"note":"x, *******************, y"}"#),
        (r#"{"cvv":"123","a":"b"}"#, r#"{"cvv":"***","a":"b"}"#),
        (r#"{"CVV" : 123}"#, r#"{"CVV" : "*"}"#),
        (r#"{"cvv":null,"pin":true}"#, r#"{"cvv":null,"pin":true}"#),
        (r#"{"pan":{"last":["12","34"],"n":5678},"b":1}"#, r#"{"pan":{"****":["**","**"],"*":"**"},"b":1}"#),
        (r#"{"track_data":"a\"b","x":"y"}"#, r#"{"track_data":"****","x":"y"}"#),
        (r#"{"cardNumber":"12","x":"y"}"#, r#"{"cardNumber":"**","x":"y"}"#),
        (r#"{"pin":"12"#, r#"{"pin":"**"#),
        ("cvv=123&amount=1", "cvv=\"*\"&amount=1"),
        (r#"{"c\u0076v":"123"}"#, r#"{"c\u0076v":"***"}"#),
        (r#"{"x":"{\"cvv\":\"123\"}"}"#, r#"{"x":"{\"cvv\":\"***\"}"}"#),
        (r#"{"merchant":{"name":"CAFE4111111111111111"}}"#, r#"{"merchant":{"name":"CAFE****************"}}"#),
        (
            r#"{"merchant":{"id":"M4111111111111111"},"id":"M4111111111111111"}"#,
            r#"{"merchant":{"id":"M****************"},"id":"M4111111111111111"}"#,
        ),
        (r#"{"spin":"123","name":"PIN: SHOP","company":"x"}"#, r#"{"spin":"123","name":"PIN: SHOP","company":"x"}"#),
        ("4111111111111111 \u{fffd}", "\"**************\" \u{fffd}"),
    ] {
        assert_eq!(String::from_utf8_lossy(&redact(body.as_bytes())), expected, "{body}");
        assert_eq!(contains(body.as_bytes()), body != expected, "{body}");
    }
}

#[test]
fn bytes_made_to_provoke_take_linear_time() {
    for piece in ["4111111111111111.", "\"pan\":{", "\"merchant\":{", "'name':\"\\\"", "4 1 ", "\\u0034", "pin=pin=", "\\\\"] {
        let body = piece.repeat(1 << 20 >> piece.len().ilog2());
        let redacted = redact(body.as_bytes());
        assert_eq!(redacted.len(), body.len());
    }
}

fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(NUMBERS).prop_map(str::to_string),
        prop::sample::select(vec![
            "\"pan\"",
            "\"cvv\"",
            "\"merchant\"",
            "\"name\"",
            "\"id\"",
            "pin",
            ":",
            "=",
            "{",
            "}",
            "[",
            "]",
            ",",
            "\"",
            "'",
            " ",
            "-",
            ".",
            "\\",
            "\\n",
            "\\u0034",
            "1",
            "41",
            "a",
            "\0",
            "&",
            "null",
            "^",
            "*"
        ])
        .prop_map(str::to_string),
        "[0-9 .-]{1,24}",
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn nothing_is_left_after_redaction(body in pieces()) {
        let redacted = redact(body.as_bytes());
        prop_assert_eq!(redacted.len(), body.len());
        prop_assert!(!contains(&redacted), "{} -> {}", body, String::from_utf8_lossy(&redacted));
    }

    #[test]
    fn bytes_without_findings_stay_as_they_are(body in prop::collection::vec(any::<u8>(), 0..200)) {
        if !contains(&body) {
            prop_assert_eq!(redact(&body), body);
        }
    }
}
