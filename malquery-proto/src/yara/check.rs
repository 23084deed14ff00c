//! Rejects source that boreal accepts but YARA does not.

use std::ops::Range;

use boreal_parser::expression::{
    Expression, ExpressionKind as E, ForIterator, ForSelection, Identifier,
    IdentifierOperationType as Operation, RuleSet,
};
use boreal_parser::file::{YaraFile, YaraFileComponent};
use boreal_parser::rule::{VariableDeclaration, VariableDeclarationValue};

use super::error::{RuleError, Warning};
use super::file::RuleFile;
use super::lexer::{Kind, RESERVED};
use super::regex;
use super::splits::{self, MAX_SPLITS};
use super::warn::{HashFunction, hash_fault, hash_function};

/// The maximum nesting depth of loops.
const MAX_LOOPS: usize = 4;

/// The maximum depth of the walk through a condition. boreal later rejects a deeper condition.
const MAX_DEPTH: usize = 1000;

/// The maximum number of variables in a loop.
const MAX_VARIABLES: usize = 2;

type Fault = (Range<usize>, String);

fn fault<T>(span: &Range<usize>, why: impl Into<String>) -> Result<T, Fault> {
    Err((span.clone(), why.into()))
}

fn is_reserved(word: &str) -> bool {
    RESERVED.split(' ').any(|reserved| reserved == word)
}

fn reserved<T>(span: &Range<usize>, word: &str) -> Result<T, Fault> {
    fault(
        span,
        format!("`{word}` is a reserved word and cannot be used as a name"),
    )
}

/// Checks names, regular expressions and hex strings, without a syntax tree.
pub(super) fn tokens(file: &RuleFile) -> Result<(), RuleError> {
    token_faults(file).map_err(|(span, why)| RuleError::invalid(file.text(), span, why))
}

fn token_faults(file: &RuleFile) -> Result<(), Fault> {
    for (at, token) in file.tokens.iter().enumerate() {
        let word = file.written(at);
        match token.kind {
            Kind::Regex => {
                let is_string = file.is(at.wrapping_sub(1), "=");
                let end = word.rfind('/').unwrap_or(word.len());
                regex::check(&word[1..end], is_string).map_err(|(span, why)| {
                    let start = token.span.start + 1;
                    (start + span.start..start + span.end, why)
                })?;
            }
            Kind::Hex => hex_jumps(word).map_err(|(span, why)| {
                let start = token.span.start;
                (start + span.start..start + span.end, why)
            })?,
            Kind::Word if is_reserved(word) && file.is(at + 1, "=") => {
                return reserved(&token.span, word);
            }
            _ => {}
        }
    }
    for rule in file.rules() {
        if is_reserved(rule.name()) {
            return reserved(&rule.name_span, rule.name());
        }
        let mut tags = rule.tags.clone();
        if let Some(tag) = tags.find(|&tag| is_reserved(file.written(tag))) {
            return reserved(&file.tokens[tag].span, file.written(tag));
        }
    }
    Ok(())
}

/// Rejects jumps such as `[-5]` and `[0]`. Comments are skipped, except inside a jump.
fn hex_jumps(hex: &str) -> Result<(), Fault> {
    let mut at = 0;
    while let Some(open) = hex[at..].find(['[', '/']).map(|found| at + found) {
        let rest = &hex[open..];
        let end = match rest.as_bytes() {
            [b'/', b'/', ..] => rest.find('\n'),
            [b'/', ..] => rest[2..].find("*/").map(|end| end + 4),
            _ => rest.find(']'),
        };
        let Some(end) = end else {
            return Ok(());
        };
        let jump = rest[..end].trim_start_matches('[').trim();
        if rest.starts_with('[') && jump.len() > 1 && jump.starts_with('-') {
            return fault(
                &(open..open + end),
                "a jump needs a lower bound, as in `[0-5]`",
            );
        }
        if rest.starts_with('[') && !jump.is_empty() && jump.bytes().all(|digit| digit == b'0') {
            return fault(&(open..open + end), "a jump of 0 bytes is not allowed");
        }
        at = open + end;
    }
    Ok(())
}

