//! Finds probable mistakes that YARA accepts.

use boreal_parser::expression::{Expression, ExpressionKind, Identifier, IdentifierOperationType};
use boreal_parser::file::{YaraFile, YaraFileComponent};
use boreal_parser::hex_string::{Jump, Token};
use boreal_parser::regex::Node;
use boreal_parser::rule::{VariableDeclaration, VariableDeclarationValue as Value};

use super::error::Warning;
use super::file::RuleFile;
use super::slow;
use super::splits::rounds;

/// The maximum size of the source in bytes that causes no warning.
const LONG_TEXT: usize = 64 * 1024;

/// The minimum length of a string in bytes that causes no warning. MalQuery's index most likely
/// consists of four-byte sequences.
const SHORT_STRING: usize = 4;

/// Returns the warnings about the source, its rules and its strings.
pub(super) fn warnings(file: &RuleFile, main: Option<usize>, parsed: &YaraFile) -> Vec<Warning> {
    let text = file.text();
    let mut found = Vec::new();
    if text.len() > LONG_TEXT {
        let size = text.len().div_ceil(1024);
        let why = format!(
            "the source is {size} KiB long, but the service may reject a source larger than 64 KiB"
        );
        found.push(Warning::new(text, 0, why));
    }
    for (index, rule) in file.rules().iter().enumerate() {
        if Some(index) != main && !rule.is_private() && !rule.is_global() {
            let why = format!(
                "the rule `{}` is not private, so the hunt also finds samples that match only this rule",
                rule.name()
            );
            found.push(Warning::new(text, rule.name_span.start, why));
        }
    }
    for component in &parsed.components {
        if let YaraFileComponent::Rule(rule) = component {
            for string in &rule.variables {
                let warning = |why| Warning::new(text, string.span.start, why);
                found.extend(short(string).map(warning));
                found.extend(slow(string).map(warning));
            }
        }
    }
    found
}

fn short(string: &VariableDeclaration) -> Option<String> {
    let VariableDeclaration {
        value, modifiers, ..
    } = string;
    let length = match value {
        Value::Bytes(_) if modifiers.base64.is_some() => return None,
        Value::Bytes(bytes) => bytes.len(),
        Value::Regex(regex) => regex_length(&regex.ast),
        Value::HexString(tokens) => hex_length(tokens),
    };
    let length = match modifiers.wide && !modifiers.ascii {
        true => length.saturating_mul(2),
        false => length,
    };
    (length < SHORT_STRING).then(|| {
        let bytes = if length == 1 { "byte" } else { "bytes" };
        format!(
            "the string ${} can match as few as {length} {bytes}; a string of fewer than {SHORT_STRING} bytes may match \
             almost nothing or almost everything",
            string.name
        )
    })
}

fn slow(string: &VariableDeclaration) -> Option<String> {
    let name = &string.name;
    if slow::is_slow(string) {
        let why = "may slow down scanning; use a longer sequence of fixed bytes with at least two different values";
        return Some(format!("the string ${name} {why}"));
    }
    match &string.value {
        Value::Regex(regex) if slow::is_endless(&regex.ast) => Some(format!(
            "the string ${name} may slow down scanning: it contains .*, .+ or .{{N,}}; give the \
             repetition an upper limit"
        )),
        _ => None,
    }
}

/// Returns the minimum number of bytes that a hex string matches.
fn hex_length(tokens: &[Token]) -> usize {
    let length = |token: &Token| match token {
        Token::Byte(_) | Token::NotByte(_) | Token::MaskedByte(..) => 1,
        Token::NotMaskedByte(..) => 1,
        Token::Jump(Jump { from, .. }) => *from as usize,
        Token::Alternatives(all) => all.iter().map(|one| hex_length(one)).min().unwrap_or(0),
    };
    tokens.iter().map(length).fold(0, usize::saturating_add)
}

/// Returns the minimum number of bytes that a regular expression matches.
fn regex_length(node: &Node) -> usize {
    match node {
        Node::Assertion(_) | Node::Empty => 0,
        Node::Class(_) | Node::Dot | Node::Literal(_) => 1,
        Node::Char(literal) => literal.c.len_utf8(),
        Node::Group(inner) => regex_length(inner),
        Node::Alternation(all) => all.iter().map(regex_length).min().unwrap_or(0),
        Node::Concat(all) => all.iter().map(regex_length).fold(0, usize::saturating_add),
        Node::Repetition { node, kind, .. } => {
            regex_length(node).saturating_mul(rounds(kind).0 as usize)
        }
    }
}

/// A function that returns a hash as lowercase hex digits.
#[derive(Debug, Clone, Copy)]
pub(super) struct HashFunction {
    name: &'static str,
    digits: usize,
}

/// Returns the hash function that an identifier calls, if it calls one.
pub(super) fn hash_function(identifier: &Identifier) -> Option<HashFunction> {
    let [field, call] = identifier.operations.as_slice() else {
        return None;
    };
    let (IdentifierOperationType::Subfield(field), IdentifierOperationType::FunctionCall(_)) =
        (&field.op, &call.op)
    else {
        return None;
    };
    let (name, digits) = match (identifier.name.as_str(), field.as_str()) {
        ("hash", "md5") => ("hash.md5", 32),
        ("hash", "sha1") => ("hash.sha1", 40),
        ("hash", "sha256") => ("hash.sha256", 64),
        ("pe", "imphash") => ("pe.imphash", 32),
        ("elf", "import_md5") => ("elf.import_md5", 32),
        _ => return None,
    };
    Some(HashFunction { name, digits })
}

/// Returns the problem with a string that is compared with a hash, if there is one.
pub(super) fn hash_fault(function: HashFunction, compared: &Expression) -> Option<String> {
    let ExpressionKind::Bytes(bytes) = &compared.expr else {
        return None;
    };
    let HashFunction { name, digits } = function;
    if bytes.len() != digits || !bytes.iter().all(u8::is_ascii_hexdigit) {
        let why =
            format!("`{name}` returns {digits} hex digits, so its result never equals this string");
        return Some(why);
    }
    bytes.iter().any(u8::is_ascii_uppercase).then(|| {
        format!("`{name}` returns lowercase hex digits, so a hash with uppercase letters never matches; write it in lowercase")
    })
}
