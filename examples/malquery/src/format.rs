//! Formats results for standard output.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IsTerminal};

use clap::ValueEnum;
use console::{Term, measure_text_width, truncate_str};
use malquery_proto::operations::Quotas;
use malquery_proto::types::{Sample, Sha256};
use serde::Serialize;

use crate::output::{Failure, harmless, json, masked, print, write};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns; the default on a terminal.
    Table,
    /// One JSON document; the default if standard output is not a terminal.
    Json,
    /// One JSON object for each result, each on its own line.
    Jsonl,
    /// Comma-separated values: a header, then one record per result.
    Csv,
    /// One SHA-256 per line.
    Sha256,
}

/// The formats for output other than a list of samples.
pub(crate) const DOCUMENTS: &[Format] = &[Format::Table, Format::Json];
/// The formats for a list of samples.
pub(crate) const RESULTS: &[Format] = Format::ALL;

impl Format {
    const ALL: &[Self] = &[
        Self::Table,
        Self::Json,
        Self::Jsonl,
        Self::Csv,
        Self::Sha256,
    ];

    /// Returns the requested format, or the default for standard output.
    pub(crate) fn or_default(asked: Option<Self>) -> Self {
        asked.unwrap_or_else(|| match io::stdout().is_terminal() {
            true => Self::Table,
            false => Self::Json,
        })
    }
}

/// Returns the failure for a format that a command does not support.
pub(crate) fn refuse(asked: Format, formats: &[Format]) -> Failure {
    let word = |format: &Format| {
        let value = format.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    };
    let asked = word(&asked);
    let formats: Vec<_> = formats.iter().map(word).collect();
    Failure::refused(match formats.is_empty() {
        true => "this command does not support --format".to_owned(),
        false => format!(
            "this command does not support --format {asked}; use {}",
            formats.join(" or ")
        ),
    })
}

/// Prints results, or `document` if the format is `Json`.
pub(crate) fn print_results(
    format: Format,
    results: &[Sample],
    document: &impl Serialize,
) -> Result<(), Failure> {
    let text = match format {
        Format::Json => return print(document),
        Format::Table => table(results, width()),
        Format::Jsonl => {
            let mut lines = String::new();
            for result in results {
                let line =
                    serde_json::to_string(result).map_err(|error| Failure::failed(&error))?;
                lines += &(json(&line)? + "\n");
            }
            lines
        }
        Format::Csv => csv(results),
        Format::Sha256 => results
            .iter()
            .flat_map(hashes)
            .map(|hash| format!("{hash}\n"))
            .collect(),
    };
    write(&text)
}

/// Prints a table with one field per line, or the JSON document.
pub(crate) fn print_fields(
    format: Format,
    fields: &[(&str, String)],
    document: &impl Serialize,
) -> Result<(), Failure> {
    if format != Format::Table {
        return print(document);
    }
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = fields
        .iter()
        .map(|(name, value)| format!("{name:<width$}  {}\n", harmless(&masked(value))));
    write(&lines.collect::<String>())
}

/// Returns the hash of a result or, if it has none, the hashes of the samples that it groups.
fn hashes(result: &Sample) -> Vec<Sha256> {
    match result.sha256 {
        Some(hash) => vec![hash],
        None => result.samples().iter().filter_map(|s| s.sha256).collect(),
    }
}

/// Returns the width of the terminal in columns, if standard output is a terminal.
fn width() -> Option<usize> {
    Term::stdout()
        .size_checked()
        .map(|(_, columns)| columns.into())
}

