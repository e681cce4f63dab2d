//! The architecture, executed: arrows between modules point down only, drivers stay in their own module, files stay short.
//!
//! Read on the source text, without a compiler: what is checked is what a `use` or a path says. Code that is compiled for tests only may
//! reach further and is left out.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should panic where it stands")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// What a module may use. The modules are in the order of `lib.rs`: ground floor first.
struct Layer {
    module: &'static str,
    /// Our own modules it may use, besides itself.
    ours: &'static [&'static str],
    /// Parts of those that it may not use.
    except: &'static [&'static str],
    /// Crates it may use; `None` is anything but the drivers of others.
    crates: Option<&'static [&'static str]>,
    /// Paths and words that may not occur.
    banned: &'static [&'static str],
}

const LAYERS: &[Layer] = &[
    Layer {
        module: "domain",
        ours: &[],
        except: &[],
        crates: Some(&[]),
        banned: &["f32", "f64", "Instant", "SystemTime", "async", "await"],
    },
    Layer {
        module: "codec",
        ours: &["domain"],
        except: &[],
        crates: Some(&["serde", "serde_json", "rust_decimal", "jiff", "sha2", "thiserror", "ulid"]),
        banned: &["f32", "f64", "Instant", "SystemTime", "jiff::Timestamp::now", "jiff::Zoned::now", "async", "await"],
    },
    Layer { module: "telemetry", ours: &["domain"], except: &[], crates: None, banned: &[] },
    Layer { module: "facts", ours: &["domain", "telemetry"], except: &[], crates: None, banned: &[] },
    Layer {
        module: "ledger",
        ours: &["domain", "facts", "telemetry"],
        except: &["facts::redis", "facts::memory"],
        crates: None,
        banned: &["f32", "f64"],
    },
    Layer {
        module: "pipeline",
        ours: &["domain", "codec", "facts", "ledger", "telemetry"],
        except: &["ledger::postgres", "ledger::sqlite", "facts::redis"],
        crates: None,
        banned: &["std::time::Instant", "std::time::SystemTime", "jiff::Timestamp::now", "jiff::Zoned::now"],
    },
    Layer { module: "broker", ours: &["domain", "codec", "pipeline", "telemetry"], except: &[], crates: None, banned: &[] },
    Layer { module: "http", ours: &["domain", "codec", "pipeline", "telemetry"], except: &[], crates: None, banned: &[] },
    Layer { module: "seed", ours: &["domain"], except: &[], crates: None, banned: &[] },
    Layer {
        module: "bench",
        ours: &["domain", "codec", "telemetry", "ledger", "facts", "pipeline", "broker", "http", "seed"],
        except: &[],
        crates: None,
        banned: &[],
    },
    Layer {
        module: "config",
        ours: &["domain", "telemetry", "facts", "ledger", "pipeline", "broker", "http"],
        except: &[],
        crates: None,
        banned: &[],
    },
];

/// The only ones that may use anything of ours, configuration included.
const TOP: &[&str] = &["app", "cli", "main", "lib"];

/// A driver, and the places that may speak to it.
const DRIVERS: &[(&str, &[&str])] = &[
    ("lapin", &["broker", "bench"]),
    ("fred", &["facts::redis", "bench::floor"]),
    ("sqlx", &["ledger", "seed", "cli::demo", "bench"]),
    ("axum", &["http"]),
    ("sd_notify", &["app::systemd"]),
    ("hyper", &["http", "cli::daemon", "cli::demo", "bench"]),
    ("hyper_util", &["http", "cli::daemon", "bench"]),
    ("http_body_util", &["http", "cli::daemon", "bench"]),
];

const FILE_LINES_MAX: usize = 500;

/// A source file, read.
struct Source {
    name: String,
    /// Where it stands in the crate: `["pipeline", "lane"]`.
    module: Vec<String>,
    tokens: Vec<Token>,
    lines: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    text: String,
    line: usize,
}

#[test]
fn arrows_point_down() {
    let sources = sources();
    assert!(sources.len() > 30, "only {} source files were found", sources.len());
    report(sources.iter().flat_map(arrows_up).collect());
}

#[test]
fn drivers_stay_in_their_module() {
    report(sources().iter().flat_map(drivers_abroad).collect());
}

#[test]
fn select_is_biased_in_the_pipeline() {
    report(sources().iter().flat_map(unbiased_selects).collect());
}

#[test]
fn files_stay_short() {
    let long = |source: &Source| {
        (source.lines > FILE_LINES_MAX)
            .then(|| format!("{}: {} lines without its tests, at most {FILE_LINES_MAX}", source.name, source.lines))
    };
    report(sources().iter().filter_map(long).collect());
}

