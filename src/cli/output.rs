//! Results on standard output: tables and JSON.
//!
//! Deliberately absent: Go templates; `--format json` with `jq` does the same.

use std::fmt::Write as _;
use std::str::FromStr;

use serde::Serialize;

use crate::error::Result;

/// What `--format` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// For programs.
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            template if template.contains("{{") => Err(
                "Go templates are not there; use `--format json`, and pick the field with `jq`"
                    .to_owned(),
            ),
            _ => Err("the formats are `table` and `json`".to_owned()),
        }
    }
}

/// Indented JSON with a line end.
pub fn json(value: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// Columns as wide as their widest cell; the last one is not padded.
pub fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([headings[column].len()]).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    let headings = headings.map(str::to_owned);
    for row in std::iter::once(&headings).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            // Writing to a string cannot fail.
            let _ = write!(line, "{cell:<width$}   ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [
            ["web1".to_owned(), "-".to_owned()],
            ["a".to_owned(), "x y".to_owned()],
        ];
        assert_eq!(
            table(["NAME", "NOTE"], &rows),
            "NAME   NOTE\nweb1   -\na      x y\n"
        );
    }

    #[test]
    fn templates_are_refused_with_the_way_out() {
        let refused = "{{.Driver.IPAddress}}".parse::<Format>();
        assert!(refused.is_err_and(|why| why.contains("jq")));
    }
}