fn text(value: Option<impl fmt::Display>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

const CSV_HEADER: &str = "sha256,sha1,md5,filesize,filetype,first_seen,label,family\n";

fn csv(results: &[Sample]) -> String {
    let is_shown = io::stdout().is_terminal();
    let field = |value: String| {
        let value = masked(&value);
        let value = if is_shown { harmless(&value) } else { value };
        match value.contains(['"', ',', '\n', '\r']) {
            true => format!("\"{}\"", value.replace('"', "\"\"")),
            false => value,
        }
    };
    let mut lines = String::from(CSV_HEADER);
    for sample in results {
        let fields = [
            text(sample.sha256),
            text(sample.sha1),
            text(sample.md5),
            text(sample.filesize),
            text(sample.filetype.as_ref()),
            text(sample.first_seen),
            text(sample.label.as_ref()),
            text(sample.family.as_ref()),
        ];
        lines.push_str(&fields.map(field).join(","));
        lines.push('\n');
    }
    lines
}

const SEPARATOR: &str = "  ";

/// Formats a table that fits into `width` columns. If the full hashes do not fit next to the other
/// columns, each gets its own line.
fn table(results: &[Sample], width: Option<usize>) -> String {
    if results.is_empty() {
        return String::new();
    }
    let width = width.unwrap_or(usize::MAX);
    let cell = |value: String| match value.is_empty() {
        true => "-".into(),
        false => harmless(&masked(&value)),
    };
    let mut hashes = vec!["SHA-256".to_owned()];
    let mut rest = vec![["TYPE", "BYTES", "FIRST SEEN", "LABEL", "FAMILY"].map(String::from)];
    for sample in results {
        hashes.push(cell(text(sample.sha256)));
        rest.push([
            cell(text(sample.filetype.as_ref())),
            cell(text(sample.filesize)),
            cell(text(sample.first_seen)),
            cell(text(sample.label.as_ref())),
            cell(text(sample.family.as_ref())),
        ]);
    }
    let widest = |cells: &mut dyn Iterator<Item = &String>| -> usize {
        cells
            .map(|cell| measure_text_width(cell))
            .max()
            .unwrap_or(0)
    };
    let hash = widest(&mut hashes.iter());
    let mut widths: [usize; 5] =
        std::array::from_fn(|column| widest(&mut rest.iter().map(|row| &row[column])));
    let total = |widths: &[usize; 5]| widths.iter().sum::<usize>() + 4 * SEPARATOR.len();
    let beside = width.saturating_sub(hash + SEPARATOR.len());
    // The columns of dates and numbers keep their widths. The family is shortened first, then the
    // type, then the label.
    const LEAST: [usize; 5] = [6, 0, 0, 7, 12];
    let mut least = widths;
    for column in [4, 0, 3] {
        least[column] = least[column].min(LEAST[column]);
    }
    let one_line = total(&least) <= beside;
    let room = if one_line {
        beside
    } else {
        width.saturating_sub(SEPARATOR.len())
    };
    for (column, least) in [(4, 1), (0, 1), (3, 1)]
        .map(|(column, floor)| (column, if one_line { least[column] } else { floor }))
    {
        let excess = total(&widths).saturating_sub(room);
        widths[column] = widths[column]
            .saturating_sub(excess)
            .max(least.min(widths[column]));
    }
    let mut text = String::new();
    let mut line = |line: String| {
        text.push_str(&truncate_str(line.trim_end(), width, "…"));
        text.push('\n');
    };
    for (hash_cell, row) in hashes.iter().zip(&rest) {
        let cells = row
            .iter()
            .zip(widths)
            .enumerate()
            .map(|(column, (cell, width))| {
                let cell = truncate_str(cell, width, "…");
                let space = " ".repeat(width.saturating_sub(measure_text_width(&cell)));
                // Numbers are right-aligned.
                if column == 1 {
                    space + &cell
                } else {
                    cell.into_owned() + &space
                }
            });
        let cells = cells.collect::<Vec<_>>().join(SEPARATOR);
        if one_line {
            line(format!("{hash_cell:<hash$}{SEPARATOR}{cells}"));
        } else {
            line(hash_cell.clone());
            line(format!("{SEPARATOR}{cells}"));
        }
    }
    text
}

/// Prints a bar for each known quota and the usage of each user, or the JSON document.
pub(crate) fn print_quotas(
    format: Format,
    quotas: &Quotas,
    document: &impl Serialize,
) -> Result<(), Failure> {
    if format != Format::Table {
        return print(document);
    }
    write(&quota_table(quotas, width().unwrap_or(80)))
}

fn quota_table(quotas: &Quotas, width: usize) -> String {
    let all = [
        ("hunts", quotas.hunt_count, quotas.hunt_limit),
        ("downloads", quotas.download_count, quotas.download_limit),
        ("monitors", quotas.monitor_count, quotas.monitor_limit),
    ];
    let rows: Vec<_> = all
        .into_iter()
        .filter_map(|(name, used, limit)| {
            let (used, limit) = (used?, limit?);
            let left = limit.saturating_sub(used);
            Some((
                name,
                used,
                limit,
                format!("{used} of {limit} used, {left} left"),
            ))
        })
        .collect();
    let words = rows.iter().map(|row| row.3.len()).max().unwrap_or(0);
    // The bar shares its line with a name of up to 9 letters, brackets, spaces and the words.
    let bar = width.saturating_sub(words + 9 + 2 + 4).clamp(10, 40);
    let mut text = String::new();
    for (name, used, limit, words) in &rows {
        let share = *used as f64 / (*limit).max(1) as f64;
        let full = ((share * bar as f64).round() as usize).min(bar);
        text.push_str(&format!(
            "{name:<9}  [{}{}]  {words}\n",
            "#".repeat(full),
            "-".repeat(bar - full)
        ));
    }
    match quotas.days_left {
        Some(1) => text.push_str("1 day left until the quotas are renewed\n"),
        Some(days) => text.push_str(&format!("{days} days left until the quotas are renewed\n")),
        None => {}
    }
    let mut users: BTreeMap<String, [u64; 2]> = BTreeMap::new();
    for (column, counts) in [&quotas.hunt_counts, &quotas.download_counts]
        .into_iter()
        .enumerate()
    {
        for count in counts {
            let user = count.userid.as_deref().filter(|user| !user.is_empty());
            let user = harmless(&masked(user.unwrap_or("(no user)")));
            users.entry(user).or_default()[column] += count.counter.unwrap_or(0);
        }
    }
    if !users.is_empty() {
        let widest = users.keys().map(|user| measure_text_width(user)).max();
        let widest = widest
            .unwrap_or(0)
            .clamp(4, width.saturating_sub(20).max(4));
        text.push_str(&format!("\n{:<widest$}  HUNTS  DOWNLOADS\n", "USER"));
        for (user, [hunts, downloads]) in users {
            let user = truncate_str(&user, widest, "…");
            let space = " ".repeat(widest.saturating_sub(measure_text_width(&user)));
            text.push_str(&format!("{user}{space}  {hunts:>5}  {downloads:>9}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(family: &str) -> Sample {
        let hash = "a".repeat(64);
        serde_json::from_value(serde_json::json!({
            "sha256": hash, "filetype": "pe32", "filesize": 1234567, "first_seen": "2024/01/15",
            "label": "malware", "family": family,
        }))
        .unwrap()
    }

    #[test]
    fn tables_fit_any_width() {
        let long = "f".repeat(300);
        for family in ["Demo", "", "漢字漢字漢字漢字漢字", &long] {
            for width in 20..200 {
                let text = table(&[sample(family)], Some(width));
                for line in text.lines() {
                    assert!(measure_text_width(line) <= width, "{width}: {line}");
                }
                // The hash is shortened last.
                assert!(
                    width < 64 || text.contains(&"a".repeat(64)),
                    "{width}: {text}"
                );
                assert!(width < 64 || text.contains("2024/01/15"), "{width}: {text}");
            }
        }
    }

    #[test]
    fn csv_fields_survive_quotes_and_lines() {
        let text = csv(&[sample("a,\"b\"\nc")]);
        let line = text.strip_prefix(CSV_HEADER).unwrap();
        assert!(line.ends_with(",malware,\"a,\"\"b\"\"\nc\"\n"), "{line}");
    }
}
