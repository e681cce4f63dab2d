//! Card numbers in bytes: found, and blotted out.
//!
//! A card number (PAN) has 13 to 19 digits, possibly in groups with single spaces or dashes between, begins with the prefix of a
//! card network that uses this length, and satisfies Luhn's check. All three are needed: every tenth number satisfies Luhn alone.
//! It also must stand by itself: digits that touch letters are an id (in hexadecimal, say), and digits after a decimal point are a
//! fraction. In a merchant's name, city and id letters may touch.
//!
//! Everything here takes time linear in the input, also for bytes made to provoke.

use std::ops::Range;

const DIGITS_MIN: usize = 13;
const DIGITS_MAX: usize = 19;
/// Longest group of a number written with dashes. A UUID has groups of eight and twelve, and some UUIDs are all digits.
const DASHED_GROUP_MAX: usize = 6;
/// JSON in a string in JSON: so many levels of escapes are looked through.
const ESCAPE_LEVELS: usize = 3;
/// How often redaction looks again at what it left.
const REDACTION_ROUNDS: usize = 4;
/// Longest field name that can be sensitive, with its separators.
const NAME_BYTES_MAX: usize = 16;

/// What may not be in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sensitive {
    /// A card number.
    Pan,
    /// Sensitive authentication data: security codes, track data, PINs.
    Authentication,
}

/// Whether digits that touch letters count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Letters {
    /// They are part of something else.
    Apart,
    /// They count all the same.
    MayTouch,
}

/// Whether there is a card number, or a value in a field named for one or for security data, anywhere in the bytes, whether they are
/// JSON or not. True for every body that `decode` refuses for its card number; such bytes must not be kept as they are.
#[must_use]
pub fn contains(body: &[u8]) -> bool {
    !findings(body).is_empty()
}

/// A copy of the bytes with every card number, and every value of a field named for one or for security data, blotted out by `*`.
/// The length stays. In valid JSON a blotted number becomes a string, so it stays valid unless the number has one digit.
#[must_use]
pub fn redact(body: &[u8]) -> Vec<u8> {
    let mut out = body.to_vec();
    // Once is enough for everything but bytes made to provoke, where a blot can uncover what was hidden by its neighbour.
    for _ in 0..REDACTION_ROUNDS {
        let found = findings(&out);
        if found.is_empty() {
            break;
        }
        blot_all(&mut out, found);
    }
    out
}

fn blot_all(bytes: &mut [u8], spans: Vec<Range<usize>>) {
    let mut quoted = Quoted::default();
    let mut at = 0;
    for span in spans {
        quoted.pass(&bytes[at..span.start]);
        let inside = quoted.inside;
        quoted.pass(&bytes[span.clone()]);
        at = span.end;
        blot(&mut bytes[span], inside);
    }
}

/// Whether there is a card number in a text, escaped or not.
pub(super) fn number_in(text: &[u8], letters: Letters) -> bool {
    let mut found = false;
    each_view(text, &mut |view, _| numbers(view, letters, &mut |_| found = true));
    found
}

/// What a field of this name would hold. Case, underscores and dashes do not matter.
pub(super) fn sensitive_name(name: &[u8]) -> Option<Sensitive> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let mut plain = [0; NAME_BYTES_MAX];
    let mut len = 0;
    for byte in name.iter().filter(|byte| !matches!(byte, b'_' | b'-')) {
        plain[len] = byte.to_ascii_lowercase();
        len += 1;
    }
    match &plain[..len] {
        b"pan" | b"cardnumber" => Some(Sensitive::Pan),
        b"cvv" | b"cvc" | b"cvv2" | b"cvc2" | b"pin" | b"pinblock" | b"track1" | b"track2" | b"trackdata" => {
            Some(Sensitive::Authentication)
        }
        _ => None,
    }
}