#[test]
fn nothing_is_left_for_later() {
    // Written in two halves, so that this file does not find itself.
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("#[", "ignore"),
    ];
    let mut faults = Vec::new();
    for path in files(&["src", "tests", "benches", "scripts", "migrations", ".ci"]) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (number, line) in text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(**word)) {
                faults.push(format!("{}:{}: {word}: do it now, or open an issue", shown(&path), number + 1));
            }
        }
    }
    report(faults);
}

#[test]
fn documents_stand_outside_of_src() {
    let documents = files(&["src"]).into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    report(documents.map(|path| format!("{}: documentation of code belongs into the code", shown(&path))).collect());
}

fn report(faults: Vec<String>) {
    assert!(faults.is_empty(), "{} faults\n{}", faults.len(), faults.join("\n"));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// Every file below the directories, those that exist, in order.
fn files(directories: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open: Vec<_> = directories.iter().map(|directory| root().join(directory)).filter(|path| path.is_dir()).collect();
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// The sources of the library and the binary, without what is compiled for tests only.
fn sources() -> Vec<Source> {
    let texts: Vec<_> = files(&["src"])
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| (fs::read_to_string(&path).unwrap(), path))
        .collect();
    let tests: BTreeSet<_> = texts.iter().flat_map(|(text, path)| test_files(text, path)).collect();
    let is_test = |path: &Path| tests.iter().any(|test| path == test || path.starts_with(test.with_extension("")));
    let kept = texts.iter().filter(|(_, path)| !is_test(path));
    kept.map(|(text, path)| Source::new(&shown(path), text)).collect()
}

/// Files that a source declares as modules for tests only: `#[cfg(test)] mod name;`, with or without a `#[path]`.
fn test_files(text: &str, path: &Path) -> Vec<PathBuf> {
    let stem = path.file_stem().unwrap().to_str().unwrap();
    let parent = path.parent().unwrap();
    let home = if matches!(stem, "mod" | "lib" | "main") { parent.to_owned() } else { parent.join(stem) };
    let tokens = tokens(text);
    let words: Vec<_> = tokens.iter().map(|token| token.text.as_str()).collect();
    let mut found = Vec::new();
    for (at, _) in words.windows(7).enumerate().filter(|(_, window)| *window == ["#", "[", "cfg", "(", "test", ")", "]"]) {
        let Item { start, end, .. } = item(&words, at);
        let declaration = &words[start..end];
        if declaration.last() != Some(&";") || !declaration.contains(&"mod") {
            continue;
        }
        // Texts are no tokens: a path attribute is read from the lines of the item.
        let lines = tokens[at].line..=tokens[end - 1].line;
        let lines = text.lines().skip(lines.start() - 1).take(lines.end() - lines.start() + 1);
        let named = lines.filter_map(|line| line.trim().strip_prefix("#[path = \"")?.strip_suffix("\"]")).next();
        found.push(match named {
            Some(name) => parent.join(name),
            None => {
                let name = declaration[declaration.len() - 2];
                let file = home.join(format!("{name}.rs"));
                if file.exists() { file } else { home.join(name).join("mod.rs") }
            }
        });
    }
    found
}

impl Source {
    fn new(name: &str, text: &str) -> Self {
        let inside = name.strip_prefix("src/").unwrap_or(name).trim_end_matches(".rs").trim_end_matches("/mod");
        let module = inside.split('/').map(str::to_owned).collect();
        let mut tokens = tokens(text);
        let skipped = strip_tests(&mut tokens);
        Self { name: name.to_owned(), module, tokens, lines: text.lines().count() - skipped }
    }

    fn path(&self) -> String {
        self.module.join("::")
    }

    fn at(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.name)
    }
}

/// Words and signs of a source, without comments, texts, characters and lifetimes. `::` is one sign.
fn tokens(text: &str) -> Vec<Token> {
    let bytes = text.as_bytes();
    let (mut tokens, mut at, mut line) = (Vec::new(), 0, 1);
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
    while at < bytes.len() {
        let start = at;
        let rest = &text[at..];
        at += if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = text_length(rest) {
            length
        } else if word(bytes[at]) {
            let length = bytes[at..].iter().position(|byte| !word(*byte)).unwrap_or(rest.len());
            tokens.push(Token { text: rest[..length].to_owned(), line });
            length
        } else if rest.starts_with("::") {
            tokens.push(Token { text: "::".to_owned(), line });
            2
        } else {
            if !bytes[at].is_ascii_whitespace() {
                tokens.push(Token { text: rest[..1].to_owned(), line });
            }
            1
        };
        line += bytes[start..at].iter().filter(|byte| **byte == b'\n').count();
    }
    tokens
}

