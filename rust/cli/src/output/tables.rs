//! Results: tables for people, JSON for programs.

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::output::failure::{Failure, Outcome};
use crate::terminal::console::{Console, json_for_terminals, printable};

/// The format of results.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// Pretty-printed JSON for programs.
    Json,
}

/// Columns without borders under a header in capitals. Lines are never wrapped or cut, so that a copied cell is
/// complete.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().copied());
    for row in rows {
        // A cell has one line.
        table.add_row(row.into_iter().map(|cell| printable(&cell).replace(['\n', '\t'], " ")));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    let mut text = table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n");
    text.push('\n');
    text
}

/// `value` as JSON.
pub fn print_json(console: &Console, value: &impl Serialize) -> Outcome<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::message(format!("cannot write the result as JSON: {error}")))?;
    console.line(&json_for_terminals(&text))
}

/// `-` for an unknown value.
pub fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
