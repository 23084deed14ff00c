//! Differences between strings, for messages.

use std::time::Duration;

use similar::TextDiff;

/// The number of unchanged lines to show before and after a change.
const CONTEXT: usize = 2;
/// The time limit for finding the shortest difference.
const MAX_TIME: Duration = Duration::from_millis(500);
/// The maximum number of characters that `cut` keeps.
const MAX_SHOWN: usize = 100;

pub(crate) fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

/// Shortens long strings, but keeps the first place where they differ.
pub(crate) fn around_difference(a: &str, b: &str) -> (String, String) {
    let same = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count();
    let is_short = |text: &str| text.chars().nth(MAX_SHOWN).is_none();
    if is_short(a) && is_short(b) || same < MAX_SHOWN / 2 {
        return (cut(a), cut(b));
    }
    let from = same - MAX_SHOWN / 4;
    let tail = |text: &str| cut(&format!("…{}", text.chars().skip(from).collect::<String>()));
    (tail(a), tail(b))
}

/// Escapes control characters such as a carriage return, but not tabs.
pub(crate) fn visible(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    for c in line.chars() {
        match c.is_control() && c != '\t' {
            true => text.extend(c.escape_default()),
            false => text.push(c),
        }
    }
    text
}

/// Returns a line diff. `-` marks removed lines, `+` added lines, and `…` omitted lines.
pub(crate) fn lines(a: &str, b: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (a.split('\n').collect(), b.split('\n').collect());
    let diff = TextDiff::configure().timeout(MAX_TIME).diff_slices(&a, &b);
    let (mut out, mut end) = (Vec::new(), 0);
    for op in diff.grouped_ops(CONTEXT).iter().flatten() {
        if op.old_range().start > end {
            out.push("  …".to_owned());
        }
        end = op.old_range().end;
        out.extend(diff.iter_changes(op).map(|change| match change.value() {
            "" => change.tag().to_string(),
            line => format!("{} {}", change.tag(), visible(line)),
        }));
    }
    if end < a.len() {
        out.push("  …".to_owned());
    }
    out.join("\n")
}