/// The length of the text, character or lifetime that `rest` begins with.
fn text_length(rest: &str) -> Option<usize> {
    let prefix = ["br", "cr", "r", "b", "c"].iter().find(|prefix| rest.starts_with(**prefix)).map_or(0, |prefix| prefix.len());
    let body = &rest[prefix..];
    let hashes = body.bytes().take_while(|byte| *byte == b'#').count();
    if rest[..prefix].contains('r') && body[hashes..].starts_with('"') {
        let close = format!("\"{}", "#".repeat(hashes));
        let open = prefix + hashes + 1;
        return Some(rest[open..].find(&close).map_or(rest.len(), |end| open + end + close.len()));
    }
    let quote = body.bytes().next().filter(|byte| matches!(byte, b'"' | b'\''))?;
    let inner = &body.as_bytes()[1..];
    if quote == b'\'' && inner.first() != Some(&b'\\') {
        // A character is closed after one; what is not closed is a lifetime, or a label.
        let character = body[1..].chars().next()?;
        if body[1 + character.len_utf8()..].starts_with('\'') {
            return Some(prefix + character.len_utf8() + 2);
        }
        let name = inner.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        return Some(prefix + 1 + name);
    }
    let mut at = 0;
    while at < inner.len() && inner[at] != quote {
        at += if inner[at] == b'\\' { 2 } else { 1 };
    }
    Some((prefix + at + 2).min(rest.len()))
}

/// An item with the attributes before it: where its own words start, and where it ends.
struct Item {
    start: usize,
    end: usize,
}

/// The item that the attribute at `at` belongs to.
fn item(words: &[&str], at: usize) -> Item {
    let mut start = at;
    while words.get(start) == Some(&"#") {
        start = closed(words, start + 1);
    }
    let mut end = start;
    while end < words.len() {
        match words[end] {
            "{" => return Item { start, end: closed(words, end) },
            ";" => return Item { start, end: end + 1 },
            "(" | "[" => end = closed(words, end),
            _ => end += 1,
        }
    }
    Item { start, end }
}

/// Behind the bracket that closes the one at `at`.
fn closed(words: &[&str], at: usize) -> usize {
    let mut depth = 0;
    for (offset, word) in words[at..].iter().enumerate() {
        match *word {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + offset + 1;
        }
    }
    words.len()
}

/// Takes out the items marked `#[cfg(test)]`, and says how many lines they had.
fn strip_tests(tokens: &mut Vec<Token>) -> usize {
    let mut lines = 0;
    loop {
        let words: Vec<_> = tokens.iter().map(|token| token.text.as_str()).collect();
        let Some(at) = words.windows(7).position(|window| window == ["#", "[", "cfg", "(", "test", ")", "]"]) else { return lines };
        let end = item(&words, at).end;
        lines += tokens[end - 1].line - tokens[at].line + 1;
        tokens.drain(at..end);
    }
}

/// A path as it is written, with groups taken apart: `use a::{b, c::d}` is `a::b` and `a::c::d`.
struct Written {
    path: Vec<String>,
    line: usize,
}

fn paths(tokens: &[Token]) -> Vec<Written> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let used = tokens[at].text == "use";
        let starts = at + 1 < tokens.len() && tokens[at + 1].text == "::" && is_word(&tokens[at].text);
        if used || starts {
            let start = if used { at + 1 } else { at };
            at = tree(tokens, start, &[], &mut found).max(at + 1);
        } else {
            at += 1;
        }
    }
    found
}

