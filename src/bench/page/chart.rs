//! What every chart has: a drawing for a wide page and one for a narrow one, axes, a legend.
//!
//! A drawing that is scaled down to the width of a telephone cannot be read. So each is made twice, and the page shows the one that fits.

use super::scale::Scale;
use maud::{Markup, html};

/// The page that a chart is drawn for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// A desk's screen, or paper.
    Wide,
    /// A telephone's.
    Narrow,
}

impl Size {
    /// Width of a drawing.
    pub(super) const fn width(self) -> f64 {
        match self {
            Self::Wide => 960.0,
            Self::Narrow => 358.0,
        }
    }

    /// The class, which the style sheet shows or hides.
    const fn class(self) -> &'static str {
        match self {
            Self::Wide => "wide",
            Self::Narrow => "narrow",
        }
    }

    /// One of two figures.
    pub(super) const fn pick<T: Copy>(self, wide: T, narrow: T) -> T {
        match self {
            Self::Wide => wide,
            Self::Narrow => narrow,
        }
    }
}

/// The rectangle that is drawn in, inside of the axes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Area {
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
}

impl Area {
    /// Room for figures at the left and at the bottom, and for the axes' names.
    pub(super) fn new(size: Size, height: f64) -> Self {
        Self { left: 58.0, right: size.width() - 12.0, top: 24.0, bottom: height - 40.0 }
    }

    /// Lines and figures of the vertical axis, with its name above it.
    pub(super) fn left_axis(&self, scale: &Scale, name: &str, label: impl Fn(f64) -> String) -> Markup {
        html! {
            text.name x="0" y="12" { (name) }
            @for tick in scale.ticks(((self.bottom - self.top) / 34.0) as usize) {
                line.grid x1=(px(self.left)) x2=(px(self.right)) y1=(px(scale.at(tick))) y2=(px(scale.at(tick))) {}
                text.tick.end x=(px(self.left - 7.0)) y=(px(scale.at(tick) + 4.0)) { (label(tick)) }
            }
        }
    }

    /// Figures of the horizontal axis, with its name below it.
    pub(super) fn bottom_axis(&self, ticks: &[(f64, String)], name: &str) -> Markup {
        html! {
            line.axis x1=(px(self.left)) x2=(px(self.right)) y1=(px(self.bottom)) y2=(px(self.bottom)) {}
            @for (at, label) in ticks {
                line.axis x1=(px(*at)) x2=(px(*at)) y1=(px(self.bottom)) y2=(px(self.bottom + 4.0)) {}
                // A figure at the very end would be cut off.
                text.tick.middle[*at < self.right - 16.0].end[*at >= self.right - 16.0] x=(px(at.min(self.right))) y=(px(self.bottom + 17.0)) { (label) }
            }
            text.name.end x=(px(self.right)) y=(px(self.bottom + 34.0)) { (name) }
        }
    }
}

/// A drawing of some height, for a size of the page.
pub(super) struct Drawing {
    pub(super) height: f64,
    pub(super) body: Markup,
}

/// A figure: heading, caption, legend, drawings, and the figures behind them.
pub(super) struct Figure<'a> {
    /// A word for links, unique on the page.
    pub(super) id: &'a str,
    /// What it is, for whoever cannot see it.
    pub(super) title: &'a str,
    /// What it says, for everybody.
    pub(super) caption: String,
    pub(super) legend: Markup,
    /// The same as a table.
    pub(super) table: Option<Markup>,
}

impl Figure<'_> {
    /// Draws it for both sizes.
    pub(super) fn draw(&self, draw: impl Fn(Size) -> Drawing) -> Markup {
        html! {
            figure id=(self.id) {
                figcaption { (self.caption) }
                (self.legend)
                @for size in [Size::Wide, Size::Narrow] { (self.svg(size, draw(size))) }
            }
            @if let Some(table) = &self.table {
                details { summary { "The same in figures" } (table) }
            }
        }
    }

    fn svg(&self, size: Size, Drawing { height, body }: Drawing) -> Markup {
        let (title, desc) = (format!("{}-{}-title", self.id, size.class()), format!("{}-{}-desc", self.id, size.class()));
        html! {
            svg class=(size.class()) role="img" aria-labelledby={ (title) " " (desc) } viewBox={ "0 0 " (px(size.width())) " " (px(height)) } {
                title id=(title) { (self.title) }
                desc id=(desc) { (self.caption) }
                (body)
            }
        }
    }
}

/// A legend: a sample of each line or surface, and its name. A mark that is a letter needs no sample: its class is empty.
pub(super) fn legend(entries: &[(&str, String)]) -> Markup {
    html! {
        ul.legend {
            @for (class, name) in entries {
                li {
                    @if !class.is_empty() { svg viewBox="0 0 26 12" aria-hidden="true" { path class={ "sample " (class) } d="M0 6H26" {} } }
                    (name)
                }
            }
        }
    }
}

/// A path through points.
pub(super) fn path(points: impl IntoIterator<Item = (f64, f64)>) -> String {
    let mut text = String::new();
    for (x, y) in points {
        text.push(if text.is_empty() { 'M' } else { 'L' });
        text.push_str(&format!("{} {}", px(x), px(y)));
    }
    text
}

/// A place with one decimal.
pub(super) fn px(value: f64) -> String {
    super::format::plain((value * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_no_digit_too_many() {
        for (points, expected) in [(vec![], ""), (vec![(1.0, 2.0)], "M1 2"), (vec![(0.04, 9.96), (10.25, -3.0)], "M0 10L10.3 -3")] {
            assert_eq!(path(points), expected);
        }
    }

    #[test]
    fn both_drawings_are_named_and_described_and_what_comes_from_outside_is_escaped() {
        let figure = Figure { id: "f", title: "<T>", caption: "a < b & \"c\"".to_owned(), legend: html! {}, table: None };
        let text = figure.draw(|size| Drawing { height: size.pick(10.0, 20.0), body: html! { text { "</svg>" } } }).into_string();
        for part in [
            r#"<svg class="wide" role="img" aria-labelledby="f-wide-title f-wide-desc" viewBox="0 0 960 10">"#,
            r#"<svg class="narrow" role="img" aria-labelledby="f-narrow-title f-narrow-desc" viewBox="0 0 358 20">"#,
            r#"<title id="f-wide-title">&lt;T&gt;</title>"#,
            r#"<desc id="f-narrow-desc">a &lt; b &amp; &quot;c&quot;</desc>"#,
            "<text>&lt;/svg&gt;</text>",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
