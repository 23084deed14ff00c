//! Counts the splits of a string: the points at which a match can continue in two ways. YARA limits
//! their number. Also finds the long gaps at which YARA divides a string.

use boreal_parser::hex_string::{Jump, Token};
use boreal_parser::regex::{Node, RepetitionKind, RepetitionRange};

/// The maximum number of splits in each part of a regular expression or hex string. Long gaps
/// separate the parts.
pub(super) const MAX_SPLITS: usize = 128;

/// The maximum length of a short gap. YARA compiles the parts before and after a longer gap as
/// separate strings.
const LONG_GAP: u32 = 200;

/// The upper limit that YARA uses for a repetition without one.
const ENDLESS: u32 = 32_767;

pub(super) fn of_hex(tokens: &[Token]) -> usize {
    let splits = |token: &Token| match token {
        Token::Alternatives(all) => {
            all.len().saturating_sub(1) + all.iter().map(|one| of_hex(one)).sum::<usize>()
        }
        _ => 0,
    };
    let parts = tokens.split(is_long_jump);
    parts
        .map(|part| part.iter().map(splits).sum())
        .max()
        .unwrap_or(0)
}

pub(super) fn of_regex(node: &Node) -> usize {
    let nodes = match node {
        Node::Concat(nodes) => nodes.as_slice(),
        other => std::slice::from_ref(other),
    };
    let parts = nodes.split(is_long_gap);
    parts.map(sum).max().unwrap_or(0)
}

fn sum(nodes: &[Node]) -> usize {
    nodes.iter().map(splits).fold(0, usize::saturating_add)
}

fn splits(node: &Node) -> usize {
    match node {
        Node::Group(inner) => splits(inner),
        Node::Concat(nodes) => sum(nodes),
        Node::Alternation(all) => sum(all).saturating_add(all.len().saturating_sub(1)),
        Node::Repetition { node, kind, .. } => match (kind, rounds(kind)) {
            (RepetitionKind::ZeroOrMore | RepetitionKind::OneOrMore, _) => {
                splits(node).saturating_add(1)
            }
            _ if **node == Node::Dot => 0,
            (_, (least, most)) => {
                // YARA emits the code for the repeated part up to three times.
                let copies = usize::from(least > 0)
                    + usize::from(most > least + 1 || most > 2)
                    + usize::from(most > least || most > 1);
                let own = usize::from(most > least);
                splits(node).saturating_mul(copies).saturating_add(own)
            }
        },
        _ => 0,
    }
}

/// Returns whether the token is a jump that divides a hex string.
pub(super) fn is_long_jump(token: &Token) -> bool {
    match token {
        Token::Jump(Jump { from, to }) => *from > LONG_GAP || to.is_none_or(|to| to > LONG_GAP),
        _ => false,
    }
}

/// Returns whether the node is a repetition such as `.{0,300}?` that divides a regular expression.
pub(super) fn is_long_gap(node: &Node) -> bool {
    match node {
        Node::Repetition {
            node,
            kind: kind @ RepetitionKind::Range(_),
            greedy: false,
        } => **node == Node::Dot && rounds(kind).1 > LONG_GAP,
        _ => false,
    }
}

/// Returns the minimum and the maximum count of a repetition.
pub(super) fn rounds(kind: &RepetitionKind) -> (u32, u32) {
    match kind {
        RepetitionKind::ZeroOrOne => (0, 1),
        RepetitionKind::ZeroOrMore => (0, ENDLESS),
        RepetitionKind::OneOrMore => (1, ENDLESS),
        RepetitionKind::Range(RepetitionRange::Exactly(count)) => (*count, *count),
        RepetitionKind::Range(RepetitionRange::AtLeast(least)) => (*least, ENDLESS),
        RepetitionKind::Range(RepetitionRange::Bounded(least, most)) => (*least, *most),
    }
}
