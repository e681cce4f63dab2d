//! Text in columns, and text of strangers made safe to print.

/// Rows under a head, columns as wide as their widest cell and two spaces apart. Cells of the columns in `right` end at the right.
/// Nothing follows the last cell of a line.
pub(super) fn table<const N: usize>(head: [&str; N], right: &[usize], rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |cells: [&str; N]| {
        let padded: Vec<String> = cells
            .iter()
            .enumerate()
            .map(|(column, cell)| match right.contains(&column) {
                true => format!("{cell:>0$}", widths[column]),
                false => format!("{cell:<0$}", widths[column]),
            })
            .collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let rows = rows.iter().map(|row| line(std::array::from_fn(|column| row[column].as_str())));
    std::iter::once(line(head)).chain(rows).collect()
}

/// Text that somebody else wrote, safe for a terminal: what steers it, or hides or turns what follows, is escaped.
pub(super) fn plain(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '\'' | '\\' => safe.push(character),
            other => safe.extend(other.escape_debug()),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_nothing_trails() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned);
        let rows = [row(["short", "7", "a"]), row(["much longer", "1234", ""])];
        let expected = "NAME         COUNT  REST\nshort            7  a\nmuch longer   1234\n";
        assert_eq!(table(["NAME", "COUNT", "REST"], &[1], &rows), expected);
    }

    #[test]
    fn text_of_strangers_cannot_steer_the_terminal() {
        for (text, expected) in [
            ("auth-1 \"x\" \\", "auth-1 \"x\" \\"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("a\nb\tc\r", "a\\nb\\tc\\r"),
            ("\u{202e}gnp", "\\u{202e}gnp"),
            ("café 東京", "café 東京"),
        ] {
            assert_eq!(plain(text), expected);
        }
    }
}
