//! A result as a page: one file with everything in it. It loads nothing, runs nothing, and reads the same in a browser, on a telephone, in
//! the dark and on paper.
//!
//! | file | what it does |
//! |---|---|
//! | `report` | the page of a run: `report.html` |
//! | `operations` | the page of a running daemon: `jitauth report --html` |
//! | `frame`, `page.css` | head, style, sections, tables of names |
//! | `scale`, `chart` | places for figures, axes, legends; a drawing for wide pages and one for narrow ones |
//! | `percentiles`, `rate`, `heatmap`, `bars`, `steps` | the charts |
//! | `moments` | a run over time, for the charts that show it |
//! | `format` | figures as people read them |
//!
//! Charts are plain SVG without scripts: a page that runs nothing can be attached to a ticket and opened by anybody. What a pointer tells is
//! told by `<title>`. What comes from outside is escaped by the templates.

mod bars;
mod chart;
pub mod format;
mod frame;
mod heatmap;
mod moments;
mod operations;
mod percentiles;
mod rate;
mod report;
mod scale;
mod steps;

pub use operations::operations;
pub use report::report;