/// Checks strings, and the loops, names, comparisons and constant numbers in conditions, using the
/// syntax tree. Returns warnings about hashes.
pub(super) fn conditions(file: &RuleFile, parsed: &YaraFile) -> Result<Vec<Warning>, RuleError> {
    let mut walk = Walk::default();
    for component in &parsed.components {
        if let YaraFileComponent::Rule(rule) = component {
            let strings = rule.variables.iter().try_for_each(string_faults);
            strings
                .and_then(|()| walk.expression(&rule.condition))
                .map_err(|(span, why)| RuleError::invalid(file.text(), span, why))?;
        }
    }
    let warning = |(at, why)| Warning::new(file.text(), at, why);
    Ok(walk.warnings.into_iter().map(warning).collect())
}

fn string_faults(string: &VariableDeclaration) -> Result<(), Fault> {
    let splits = match &string.value {
        VariableDeclarationValue::Regex(regex) => splits::of_regex(&regex.ast),
        VariableDeclarationValue::HexString(tokens) => splits::of_hex(tokens),
        VariableDeclarationValue::Bytes(bytes) if bytes.is_empty() => {
            return fault(&string.span, "the string is empty");
        }
        VariableDeclarationValue::Bytes(_) => 0,
    };
    few_splits(&string.span, splits)
}

fn few_splits(span: &Range<usize>, splits: usize) -> Result<(), Fault> {
    match splits > MAX_SPLITS {
        true => fault(
            span,
            format!(
                "too many alternatives and repetitions: YARA counts them as {splits} splits, but \
                 allows at most {MAX_SPLITS}"
            ),
        ),
        false => Ok(()),
    }
}

#[derive(Default)]
struct Walk {
    depth: usize,
    loops: usize,
    is_in_strings: bool,
    /// The hash function that was visited last.
    hash: Option<HashFunction>,
    /// The number of visited calls to hash functions.
    hashes: usize,
    warnings: Vec<(usize, String)>,
}

/// The value of an expression, if it is a constant integer.
type Value = Result<Option<i64>, Fault>;

impl Walk {
    fn expression(&mut self, expression: &Expression) -> Value {
        if self.depth == MAX_DEPTH {
            return Ok(None);
        }
        self.depth += 1;
        let value = self.value(expression);
        self.depth -= 1;
        value
    }