/// Everything to blot out, sorted, without overlaps.
fn findings(body: &[u8]) -> Vec<Range<usize>> {
    let mut spans: Vec<Range<usize>> = Vec::new();
    each_view(body, &mut |view, origin| {
        let mut found = |span: Range<usize>| {
            // Nothing but stars, or the quotes that stand around them, was blotted before.
            if !view[span.clone()].iter().all(|byte| matches!(byte, b'*' | b'"' | b'\'')) {
                spans.push(origin.map_or_else(|| span.clone(), |origin| origin[span.start]..origin[span.end]));
            }
        };
        numbers(view, Letters::Apart, &mut found);
        fields(view, &mut found);
    });
    spans.sort_unstable_by_key(|span| (span.start, span.end));
    spans.dedup_by(|next, kept| {
        let overlaps = next.start < kept.end;
        if overlaps {
            kept.end = kept.end.max(next.end);
        }
        overlaps
    });
    spans
}

/// Shows the text as it is, and again with its escapes resolved as long as there are any. `origin` tells where each byte of a
/// resolved view began in the text.
fn each_view(text: &[u8], look: &mut impl FnMut(&[u8], Option<&[usize]>)) {
    look(text, None);
    let mut view: Option<(Vec<u8>, Vec<usize>)> = None;
    for _ in 0..ESCAPE_LEVELS {
        let (bytes, origin) = view.as_ref().map_or((text, None), |(bytes, origin)| (bytes.as_slice(), Some(origin)));
        if !bytes.iter().any(|byte| matches!(byte, b'\\' | 0)) {
            return;
        }
        let (resolved, starts) = unescape(bytes);
        let origin: Vec<usize> = origin.map_or_else(|| starts.clone(), |origin| starts.iter().map(|start| origin[*start]).collect());
        look(&resolved, Some(&origin));
        view = Some((resolved, origin));
    }
}

/// Resolves JSON escapes, and leaves NUL out, so that UTF-16 reads as well. Where each byte began, and the end.
fn unescape(text: &[u8]) -> (Vec<u8>, Vec<usize>) {
    let (mut bytes, mut starts) = (Vec::with_capacity(text.len()), Vec::with_capacity(text.len() + 1));
    let mut at = 0;
    while at < text.len() {
        let (byte, len) = match (text[at], text.get(at + 1)) {
            (0, _) => {
                at += 1;
                continue;
            }
            (b'\\', Some(b'n' | b't' | b'r' | b'b' | b'f')) => (b'\n', 2),
            (b'\\', Some(b'u')) => match text.get(at + 2..at + 6).and_then(hex) {
                // Beyond ASCII it only matters that it is neither digit nor letter.
                Some(code) => (u8::try_from(code).unwrap_or(0xff), 6),
                None => (b'\\', 1),
            },
            (b'\\', Some(escaped @ (b'"' | b'\\' | b'/'))) => (*escaped, 2),
            (byte, _) => (byte, 1),
        };
        bytes.push(byte);
        starts.push(at);
        at += len;
    }
    starts.push(text.len());
    (bytes, starts)
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |code, digit| Some(code * 16 + char::from(*digit).to_digit(16)?))
}

/// Finds the card numbers in a text. Looks at every 13th byte: no shorter run of digits and separators can hold one.
fn numbers(text: &[u8], letters: Letters, found: &mut impl FnMut(Range<usize>)) {
    let in_run = |at: usize| matches!(text.get(at), Some(b'0'..=b'9' | b' ' | b'-'));
    let mut begin = 0;
    let mut probe = DIGITS_MIN - 1;
    while probe < text.len() {
        if in_run(probe) {
            let start = (begin..probe).rev().find(|at| !in_run(*at)).map_or(begin, |at| at + 1);
            let end = (probe..text.len()).find(|at| !in_run(*at)).unwrap_or(text.len());
            if end - start >= DIGITS_MIN {
                numbers_in_run(text, start..end, letters, found);
            }
            begin = end;
            probe = end + DIGITS_MIN;
        } else {
            begin = probe + 1;
            probe += DIGITS_MIN;
        }
    }
}

