//! The layers a configuration is made of: documents, the environment, flags. Each is checked against the schema on its own, so
//! that an error names the place where it was made.

use super::{
    Flag,
    problem::{Origin, Problem},
    schema::{Schema, is_secret, most_alike, variable_of},
    value::{Leaf, Leaves, Value},
};
use std::{collections::BTreeMap, fs::File, io::Read, path::Path};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// The longest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What was read from one layer, and what is wrong with it.
#[derive(Default)]
pub(super) struct Layer {
    pub(super) values: Vec<(String, Value, Origin)>,
    pub(super) problems: Vec<Problem>,
}

impl Layer {
    /// Reads a TOML document. Without a schema every key is welcome: that is how the schema itself is read.
    pub(super) fn document(name: &str, text: &str, schema: Option<&Schema>) -> Self {
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut document = Document { name, text, schema, layer: Self::default() };
        if errors.is_empty() {
            document.section("", table.get_ref());
        }
        for error in errors {
            let origin = document.origin(error.span().map_or(0, |span| span.start));
            document.layer.problems.push(Problem::at(&origin, error.message()));
        }
        document.layer
    }

    /// Reads the `JITAUTH_…` variables out of `variables`.
    pub(super) fn environment(variables: &BTreeMap<String, String>, schema: &Schema) -> Self {
        let keys: BTreeMap<String, &str> = schema.keys().map(|key| (variable_of(key), key)).collect();
        let mut layer = Self::default();
        for (variable, text) in variables.iter().filter(|(name, _)| name.starts_with("JITAUTH_")) {
            if let Err(problem) = layer.variable(variable, text, &keys, variables, schema) {
                layer.problems.push(Problem::at(&Origin::Environment(variable.clone()), problem));
            }
        }
        layer
    }

    /// Takes what was given on the command line.
    pub(super) fn flags(flags: &[Flag], schema: &Schema) -> Self {
        let mut layer = Self::default();
        for flag in flags {
            let origin = Origin::Flag(flag.name);
            match parse(flag.key, &flag.value, schema) {
                Ok(value) => layer.values.push((flag.key.to_owned(), value, origin)),
                Err(problem) => layer.problems.push(Problem::at(&origin, problem)),
            }
        }
        layer
    }

    /// Lays this layer over `leaves`, whose layers are below.
    pub(super) fn lay_over(self, leaves: &mut Leaves, layer: usize) {
        leaves.extend(self.values.into_iter().map(|(key, value, origin)| (key, Leaf { value, origin, layer })));
    }

    fn variable(
        &mut self,
        variable: &str,
        text: &str,
        keys: &BTreeMap<String, &str>,
        variables: &BTreeMap<String, String>,
        schema: &Schema,
    ) -> Result<(), String> {
        let origin = Origin::Environment(variable.to_owned());
        if let Some(key) = keys.get(variable) {
            self.values.push(((*key).to_owned(), parse(key, text, schema)?, origin));
            return Ok(());
        }
        if let Some((plain, key)) = variable.strip_suffix("_FILE").and_then(|plain| keys.get_key_value(plain)) {
            if !matches!(schema.default_of(key), Some(Value::Text(_))) {
                return Err(format!("{key} is not a text, so it cannot come from a file; set {plain}"));
            }
            if variables.contains_key(plain) {
                return Err(format!("{plain} is set too; unset one of them"));
            }
            let content = read_file(Path::new(text)).map_err(|error| format!("cannot read {text}: {error}"))?;
            self.values.push(((*key).to_owned(), Value::Text(without_newline(&content).to_owned()), origin));
            return Ok(());
        }
        unknown_variable(variable, keys)
    }
}