    fn value(&mut self, expression: &Expression) -> Value {
        let span = &expression.span;
        match &expression.expr {
            E::Integer(value) => return Ok(Some(*value)),
            E::Neg(inner) => return Ok(self.expression(inner)?.map(i64::wrapping_neg)),
            E::BitwiseNot(inner) => return Ok(self.expression(inner)?.map(|value| !value)),
            E::Add(left, right) => return self.number(span, left, right, i64::checked_add),
            E::Sub(left, right) => return self.number(span, left, right, i64::checked_sub),
            E::Mul(left, right) => return self.number(span, left, right, i64::checked_mul),
            E::Div(left, right) | E::Mod(left, right) => {
                let left = self.expression(left)?;
                let divisor = self.expression(right)?;
                if divisor == Some(0) {
                    return fault(span, "division by zero");
                }
                let (Some(left), Some(divisor)) = (left, divisor) else {
                    return Ok(None);
                };
                let value = match expression.expr {
                    E::Div(..) => left.checked_div(divisor),
                    _ => Some(left.wrapping_rem(divisor)),
                };
                return match value {
                    Some(value) => Ok(Some(value)),
                    None => fault(span, "the result does not fit in a signed 64-bit integer"),
                };
            }
            E::BitwiseXor(left, right) => {
                return self.number(span, left, right, |l, r| Some(l ^ r));
            }
            E::BitwiseAnd(left, right) => {
                return self.number(span, left, right, |l, r| Some(l & r));
            }
            E::BitwiseOr(left, right) => return self.number(span, left, right, |l, r| Some(l | r)),
            E::ShiftLeft(left, right) | E::ShiftRight(left, right) => {
                let left = self.expression(left)?;
                let Some(count) = self.expression(right)? else {
                    return Ok(None);
                };
                if count < 0 {
                    return fault(span, "a shift count cannot be negative");
                }
                let is_left = matches!(expression.expr, E::ShiftLeft(..));
                return Ok(left.map(|left| match u32::try_from(count) {
                    Ok(count @ 0..64) if is_left => left.wrapping_shl(count),
                    Ok(count @ 0..64) => left.wrapping_shr(count),
                    _ => 0,
                }));
            }
            E::ReadInteger { addr, .. } => drop(self.expression(addr)?),
            E::Defined(inner) | E::Not(inner) => drop(self.expression(inner)?),
            E::Matches(inner, regex) => {
                self.expression(inner)?;
                few_splits(&regex.span, splits::of_regex(&regex.ast))?;
            }
            E::Regex(regex) => few_splits(&regex.span, splits::of_regex(&regex.ast))?,
            E::And(all) | E::Or(all) => {
                for one in all {
                    self.expression(one)?;
                }
            }
            E::Eq(left, right) | E::NotEq(left, right) => {
                for (call, compared) in [(left, right), (right, left)] {
                    if let E::Identifier(identifier) = &call.expr
                        && let Some(function) = hash_function(identifier)
                    {
                        self.compared(function, compared);
                    }
                }
                self.operands(left, right)?;
            }
            E::Cmp { left, right, .. } => self.operands(left, right)?,
            E::IEquals(left, right)
            | E::Contains {
                haystack: left,
                needle: right,
                ..
            }
            | E::StartsWith {
                expr: left,
                prefix: right,
                ..
            }
            | E::EndsWith {
                expr: left,
                suffix: right,
                ..
            } => {
                self.expression(left)?;
                self.expression(right)?;
            }
            E::Variable(name) | E::Count(name) => self.string(span, name)?,
            E::Offset {
                variable_name: name,
                occurence_number: inner,
            }
            | E::Length {
                variable_name: name,
                occurence_number: inner,
            }
            | E::VariableAt {
                variable_name: name,
                offset: inner,
                ..
            } => {
                self.string(span, name)?;
                self.expression(inner)?;
            }
            E::CountInRange {
                variable_name: name,
                from,
                to,
                ..
            }
            | E::VariableIn {
                variable_name: name,
                from,
                to,
                ..
            } => {
                self.string(span, name)?;
                self.range(from, to)?;
            }
            E::For {
                selection, body, ..
            } => {
                self.selection(span, selection, body.is_none())?;
                if let Some(body) = body {
                    if self.is_in_strings {
                        return fault(span, "loops over strings cannot be nested");
                    }
                    self.is_in_strings = true;
                    self.body(span, body)?;
                    self.is_in_strings = false;
                }
            }
            E::ForIn {
                selection,
                from,
                to,
                ..
            } => {
                self.selection(span, selection, false)?;
                self.range(from, to)?;
            }
            E::ForAt {
                selection, offset, ..
            } => {
                self.selection(span, selection, false)?;
                self.expression(offset)?;
            }
            E::ForRules { selection, set } => {
                self.selection(span, selection, true)?;
                rule_names(set)?;
            }
            E::ForIdentifiers {
                selection,
                identifiers,
                identifiers_span,
                iterator,
                body,
                ..
            } => {
                self.selection(span, selection, false)?;
                if let Some(name) = identifiers.iter().find(|name| is_reserved(name)) {
                    return reserved(identifiers_span, name);
                }
                if identifiers.len() > MAX_VARIABLES {
                    return fault(identifiers_span, "a loop can have at most two variables");
                }
                match iterator {
                    ForIterator::Identifier(identifier) => self.identifier(identifier)?,
                    ForIterator::Range { from, to } => self.range(from, to)?,
                    ForIterator::List(list) => {
                        for one in list {
                            self.expression(one)?;
                        }
                    }
                }
                let before = self.hashes;
                self.body(span, body)?;
                if let (ForIterator::List(list), Some(function)) = (iterator, self.hash)
                    && self.hashes > before
                {
                    list.iter().for_each(|one| self.compared(function, one));
                }
            }
            E::Identifier(identifier) => self.identifier(identifier)?,
            E::Filesize | E::Entrypoint | E::Double(_) | E::Boolean(_) | E::Bytes(_) => {}
        }
        Ok(None)
    }