fn is_word(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Reads one path with its groups from `at` on, and gives what stands behind it.
fn tree(tokens: &[Token], mut at: usize, prefix: &[String], found: &mut Vec<Written>) -> usize {
    let mut path = prefix.to_vec();
    let line = tokens.get(at).map_or(0, |token| token.line);
    if tokens.get(at).is_some_and(|token| token.text == "::") {
        at += 1;
    }
    while let Some(token) = tokens.get(at) {
        if token.text == "{" {
            at += 1;
            while tokens.get(at).is_some_and(|token| token.text != "}") {
                let behind = tree(tokens, at, &path, found);
                at = behind.max(at + 1);
                // `as name` and commas.
                while tokens.get(at).is_some_and(|token| !matches!(token.text.as_str(), "," | "}")) {
                    at += 1;
                }
                if tokens.get(at).is_some_and(|token| token.text == ",") {
                    at += 1;
                }
            }
            return at + 1;
        }
        if !is_word(&token.text) && token.text != "*" {
            break;
        }
        path.push(token.text.clone());
        at += 1;
        let goes_on = tokens.get(at).is_some_and(|token| token.text == "::");
        let next = tokens.get(at + 1).map(|token| token.text.as_str()).unwrap_or_default();
        if !goes_on || !(is_word(next) || matches!(next, "{" | "*")) {
            break;
        }
        at += 1;
    }
    if path.len() > prefix.len() {
        found.push(Written { path, line });
    }
    at
}

/// A path from the root of the crate, if it is one of ours: `crate::…`, `jitauth::…` (in the binary), `super::…`.
fn ours(source: &Source, path: &[String]) -> Option<Vec<String>> {
    let supers = path.iter().take_while(|part| *part == "super").count();
    if supers > 0 {
        // Beyond the file's own parents only when written in a module inside the file, which stays in the file.
        let kept = source.module.len().checked_sub(supers)?;
        return Some(source.module[..kept].iter().chain(&path[supers..]).cloned().collect());
    }
    matches!(path[0].as_str(), "crate" | "jitauth").then(|| path[1..].to_vec())
}

fn arrows_up(source: &Source) -> Vec<String> {
    let module = source.module[0].as_str();
    if TOP.contains(&module) {
        return Vec::new();
    }
    let Some(layer) = LAYERS.iter().find(|layer| layer.module == module) else {
        return vec![format!("{}: the module {module} has no place in LAYERS of tests/tidy.rs", source.name)];
    };
    let mut faults = Vec::new();
    for Written { path, line } in paths(&source.tokens) {
        if let Some(target) = ours(source, &path) {
            let (first, whole) = (target.first().map(String::as_str).unwrap_or_default(), target.join("::"));
            let known = TOP.contains(&first) || LAYERS.iter().any(|layer| layer.module == first);
            if known && first != module && !layer.ours.contains(&first) {
                faults.push(source.at(line, &format!("{module} may not use {first} ({whole}); it may use: {}", layer.ours.join(", "))));
            }
            if let Some(part) = layer.except.iter().find(|part| under(&whole, part)) {
                faults.push(source.at(line, &format!("{module} may not use {part}, only the port")));
            }
        } else if let Some(allowed) = layer.crates
            && dependencies().contains(&path[0])
            && !allowed.contains(&path[0].as_str())
        {
            faults.push(source.at(line, &format!("{module} may not use the crate {}; it may use: std {}", path[0], allowed.join(" "))));
        }
        let whole = path.join("::");
        for banned in layer.banned.iter().filter(|banned| banned.contains("::") && under(&whole, banned)) {
            faults.push(source.at(line, &format!("{banned} in {module}: time and chance are arguments")));
        }
    }
    for (at, token) in source.tokens.iter().enumerate().filter(|(_, token)| layer.banned.contains(&token.text.as_str())) {
        // A float that is taken only to be refused: `fn visit_f64<E>(self, _: f64)`.
        let ignored = at >= 2 && source.tokens[at - 2].text == "_" && source.tokens[at - 1].text == ":";
        if !(ignored && matches!(token.text.as_str(), "f32" | "f64")) {
            faults.push(source.at(token.line, &format!("{} in {module}: no floats, no clocks, no waiting there", token.text)));
        }
    }
    faults
}

fn under(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn drivers_abroad(source: &Source) -> Vec<String> {
    let here = source.path();
    let abroad = |written: &Written| {
        let (driver, homes) = DRIVERS.iter().find(|(driver, _)| *driver == written.path[0])?;
        let home = homes.iter().any(|home| under(&here, home));
        (!home).then(|| source.at(written.line, &format!("{driver} may be used in {} only", homes.join(", "))))
    };
    paths(&source.tokens).iter().filter_map(abroad).collect()
}

fn unbiased_selects(source: &Source) -> Vec<String> {
    if source.module[0] != "pipeline" {
        return Vec::new();
    }
    let unbiased = |window: &&[Token]| window[0].text == "select" && window[1].text == "!" && window[3].text != "biased";
    let found = source.tokens.windows(4).filter(unbiased);
    found.map(|window| source.at(window[0].line, "select! draws lots: begin it with `biased;`, so that tests repeat")).collect()
}

/// The names that our dependencies have in code.
fn dependencies() -> BTreeSet<String> {
    let manifest: toml::Table = fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().expect("a manifest");
    let tables = ["dependencies", "dev-dependencies"].into_iter().filter_map(|table| manifest.get(table)?.as_table());
    tables.flat_map(toml::Table::keys).map(|name| name.replace('-', "_")).collect()
}

#[test]
fn the_rules_find_what_breaks_them() {
    for (name, text, expected) in [
        ("src/domain/rules.rs", "use crate::codec::money;", Some("domain may not use codec")),
        ("src/domain/rules.rs", "use super::{facts::Card, money::Money};", None),
        ("src/domain/rules.rs", "use super::super::telemetry::Span;", Some("domain may not use telemetry")),
        ("src/domain/rules.rs", "use serde::Serialize;", Some("may not use the crate serde")),
        ("src/domain/rules.rs", "fn f() -> tokio::time::Duration {}", Some("may not use the crate tokio")),
        ("src/domain/money.rs", "let share: f64 = 1.0;", Some("f64 in domain")),
        ("src/domain/money.rs", "// f64\nlet text = \"f64 crate::http\"; let r = r#\"\"f64\"#; let c = '\"'; fn f<'f64>() {}", None),
        ("src/domain/time.rs", "use std::time::{Duration, SystemTime};", Some("SystemTime in domain")),
        ("src/domain/time.rs", "#[cfg(test)]\nmod tests { use serde::Serialize; fn f() { crate::http::f() } }", None),
        ("src/codec/request.rs", "use crate::{domain::{ids::RequestId, money}, pipeline::Job};", Some("codec may not use pipeline")),
        ("src/codec/request.rs", "use serde_json::{value::RawValue}; use crate::domain::ids;", None),
        ("src/codec/wire.rs", "fn visit_f64<E>(self, _: f64) -> Result<Field, E> {}", None),
        ("src/codec/wire.rs", "fn visit_f64<E>(self, value: f64) -> Result<Field, E> {}", Some("f64 in codec")),
        ("src/pipeline/lane.rs", "use crate::ledger::{Ledger, sqlite::Store};", Some("may not use ledger::sqlite")),
        ("src/pipeline/lane.rs", "use crate::ledger::{Ledger as Port, Outcome};", None),
        ("src/pipeline/lane.rs", "let now = std::time::Instant::now();", Some("std::time::Instant in pipeline")),
        ("src/pipeline/lane.rs", "use std::{time::{Duration, Instant}, sync::Arc};", Some("std::time::Instant in pipeline")),
        ("src/pipeline/lane.rs", "use tokio::time::Instant; use std::time::Duration;", None),
        ("src/pipeline/lane.rs", "crate::config::load()", Some("pipeline may not use config")),
        ("src/pipeline/lane.rs", "tokio::select! { a = b => {} }", Some("draws lots")),
        ("src/pipeline/lane.rs", "tokio::select! { biased; a = b => {} }", None),
        ("src/pipeline/lane.rs", "use sqlx::PgPool;", Some("sqlx may be used in ledger")),
        ("src/ledger/postgres/commit.rs", "use sqlx::PgPool; use crate::facts::FactSource;", None),
        ("src/ledger/postgres/commit.rs", "use crate::pipeline::Job;", Some("ledger may not use pipeline")),
        ("src/facts/tiered.rs", "use fred::prelude::*;", Some("fred may be used in facts::redis")),
        ("src/facts/redis.rs", "use fred::prelude::*; use super::FactError;", None),
        ("src/broker/consumer.rs", "use lapin::Channel; use crate::pipeline::Job;", None),
        ("src/http/ingress.rs", "use crate::broker::Ticket;", Some("http may not use broker")),
        ("src/seed/postgres.rs", "use sqlx::PgPool; use crate::domain::reason::Reason;", None),
        ("src/seed/plan.rs", "use crate::config::Config;", Some("seed may not use config")),
        ("src/cli/serve.rs", "use sqlx::SqlitePool;", Some("sqlx may be used in")),
        ("src/app.rs", "use crate::{broker, config, http};", None),
        ("src/plugins.rs", "", Some("has no place in LAYERS")),
    ] {
        let source = Source::new(name, text);
        let faults: Vec<_> = [arrows_up, drivers_abroad, unbiased_selects].iter().flat_map(|rule| rule(&source)).collect();
        match expected {
            None => assert_eq!(faults, [""; 0], "{name}: {text}"),
            Some(expected) => assert!(faults.iter().any(|fault| fault.contains(expected)), "{name}: {text}: {faults:?}"),
        }
    }
}
