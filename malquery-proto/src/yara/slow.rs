//! Detects strings that slow down scanning according to YARA's criteria.
//!
//! YARA first searches for short byte sequences from each string, called atoms. A string whose
//! atoms are too short or too common is slow. The scores come from YARA's `atoms.c`.

use boreal_parser::hex_string::{Jump, Mask, Token};
use boreal_parser::regex::{Node, RepetitionKind, RepetitionRange};
use boreal_parser::rule::{VariableDeclaration, VariableDeclarationValue as Value};

use super::splits::{is_long_gap, is_long_jump, rounds};

/// The maximum length of an atom in bytes.
const ATOM: usize = 4;

/// The minimum score of a string that is not slow.
const ENOUGH: i32 = 38;

/// A byte, and a mask of its known bits.
type Masked = (u8, u8);

/// An element of a string: a byte, a gap, alternatives or a repetition.
enum Piece {
    Byte(Masked),
    /// A gap, which ends an atom.
    Gap,
    /// A long gap, which splits the string.
    Split,
    Either(Vec<Vec<Piece>>),
    /// A repetition, with its minimum count.
    Many(Vec<Piece>, u32),
}

/// Returns whether the string may slow down scanning. A string with `base64` is not checked.
pub(super) fn is_slow(string: &VariableDeclaration) -> bool {
    let modifiers = &string.modifiers;
    if modifiers.base64.is_some() {
        return false;
    }
    let pieces = match &string.value {
        Value::Bytes(bytes) => bytes
            .iter()
            .map(|byte| Piece::Byte((*byte, 0xff)))
            .collect(),
        Value::Regex(regex) => of_regex(&regex.ast),
        Value::HexString(tokens) => of_hex(tokens),
    };
    pieces
        .split(|piece| matches!(piece, Piece::Split))
        .filter(|part| !part.is_empty())
        .any(|part| {
            let literal: Option<Vec<u8>> = part
                .iter()
                .map(|piece| match piece {
                    Piece::Byte((byte, 0xff)) => Some(*byte),
                    _ => None,
                })
                .collect();
            let points = match literal {
                Some(bytes) => {
                    let is_ascii = modifiers.ascii || !modifiers.wide;
                    literal_points(&bytes, is_ascii, modifiers.wide, modifiers.xor)
                }
                None => points(part),
            };
            points.is_none_or(|points| points < ENOUGH)
        })
}

/// Returns whether the regular expression repeats `.` without an upper limit, outside alternatives
/// and other repetitions.
pub(super) fn is_endless(node: &Node) -> bool {
    match node {
        Node::Repetition { node, kind, .. } if matches!(**node, Node::Dot) => matches!(
            kind,
            RepetitionKind::ZeroOrMore
                | RepetitionKind::OneOrMore
                | RepetitionKind::Range(RepetitionRange::AtLeast(_))
        ),
        Node::Concat(all) => all.iter().any(is_endless),
        Node::Group(inner) => is_endless(inner),
        _ => false,
    }
}

fn of_hex(tokens: &[Token]) -> Vec<Piece> {
    let last = tokens.len().saturating_sub(1);
    let piece = |(at, token): (usize, &Token)| match token {
        Token::Byte(byte) => Piece::Byte((*byte, 0xff)),
        Token::MaskedByte(_, Mask::All) => Piece::Byte((0, 0)),
        Token::MaskedByte(byte, Mask::Left) => Piece::Byte((*byte, 0x0f)),
        Token::MaskedByte(byte, Mask::Right) => Piece::Byte((*byte, 0xf0)),
        Token::NotByte(_) | Token::NotMaskedByte(..) => Piece::Gap,
        Token::Jump(Jump {
            from: 1,
            to: Some(1),
        }) => Piece::Byte((0, 0)),
        Token::Jump(_) if is_long_jump(token) && at > 0 && at < last => Piece::Split,
        Token::Jump(_) => Piece::Gap,
        Token::Alternatives(all) => Piece::Either(all.iter().map(|one| of_hex(one)).collect()),
    };
    tokens.iter().enumerate().map(piece).collect()
}