    /// Checks the operands of a comparison. YARA cannot compare booleans, such as `true`, `$a`
    /// and expressions with `and`, `of` or `==`.
    fn operands(&mut self, left: &Expression, right: &Expression) -> Result<(), Fault> {
        for operand in [left, right] {
            let is_boolean = matches!(
                operand.expr,
                E::Boolean(_)
                    | E::Not(_)
                    | E::Defined(_)
                    | E::And(_)
                    | E::Or(_)
                    | E::Cmp { .. }
                    | E::Eq(..)
                    | E::NotEq(..)
                    | E::IEquals(..)
                    | E::Contains { .. }
                    | E::StartsWith { .. }
                    | E::EndsWith { .. }
                    | E::Matches(..)
                    | E::Variable(_)
                    | E::VariableAt { .. }
                    | E::VariableIn { .. }
                    | E::For { .. }
                    | E::ForIn { .. }
                    | E::ForAt { .. }
                    | E::ForRules { .. }
                    | E::ForIdentifiers { .. }
            );
            if is_boolean {
                return fault(&operand.span, "a boolean cannot be compared");
            }
            self.expression(operand)?;
        }
        Ok(())
    }

    /// Rejects `$`, `#`, `@` and `!` without a name outside a loop over strings.
    fn string(&self, span: &Range<usize>, name: &str) -> Result<(), Fault> {
        match name.is_empty() && !self.is_in_strings {
            true => fault(
                span,
                "a condition can omit the name of a string only in a loop over strings",
            ),
            false => Ok(()),
        }
    }

    fn number(
        &mut self,
        span: &Range<usize>,
        left: &Expression,
        right: &Expression,
        operation: impl Fn(i64, i64) -> Option<i64>,
    ) -> Value {
        let (left, right) = (self.expression(left)?, self.expression(right)?);
        let (Some(left), Some(right)) = (left, right) else {
            return Ok(None);
        };
        match operation(left, right) {
            Some(value) => Ok(Some(value)),
            None => fault(span, "the result does not fit in a signed 64-bit integer"),
        }
    }

    fn range(&mut self, from: &Expression, to: &Expression) -> Result<(), Fault> {
        let (first, last) = (self.expression(from)?, self.expression(to)?);
        match (first, last) {
            (Some(first), Some(last)) if first > last => fault(
                &(from.span.start..to.span.end),
                "the start of the range is greater than its end",
            ),
            (Some(first), Some(_)) if first < 0 => {
                fault(&from.span, "a range cannot start below zero")
            }
            _ => Ok(()),
        }
    }

    fn selection(
        &mut self,
        span: &Range<usize>,
        selection: &ForSelection,
        may_be_percentage: bool,
    ) -> Result<(), Fault> {
        let ForSelection::Expr { expr, as_percent } = selection else {
            return Ok(());
        };
        let value = self.expression(expr)?;
        if *as_percent && !may_be_percentage {
            return fault(span, "a percentage is not allowed here");
        }
        match value {
            Some(value) if *as_percent && !(1..=100).contains(&value) => {
                fault(&expr.span, "a percentage must be between 1 and 100")
            }
            Some(value) if value < 0 => fault(&expr.span, "a count cannot be negative"),
            _ => Ok(()),
        }
    }

    fn compared(&mut self, function: HashFunction, compared: &Expression) {
        let why = hash_fault(function, compared);
        self.warnings
            .extend(why.map(|why| (compared.span.start, why)));
    }

    fn body(&mut self, span: &Range<usize>, body: &Expression) -> Result<(), Fault> {
        self.loops += 1;
        if self.loops > MAX_LOOPS {
            return fault(
                span,
                format!("loops can be nested at most {MAX_LOOPS} levels deep"),
            );
        }
        self.expression(body)?;
        self.loops -= 1;
        Ok(())
    }

    fn identifier(&mut self, identifier: &Identifier) -> Result<(), Fault> {
        if is_reserved(&identifier.name) {
            return reserved(&identifier.name_span, &identifier.name);
        }
        if let Some(function) = hash_function(identifier) {
            self.hash = Some(function);
            self.hashes += 1;
        }
        for operation in &identifier.operations {
            match &operation.op {
                Operation::Subfield(name) if is_reserved(name) => {
                    return reserved(&operation.span, name);
                }
                Operation::Subfield(_) => {}
                Operation::Subscript(index) => drop(self.expression(index)?),
                Operation::FunctionCall(arguments) => {
                    for argument in arguments {
                        self.expression(argument)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn rule_names(set: &RuleSet) -> Result<(), Fault> {
    let mut elements = set.elements.iter();
    let found = elements.find(|element| is_reserved(&element.name));
    found.map_or(Ok(()), |element| reserved(&element.span, &element.name))
}
