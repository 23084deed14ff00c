//! Reads lists of samples from the command line, from files and from standard input.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use clap::Args;
use malquery_proto::types::Sha256;

use crate::input;
use crate::output::{Failure, excerpt};

/// The samples to request.
#[derive(Debug, Args)]
pub(crate) struct Samples {
    /// The SHA-256 of a sample
    #[arg(value_name = "SHA256", value_parser = hash)]
    samples: Vec<Sha256>,

    /// Read more hashes from this file, one per line; `-` is standard input. Comments (#), blank
    /// lines and the output of sha256sum are accepted
    #[arg(long, value_name = "FILE")]
    from: Vec<PathBuf>,
}

impl Samples {
    /// Returns whether neither a hash nor a file is given.
    pub(crate) fn is_empty(&self) -> bool {
        self.samples.is_empty() && self.from.is_empty()
    }

    /// Returns whether --from is given.
    pub(crate) fn is_from_file(&self) -> bool {
        !self.from.is_empty()
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        self.from.iter().map(PathBuf::as_path)
    }

    /// Returns the hashes from the arguments and then from the files, without duplicates.
    pub(crate) fn read(&self) -> Result<Vec<Sha256>, Failure> {
        if self.is_empty() {
            return Err(Failure::refused(
                "no sample was given; pass a SHA-256, or a list with --from FILE",
            ));
        }
        let mut all = self.samples.clone();
        for path in &self.from {
            let bytes = input::read(path)?;
            let found = parse(&String::from_utf8_lossy(&bytes)).map_err(|problems| {
                let name = input::name(path);
                let lines: Vec<_> = problems
                    .iter()
                    .map(|line| format!("\n{name}:{line}"))
                    .collect();
                let count = match problems.len() {
                    1 => "1 invalid line".to_owned(),
                    more => format!("{more} invalid lines"),
                };
                let lines = lines.concat();
                Failure::refused(format!("{name} has {count}; nothing was sent{lines}"))
            })?;
            if found.is_empty() {
                return Err(Failure::refused(format!(
                    "{} contains no hashes",
                    input::name(path)
                )));
            }
            all.extend(found);
        }
        let mut seen = HashSet::new();
        all.retain(|hash| seen.insert(*hash));
        Ok(all)
    }
}

/// Returns the hashes in a list. Fails with a message for each invalid line. Each message begins
/// with the line number.
fn parse(text: &str) -> Result<Vec<Sha256>, Vec<String>> {
    let mut found = Vec::new();
    let mut problems = Vec::new();
    for (number, line) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match hash(word(line)) {
            Ok(hash) => found.push(hash),
            Err(why) => problems.push(format!("{number}: {why}")),
        }
    }
    if problems.is_empty() {
        Ok(found)
    } else {
        Err(problems)
    }
}

/// Returns the word of a line that should be a hash, even in output from `sha256sum --tag`.
fn word(line: &str) -> &str {
    let tagged = line
        .strip_prefix("SHA256 (")
        .and_then(|rest| rest.rsplit_once(") = "));
    if let Some((_, hash)) = tagged {
        return hash;
    }
    // The line begins with a backslash if the file name is escaped.
    let line = line.strip_prefix('\\').unwrap_or(line);
    line.split_whitespace().next().unwrap_or_default()
}

/// Parses a SHA-256. The error message identifies an MD5, a SHA-1 or a SHA-512 by its length.
pub(crate) fn hash(text: &str) -> Result<Sha256, String> {
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let other = match text.len() {
        32 if is_hex => "an MD5",
        40 if is_hex => "a SHA-1",
        128 if is_hex => "a SHA-512",
        _ => {
            return text
                .parse()
                .map_err(|error| format!("{:?} is {error}", excerpt(text, 80)));
        }
    };
    Err(format!(
        "{text} is {other}; MalQuery identifies samples by SHA-256"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "abababababababababababababababababababababababababababababababab";

    #[test]
    fn lines_of_all_kinds_are_read() {
        for line in [
            A.to_owned(),
            A.to_uppercase(),
            format!("  {A}\r"),
            format!("\u{feff}{A}"),
            format!("{A}  a file.exe"),
            format!("{A} *a.exe"),
            format!("\\{A}  a\\nb"),
            format!("SHA256 (a) = b) = {A}"),
            format!("{A} # seen on Monday"),
            format!("# list\n\n\t\n{A}"),
        ] {
            assert_eq!(parse(&line).unwrap(), [A.parse().unwrap()], "{line}");
        }
    }

    #[test]
    fn all_bad_lines_are_named() {
        let md5 = "d4".repeat(16);
        let sha1 = "d4".repeat(20);
        let problems = parse(&format!("{A}\nnope\n#\n{md5}\n{sha1}\n{}", &A[1..])).unwrap_err();
        assert_eq!(problems.len(), 4);
        assert!(
            problems[0].starts_with("2: \"nope\" is not a SHA-256"),
            "{problems:?}"
        );
        assert!(problems[1].starts_with(&format!("4: {md5} is an MD5;")));
        assert!(problems[2].starts_with(&format!("5: {sha1} is a SHA-1;")));
        assert!(problems[3].starts_with("6: "));
    }
}
