//! What every page has: head, style, and how parts of it look.

use maud::{DOCTYPE, Markup, PreEscaped, html};

/// The style sheet, inside of the page: a page needs nothing but itself.
const STYLE: &str = include_str!("page.css");
/// What the browser may load for this page: nothing. What it may run: nothing.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// A whole page.
pub(super) fn page(title: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { main { (body) } }
        }
    };
    page.into_string()
}

/// A part of a page with its heading.
pub(super) fn section(id: &str, heading: &str, body: &Markup) -> Markup {
    html! {
        section id=(id) aria-labelledby={ (id) "-heading" } {
            h2 id={ (id) "-heading" } { (heading) }
            (body)
        }
    }
}

/// One of the figures that people look at first.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) value: String,
    pub(super) remark: String,
}

/// The figures that people look at first.
pub(super) fn keys(keys: &[Key]) -> Markup {
    html! {
        dl.key {
            @for Key { name, value, remark } in keys {
                div { dt { (name) } dd { (value) small { (remark) } } }
            }
        }
    }
}

/// Names and what they stand for. What is not known is left out.
pub(super) fn facts(facts: &[(&str, Option<String>)]) -> Markup {
    html! {
        dl.facts {
            @for (name, value) in facts {
                @if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) { dt { (name) } dd { (value) } }
            }
        }
    }
}

/// How well it went, in a word and a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Good,
    Bad,
    Wary,
}

/// The verdict, where nobody overlooks it.
pub(super) fn verdict(mood: Mood, word: &str, sentence: &str) -> Markup {
    let (class, sign) = match mood {
        Mood::Good => ("good", "✓"),
        Mood::Bad => ("bad", "✗"),
        Mood::Wary => ("wary", "!"),
    };
    html! { p class={ "verdict-word " (class) } { strong { (sign) " " (word) } span { (sentence) } } }
}

/// Counts by name, most first, with their share as a bar.
pub(super) fn counts(caption: &str, counts: &[(&str, u64)]) -> Markup {
    let (sum, most) = (counts.iter().map(|(_, count)| count).sum::<u64>(), counts.iter().map(|(_, count)| *count).max().unwrap_or(0));
    html! {
        @if sum > 0 {
            table {
                caption { (caption) }
                @for (name, count) in counts {
                    @let width = format!("width:{:.1}%", *count as f64 * 100.0 / most as f64);
                    tr { th scope="row" { (name) } td { (super::format::count(*count)) } td { (super::format::percent(*count as f64 / sum as f64)) } td.bar { span style=(width) {} } }
                }
            }
        }
    }
}