/// Tries every sequence of whole groups of digits in a run of digits and separators.
fn numbers_in_run(text: &[u8], run: Range<usize>, letters: Letters, found: &mut impl FnMut(Range<usize>)) {
    let digit = |at: usize| at < run.end && text[at].is_ascii_digit();
    let mut first = run.start;
    while first < run.end {
        if !digit(first) {
            first += 1;
            continue;
        }
        let mut number = Number::default();
        let mut at = first;
        let mut next_group = None;
        loop {
            let group = at;
            while digit(at) {
                number.push(text[at]);
                at += 1;
            }
            next_group = next_group.or(Some(at));
            number.group_max = number.group_max.max(at - group);
            if number.len > DIGITS_MAX {
                break;
            }
            if number.is_card() && stands_alone(text, first..at, letters) {
                found(first..at);
            }
            if !digit(at + 1) {
                break;
            }
            number.dashed |= text[at] == b'-';
            at += 1;
        }
        first = next_group.unwrap_or(at).max(first + 1);
    }
}

/// Whether nothing touches a number that makes it part of something else.
fn stands_alone(text: &[u8], number: Range<usize>, letters: Letters) -> bool {
    if letters == Letters::MayTouch {
        return true;
    }
    let before = |back: usize| number.start.checked_sub(back).map(|at| text[at]);
    let after = text.get(number.end);
    if after.is_some_and(u8::is_ascii_alphanumeric) {
        return false;
    }
    if before(1).is_some_and(|byte| byte.is_ascii_alphanumeric()) {
        // The first track of a magnetic stripe puts a letter in front and this behind.
        return after == Some(&b'^');
    }
    !(before(1) == Some(b'.') && is_whole_part(&text[..number.start - 1]))
}

/// Whether a text ends in one to three digits that stand alone, as in front of a decimal point.
fn is_whole_part(text: &[u8]) -> bool {
    let digits = text.iter().rev().take(4).take_while(|byte| byte.is_ascii_digit()).count();
    let mut rest = text[..text.len() - digits].iter().rev();
    let alone = match (rest.next(), rest.next()) {
        (Some(b' ' | b'-'), Some(before)) => !before.is_ascii_digit(),
        (Some(before), _) => !before.is_ascii_alphanumeric() && *before != b'.',
        (None, _) => true,
    };
    (1..=3).contains(&digits) && alone
}

/// The digits of a candidate.
#[derive(Default)]
struct Number {
    digits: [u8; DIGITS_MAX],
    len: usize,
    group_max: usize,
    dashed: bool,
}

impl Number {
    /// Takes a digit. Of a number that is too long only the length is right.
    fn push(&mut self, digit: u8) {
        if let Some(place) = self.digits.get_mut(self.len) {
            *place = digit - b'0';
        }
        self.len += 1;
    }

    fn is_card(&self) -> bool {
        let grouped_like_a_card = !self.dashed || self.group_max <= DASHED_GROUP_MAX;
        grouped_like_a_card && self.len >= DIGITS_MIN && self.is_issued() && self.satisfies_luhn()
    }

    /// Whether a network issues numbers with this prefix and length.
    fn is_issued(&self) -> bool {
        let four = self.digits[..4].iter().fold(0_u32, |number, digit| number * 10 + u32::from(*digit));
        match four {
            // Visa
            4000..=4999 => matches!(self.len, 13 | 16 | 19),
            // Maestro
            5018 | 5020 | 5038 | 5893 | 6304 | 6759 | 6761..=6763 => true,
            // Mastercard
            5100..=5599 | 2221..=2720 => self.len == 16,
            // American Express
            3400..=3499 | 3700..=3799 => self.len == 15,
            // Diners Club
            3000..=3059 | 3095 | 3600..=3699 | 3800..=3999 => self.len >= 14,
            // Discover, JCB, UnionPay
            6011 | 6440..=6599 | 3528..=3589 | 6200..=6299 | 8100..=8171 => self.len >= 16,
            _ => false,
        }
    }

    fn satisfies_luhn(&self) -> bool {
        let sum: u32 = self.digits[..self.len]
            .iter()
            .rev()
            .enumerate()
            .map(|(place, digit)| match (place % 2, u32::from(*digit)) {
                (0, digit) => digit,
                (_, digit) if digit > 4 => digit * 2 - 9,
                (_, digit) => digit * 2,
            })
            .sum();
        sum.is_multiple_of(10)
    }
}