/// A variable that sets nothing is an error when it looks as if it was meant to.
fn unknown_variable(variable: &str, keys: &BTreeMap<String, &str>) -> Result<(), String> {
    if variable.contains("__") {
        let nearest = most_alike(variable, keys.keys().map(String::as_str));
        return Err(format!("sets no known key{}", nearest.map_or_else(String::new, |name| format!("; did you mean {name}?"))));
    }
    let plain = variable.strip_suffix("_FILE").unwrap_or(variable);
    match keys.keys().find(|name| name.replace("__", "_") == plain) {
        Some(name) => Err(format!("sets nothing; did you mean {name}? A section is set off by two underscores")),
        None => Ok(()),
    }
}

/// Reads a whole file of bounded length.
pub(super) fn read_file(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if read as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("it is longer than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// Files that people write end in a newline, which is no part of the value.
pub(super) fn without_newline(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

fn parse(key: &str, text: &str, schema: &Schema) -> Result<Value, String> {
    let Some(default) = schema.default_of(key) else { return Err(format!("{key} is not a known key")) };
    default.parse_alike(text).ok_or_else(|| wrong_kind(key, &format!("{text:?}"), default))
}

fn wrong_kind(key: &str, shown: &str, default: &Value) -> String {
    if is_secret(key) { format!("{key} must be {}", default.kind()) } else { format!("{key} is {shown}; must be {}", default.kind()) }
}

/// A TOML document while it is walked.
struct Document<'a> {
    name: &'a str,
    text: &'a str,
    schema: Option<&'a Schema>,
    layer: Layer,
}

impl Document<'_> {
    fn section(&mut self, path: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            // A quoted key with a dot in it is one name, and no name of ours has one.
            let name = key.get_ref();
            let name = if name.contains('.') { format!("{name:?}") } else { name.to_string() };
            let path = if path.is_empty() { name } else { format!("{path}.{name}") };
            if let Err(problem) = self.entry(&path, value) {
                let at = if self.is_known(&path) { value.span().start } else { key.span().start };
                let origin = self.origin(at);
                self.layer.problems.push(Problem::at(&origin, problem));
            }
        }
    }

    fn entry(&mut self, path: &str, spanned: &Spanned<DeValue<'_>>) -> Result<(), String> {
        let known = self.schema.and_then(|schema| schema.default_of(path));
        if let Some(schema) = self.schema.filter(|_| known.is_none()) {
            if !schema.is_section(path) {
                let what = if matches!(spanned.get_ref(), DeValue::Table(_)) { "section" } else { "key" };
                let nearest = schema.nearest(path).map_or_else(String::new, |nearest| format!("; did you mean {nearest}?"));
                return Err(format!("{path} is not a known {what}{nearest}"));
            }
            if !matches!(spanned.get_ref(), DeValue::Table(_)) {
                return Err(format!("{path} is a section; write [{path}] on a line of its own"));
            }
        }
        if let (DeValue::Table(table), None) = (spanned.get_ref(), known) {
            self.section(path, table);
            return Ok(());
        }
        let value = scalar(spanned.get_ref());
        match (value, known) {
            (Some(value), Some(default)) if !value.same_kind(default) => Err(wrong_kind(path, &value.shown(), default)),
            (Some(value), _) => {
                let origin = self.origin(spanned.span().start);
                self.layer.values.push((path.to_owned(), value, origin));
                Ok(())
            }
            (None, Some(default)) => Err(format!("{path} must be {}", default.kind())),
            (None, None) => Err(format!("{path} has a type that no key has")),
        }
    }

    fn is_known(&self, path: &str) -> bool {
        self.schema.is_none_or(|schema| schema.default_of(path).is_some())
    }

    fn origin(&self, at: usize) -> Origin {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        Origin::File { name: self.name.to_owned(), line, column }
    }
}

/// The value, if it is of a type that keys have.
fn scalar(value: &DeValue<'_>) -> Option<Value> {
    match value {
        DeValue::String(text) => Some(Value::Text(text.to_string())),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok().map(Value::Whole),
        DeValue::Boolean(flag) => Some(Value::Flag(*flag)),
        DeValue::Array(items) => {
            let texts = items.iter().map(|item| item.get_ref().as_str().map(str::to_owned));
            texts.collect::<Option<Vec<_>>>().map(Value::List)
        }
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}