fn of_regex(node: &Node) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let nodes = match node {
        Node::Concat(nodes) => nodes.as_slice(),
        other => std::slice::from_ref(other),
    };
    for (at, node) in nodes.iter().enumerate() {
        match node {
            Node::Literal(literal) => pieces.push(Piece::Byte((literal.byte, 0xff))),
            Node::Char(literal) => {
                let mut buffer = [0; 4];
                let bytes = literal.c.encode_utf8(&mut buffer).bytes();
                pieces.extend(bytes.map(|byte| Piece::Byte((byte, 0xff))));
            }
            Node::Dot => pieces.push(Piece::Byte((0, 0))),
            Node::Class(_) | Node::Assertion(_) | Node::Empty => pieces.push(Piece::Gap),
            Node::Group(inner) => pieces.extend(of_regex(inner)),
            Node::Concat(_) => pieces.extend(of_regex(node)),
            Node::Alternation(all) => {
                pieces.push(Piece::Either(all.iter().map(of_regex).collect()));
            }
            Node::Repetition {
                node: part, kind, ..
            } => pieces.push(match kind {
                _ if is_long_gap(node) && at > 0 && at + 1 < nodes.len() => Piece::Split,
                RepetitionKind::ZeroOrMore => Piece::Gap,
                RepetitionKind::Range(_) | RepetitionKind::ZeroOrOne if **part == Node::Dot => {
                    Piece::Gap
                }
                _ => Piece::Many(of_regex(part), rounds(kind).0),
            }),
        }
    }
    pieces
}

/// Returns the score of the best atom of a byte sequence, or of the worst `wide` or `xor` variant
/// of that atom if it scores lower. Returns `None` if there are no bytes.
fn literal_points(
    bytes: &[u8],
    is_ascii: bool,
    is_wide: bool,
    xor: Option<(u8, u8)>,
) -> Option<i32> {
    let whole = |bytes: &[u8]| bytes.iter().map(|byte| (*byte, 0xff)).collect::<Vec<_>>();
    let windows = bytes.windows(ATOM.min(bytes.len()).max(1));
    // If several atoms tie for the best score, the first counts.
    let best = windows.rev().max_by_key(|atom| atom_points(&whole(atom)));
    let atom = best?;
    let mut atoms = Vec::new();
    if is_ascii {
        atoms.push(atom.to_vec());
    }
    if is_wide {
        atoms.push(
            atom.iter()
                .take(ATOM / 2)
                .flat_map(|byte| [*byte, 0])
                .collect(),
        );
    }
    let mut least = atom_points(&whole(atom));
    for key in xor.map_or(0..=0, |(first, last)| first..=last) {
        for atom in &atoms {
            let atom: Vec<u8> = atom.iter().map(|byte| byte ^ key).collect();
            least = least.min(atom_points(&whole(&atom)));
        }
    }
    Some(least)
}

/// Returns the score of the best atom, or `None` if there is no atom.
fn points(pieces: &[Piece]) -> Option<i32> {
    let mut search = Search::default();
    search.walk(pieces);
    search.end_atom();
    search.best
}

#[derive(Default)]
struct Search {
    recent: Vec<Masked>,
    best: Option<i32>,
}

impl Search {
    fn walk(&mut self, pieces: &[Piece]) {
        for piece in pieces {
            match piece {
                Piece::Byte(byte) => {
                    if self.recent.len() == ATOM {
                        self.score();
                        self.recent.remove(0);
                    }
                    self.recent.push(*byte);
                }
                Piece::Gap | Piece::Split => self.end_atom(),
                Piece::Either(all) => {
                    self.end_atom();
                    // YARA must search for an atom of every alternative, so the worst one counts.
                    let worst = all.iter().map(|one| points(one)).min().flatten();
                    self.best = self.best.max(worst);
                }
                Piece::Many(pieces, times) => {
                    for _ in 0..(*times).min(ATOM as u32) {
                        self.walk(pieces);
                    }
                    self.end_atom();
                }
            }
        }
    }

    fn end_atom(&mut self) {
        self.score();
        self.recent.clear();
    }

    fn score(&mut self) {
        let known = |(_, mask): &Masked| *mask != 0;
        let Some(first) = self.recent.iter().position(known) else {
            return;
        };
        let last = self.recent.iter().rposition(known).unwrap_or(first);
        let atom = &self.recent[first..=last];
        let unknown = atom.iter().filter(|byte| !known(byte)).count();
        let full = atom.iter().filter(|(_, mask)| *mask == 0xff).count();
        let atom = if unknown >= full { &atom[..1] } else { atom };
        self.best = self.best.max(Some(atom_points(atom)));
    }
}

fn atom_points(atom: &[Masked]) -> i32 {
    let mut points = 0;
    let mut seen: Vec<u8> = Vec::new();
    for &(byte, mask) in atom {
        points += match (mask, byte) {
            (0xff, 0x00 | 0x20 | 0xcc | 0xff) => 12,
            (0xff, b'a'..=b'z' | b'A'..=b'Z') => 18,
            (0xff, _) => 20,
            (0, _) => -10,
            _ => 4,
        };
        if mask == 0xff && !seen.contains(&byte) {
            seen.push(byte);
        }
    }
    match seen.as_slice() {
        [0x00 | 0x20 | 0x90 | 0xcc | 0xff] => points - 10 * atom.len() as i32,
        _ => points + 2 * seen.len() as i32,
    }
}