/// Finds the values of sensitive fields, in JSON, broken JSON, forms and plain text, and card numbers in the merchant's texts.
fn fields(text: &[u8], found: &mut impl FnMut(Range<usize>)) {
    let word = |at: usize| text[at].is_ascii_alphanumeric() || matches!(text[at], b'_' | b'-');
    let mut at = 0;
    let mut merchant_end = 0;
    while at < text.len() {
        let start = at;
        while at < text.len() && word(at) {
            at += 1;
        }
        let name = start..at;
        at = at.max(start + 1);
        if !(2..=NAME_BYTES_MAX).contains(&name.len()) {
            continue;
        }
        let Some(value) = value_after(text, name.clone()) else { continue };
        match &text[name] {
            name if sensitive_name(name).is_some() => at = at.max(values(text, value, found)),
            b"merchant" if value >= merchant_end => merchant_end = values(text, value, &mut |_| ()),
            b"id" if value >= merchant_end => {}
            b"id" | b"name" | b"city" => {
                values(text, value, &mut |span: Range<usize>| {
                    numbers(&text[span.clone()], Letters::MayTouch, &mut |number| {
                        found(span.start + number.start..span.start + number.end)
                    });
                });
            }
            _ => {}
        }
    }
}

/// Where the value begins when a word is the name of a field: `"name": value`, `name=value`.
fn value_after(text: &[u8], name: Range<usize>) -> Option<usize> {
    let quote = |byte: Option<&u8>| byte.copied().filter(|byte| matches!(byte, b'"' | b'\''));
    let space = |at: &usize| text.get(*at).is_some_and(u8::is_ascii_whitespace);
    let opening = quote(name.start.checked_sub(1).and_then(|before| text.get(before)));
    let closing = quote(text.get(name.end));
    if opening != closing {
        return None;
    }
    let separator = (name.end + usize::from(closing.is_some())..).find(|at| !space(at))?;
    matches!(text.get(separator), Some(b':' | b'=')).then(|| (separator + 1..).find(|at| !space(at))).flatten()
}

/// Gives every string (without its quotes) and number of the value that begins here, at any depth, and where the value ends.
fn values(text: &[u8], start: usize, found: &mut impl FnMut(Range<usize>)) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' | b'\'' => {
                let end = string_end(text, at + 1, *byte);
                found(at + 1..end);
                at = end + 1;
            }
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' if depth > 0 => {
                depth -= 1;
                at += 1;
            }
            b',' | b':' if depth > 0 => at += 1,
            byte if byte.is_ascii_whitespace() && depth > 0 => at += 1,
            b',' | b'}' | b']' | b'&' | b';' if depth == 0 => return at,
            _ => {
                let end = (at + 1..text.len()).find(|at| is_delimiter(text[*at])).unwrap_or(text.len());
                if !matches!(&text[at..end], b"null" | b"true" | b"false") {
                    found(at..end);
                }
                at = end;
            }
        }
        if depth == 0 {
            break;
        }
    }
    at.min(text.len())
}

fn is_delimiter(byte: u8) -> bool {
    byte.is_ascii_whitespace() || matches!(byte, b',' | b':' | b'{' | b'}' | b'[' | b']' | b'&' | b';' | b'"' | b'\'')
}

fn string_end(text: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start;
    while at < text.len() && text[at] != quote {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    at.min(text.len())
}

/// Follows whether a byte stands inside a JSON string.
#[derive(Default)]
struct Quoted {
    inside: bool,
    escaped: bool,
}

impl Quoted {
    fn pass(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.inside => self.escaped = true,
                b'"' => self.inside = !self.inside,
                _ => {}
            }
        }
    }
}

fn blot(bytes: &mut [u8], inside_string: bool) {
    bytes.fill(b'*');
    if let [first, .., last] = bytes
        && !inside_string
    {
        (*first, *last) = (b'"', b'"');
    }
}

#[cfg(test)]
#[path = "pan_tests.rs"]
mod tests;
