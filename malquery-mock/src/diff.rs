//! Differences of texts, for messages.

/// The most cells of the table that finds common lines.
const MAX_TABLE: usize = 1_000_000;
/// Lines around a change.
const CONTEXT: usize = 2;
/// The most characters of a value in a message.
const MAX_SHOWN: usize = 100;

/// Shortens a text for a message.
pub(crate) fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

/// Shortens two texts such that the place where they differ stays.
pub(crate) fn around_difference(a: &str, b: &str) -> (String, String) {
    let same = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count();
    if a.chars().nth(MAX_SHOWN).is_none() && b.chars().nth(MAX_SHOWN).is_none()
        || same < MAX_SHOWN / 2
    {
        return (cut(a), cut(b));
    }
    let from = same - MAX_SHOWN / 4;
    let tail = |text: &str| cut(&format!("…{}", text.chars().skip(from).collect::<String>()));
    (tail(a), tail(b))
}

/// Escapes what would not be seen, such as a carriage return.
pub(crate) fn visible(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    for c in line.chars() {
        if c.is_control() && c != '\t' {
            text.extend(c.escape_default())
        } else {
            text.push(c)
        }
    }
    text
}

/// The lines of both texts, those of `a` alone with `-` and those of `b` alone with `+`.
pub(crate) fn lines(a: &str, b: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (a.split('\n').collect(), b.split('\n').collect());
    let start = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let end = a[start..]
        .iter()
        .rev()
        .zip(b[start..].iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let mut out: Vec<(char, &str)> = a[..start].iter().map(|line| (' ', *line)).collect();
    middle(&a[start..a.len() - end], &b[start..b.len() - end], &mut out);
    out.extend(a[a.len() - end..].iter().map(|line| (' ', *line)));

    let near = |index: usize| {
        let range = index.saturating_sub(CONTEXT)..(index + CONTEXT + 1).min(out.len());
        out[range].iter().any(|(mark, _)| *mark != ' ')
    };
    let mut text = String::new();
    let mut skipped = false;
    for (index, &(mark, line)) in out.iter().enumerate() {
        if near(index) {
            let line = visible(line);
            text.push(mark);
            if !line.is_empty() {
                text.push(' ');
                text.push_str(&line);
            }
            text.push('\n');
        } else if !skipped {
            text.push_str("  …\n");
        }
        skipped = !near(index);
    }
    text.pop();
    text
}

/// The longest common subsequence of the lines, by the table of its lengths.
fn middle<'a>(a: &[&'a str], b: &[&'a str], out: &mut Vec<(char, &'a str)>) {
    let width = b.len() + 1;
    let size = (a.len() + 1).saturating_mul(width);
    let mut table = vec![0u32; if size <= MAX_TABLE { size } else { 0 }];
    if !table.is_empty() {
        for i in (0..a.len()).rev() {
            for j in (0..b.len()).rev() {
                table[i * width + j] = if a[i] == b[j] {
                    table[(i + 1) * width + j + 1] + 1
                } else {
                    table[(i + 1) * width + j].max(table[i * width + j + 1])
                };
            }
        }
    }
    let length = |i: usize, j: usize| table.get(i * width + j).copied().unwrap_or(0);
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            out.push((' ', a[i]));
            (i, j) = (i + 1, j + 1);
        } else if i < a.len() && (j == b.len() || length(i + 1, j) >= length(i, j + 1)) {
            out.push(('-', a[i]));
            i += 1;
        } else {
            out.push(('+', b[j]));
            j += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_that_differ_stand_among_those_around_them() {
        let a = "rule x {\nmeta:\n  a = 1\n  b = 2\nstrings:\n  $a = \"GNU\"\ncondition:\n  $a\n}";
        let b =
            "rule x {\nmeta:\n  a = 1\n  b = 2\nstrings:\n  $a = \"GNU\" wide\ncondition:\n  $a\n}";
        assert_eq!(
            lines(a, b),
            "  …\n    b = 2\n  strings:\n-   $a = \"GNU\"\n+   $a = \"GNU\" wide\n  condition:\n    $a\n  …"
        );
    }

    #[test]
    fn long_texts_are_cut_near_the_difference() {
        let same = "x".repeat(500);
        let (a, b) = around_difference(&format!("{same}AAA"), &format!("{same}BBB"));
        assert!(
            a.ends_with("xAAA") && b.ends_with("xBBB") && a.len() < 200,
            "{a} {b}"
        );
    }

    #[test]
    fn what_is_short_or_differs_early_is_shown_from_its_beginning() {
        let x = |count: usize| "x".repeat(count);
        let around = |a: String, b: String| around_difference(&a, &b);
        assert_eq!(around(x(100), x(99)), (x(100), x(99)));
        // one of them is long
        let (a, b) = around(x(60) + &"A".repeat(80), x(60));
        assert_eq!((&a[..8], b.as_str()), ("…xxxxx", &*format!("…{}", x(25))));
        let (a, b) = around(x(60), x(60) + &"A".repeat(80));
        assert_eq!((a.as_str(), &b[..8]), (&*format!("…{}", x(25)), "…xxxxx"));
        // from the 50th character on the beginning says less than the difference
        let (a, _) = around(x(49) + &"A".repeat(80), x(49) + &"B".repeat(80));
        assert_eq!(a, format!("{}{}… (129 bytes)", x(49), "A".repeat(51)));
        let (a, _) = around(x(50) + &"A".repeat(60), x(50) + &"B".repeat(60));
        assert_eq!(a, format!("…{}{}", x(25), "A".repeat(60)));
    }

    #[test]
    fn only_what_differs_is_marked() {
        assert_eq!(lines("1\n2", "3\n2"), "- 1\n+ 3\n  2");
        assert_eq!(lines("2\n1", "2\n3"), "  2\n- 1\n+ 3");
        assert_eq!(lines("1\n2\n3", "1\n3"), "  1\n- 2\n  3");
        let many = |from: u32| {
            (from..from + 1001)
                .map(|line| line.to_string())
                .collect::<Vec<_>>()
                .join("\n")
        };
        // beyond the table nothing is common, and nothing is lost
        let shown = lines(&many(0), &many(2000));
        assert_eq!(
            (shown.matches("- ").count(), shown.matches("+ ").count()),
            (1001, 1001)
        );
    }

    /// The length of the longest common subsequence, from the front and row by row.
    fn most_in_common(a: &[&str], b: &[&str]) -> usize {
        let mut row = vec![0; b.len() + 1];
        for line in a {
            let mut next = row.clone();
            for (j, other) in b.iter().enumerate() {
                next[j + 1] = if line == other {
                    row[j] + 1
                } else {
                    next[j].max(row[j + 1])
                };
            }
            row = next;
        }
        row[b.len()]
    }

    proptest! {
        #[test]
        fn as_many_lines_as_can_be_are_common(
            a in prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 0..9),
            b in prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 0..9),
        ) {
            let mut out = Vec::new();
            middle(&a, &b, &mut out);
            let common = out.iter().filter(|(mark, _)| *mark == ' ').count();
            prop_assert_eq!(common, most_in_common(&a, &b));
        }
    }

    proptest! {
        #[test]
        fn both_texts_can_be_read_from_the_difference(a in "[ab\n]{0,30}", b in "[abü\n]{0,30}") {
            let (left, right): (Vec<_>, Vec<_>) = (a.split('\n').collect(), b.split('\n').collect());
            let mut out = Vec::new();
            middle(&left, &right, &mut out);
            let side = |not: char| out.iter().filter(|(mark, _)| *mark != not).map(|(_, line)| *line).collect::<Vec<_>>();
            prop_assert_eq!(side('+'), left.clone());
            prop_assert_eq!(side('-'), right.clone());
            let common = out.iter().filter(|(mark, _)| *mark == ' ').count();
            prop_assert_eq!(common, most_in_common(&left, &right));
            let _ = lines(&a, &b);
        }
    }
}
