//! Splits YARA source into rules, and finds their dependencies.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use super::error::{RuleError, RuleErrorKind};
use super::lexer::{Kind, Token, tokens};

/// The maximum number of rule names in an error message.
const MAX_NAMES: usize = 100;

/// YARA source with any number of rules, such as the contents of a rule file.
///
/// [`parse`](Self::parse) splits the source into rules. A hunt takes one rule.
/// [`select`](Self::select) extracts a rule, together with the rules and imports that it needs.
/// [`check`](Self::check) compiles the source.
///
/// ```
/// use malquery_proto::operations::Hunt;
/// use malquery_proto::yara::RuleFile;
///
/// let file = RuleFile::parse(
///     "private rule is_pe { condition: uint16(0) == 0x5a4d }
/// rule small_pe { condition: is_pe and filesize < 20KB }
/// rule note { strings: $a = \"ransom note\" nocase condition: $a }",
/// )?;
/// let names: Vec<_> = file.rules().iter().map(|rule| rule.name()).collect();
/// assert_eq!(names, ["is_pe", "small_pe", "note"]);
///
/// let rule = file.select("small_pe")?;
/// assert_eq!(
///     rule.text(),
///     "private rule is_pe { condition: uint16(0) == 0x5a4d }
/// rule small_pe { condition: is_pe and filesize < 20KB }\n",
/// );
/// assert!(rule.check()?.is_empty());
/// let hunt = Hunt::new(rule);
/// # Ok::<(), malquery_proto::yara::RuleError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct RuleFile {
    text: String,
    pub(super) tokens: Vec<Token>,
    /// The imports, includes and rules, in source order.
    parts: Vec<Part>,
    rules: Vec<RuleEntry>,
    /// The index of the selected rule.
    selected: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Import(Range<usize>, String),
    Include(Range<usize>),
    Rule(usize),
}

/// A rule in a [`RuleFile`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleEntry {
    name: String,
    is_private: bool,
    is_global: bool,
    span: Range<usize>,
    pub(super) name_span: Range<usize>,
    /// The token indices of the tags.
    pub(super) tags: Range<usize>,
    /// The token indices of the condition, without the closing brace.
    pub(super) condition: Range<usize>,
    /// The indices of the earlier rules to which the condition refers.
    needs: BTreeSet<usize>,
    /// The names before a dot in the condition, which are modules if they are imported.
    modules: BTreeSet<String>,
}

impl RuleEntry {
    /// Returns the name of the rule.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether the rule is private. Other rules may refer to a private rule, but it reports
    /// no matches itself.
    pub fn is_private(&self) -> bool {
        self.is_private
    }

    /// Returns whether the rule is global. If a global rule does not match a sample, no rule in the
    /// source matches that sample.
    pub fn is_global(&self) -> bool {
        self.is_global
    }

    /// Returns the byte range of the rule in the source, from its first keyword to its closing
    /// brace.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }
}

impl RuleFile {
    /// Splits YARA source into its rules, without compiling them.
    ///
    /// # Errors
    /// Fails if the source contains an invalid token, such as a string without a closing quote, or
    /// anything other than complete rules, imports, includes and comments.
    pub fn parse(text: impl Into<String>) -> Result<Self, RuleError> {
        let text = text.into();
        let tokens = tokens(&text)?;
        let mut file = Self {
            text,
            tokens,
            parts: Vec::new(),
            rules: Vec::new(),
            selected: None,
        };
        let mut at = 0;
        while at < file.tokens.len() {
            at = file.part(at)?;
        }
        let mut above = BTreeMap::new();
        for index in 0..file.rules.len() {
            file.resolve(index, &above);
            above.entry(file.rules[index].name.clone()).or_insert(index);
        }
        Ok(file)
    }

    /// Splits the contents of a file into rules. A UTF-8 byte order mark is allowed.
    ///
    /// # Errors
    /// See [`parse`](Self::parse). Also fails if the contents are not UTF-8, because rules are sent
    /// as JSON.
    ///
    /// ```
    /// use malquery_proto::yara::RuleFile;
    ///
    /// let error = RuleFile::from_bytes(b"rule a {\n  strings: $a = \"caf\xe9\" condition: $a }");
    /// let error = error.unwrap_err();
    /// assert_eq!((error.line(), error.column()), (2, 21));
    /// ```
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RuleError> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::parse(text),
            Err(error) => {
                let start = error.valid_up_to();
                let text = String::from_utf8_lossy(bytes);
                let why = format!("the byte 0x{:02x} is not valid UTF-8", bytes[start]);
                Err(RuleError::invalid(&text, start..start + 1, why))
            }
        }
    }

    /// Returns the source, without a byte order mark.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns all rules, in source order.
    pub fn rules(&self) -> &[RuleEntry] {
        &self.rules
    }

    /// Extracts one rule, the global rules, and every rule that they refer to, directly or
    /// indirectly. Also extracts the imports that any of these rules uses, and all includes.
    ///
    /// All parts are copied unchanged and in their original order, each on a new line. Comments
    /// between them are omitted.
    ///
    /// # Errors
    /// Fails if the source has no rule with this name, or if the rule is private.
    pub fn select(&self, name: &str) -> Result<Self, RuleError> {
        let found = self.rules.iter().position(|rule| rule.name == name);
        let Some(chosen) = found else {
            let why = match self.names() {
                names if names.is_empty() => "the source has no public rule".to_owned(),
                names => format!("there is no rule named `{name}`; select a public rule: {names}"),
            };
            return Err(self.selection_error(0..0, why));
        };
        if self.rules[chosen].is_private {
            let span = self.rules[chosen].name_span.clone();
            let why = format!("the rule `{name}` is private; select a public rule");
            return Err(self.selection_error(span, why));
        }
        let kept = self.closure(chosen);
        let uses = |module: &String| {
            kept.iter()
                .any(|&rule| self.rules[rule].modules.contains(module))
        };
        let mut imported = BTreeSet::new();
        let mut text = String::new();
        for part in &self.parts {
            let span = match part {
                Part::Import(span, module) if uses(module) && imported.insert(module) => span,
                Part::Include(span) => span,
                Part::Rule(index) if kept.contains(index) => &self.rules[*index].span,
                Part::Import(..) | Part::Rule(_) => continue,
            };
            text.push_str(&self.text[span.clone()]);
            text.push('\n');
        }
        let mut file = Self::parse(text)?;
        file.selected = file.rules.iter().position(|rule| rule.name == name);
        Ok(file)
    }

    /// Selects the only public, non-global rule to which no rule refers. If other rules refer to
    /// each of them, selects the last one. Otherwise, selects no rule.
    pub(crate) fn select_last(mut self) -> Self {
        let needed: BTreeSet<_> = self.rules.iter().flat_map(|rule| &rule.needs).collect();
        let (roots, others): (Vec<_>, Vec<_>) = (0..self.rules.len())
            .filter(|&index| !self.rules[index].is_private && !self.rules[index].is_global)
            .partition(|index| !needed.contains(index));
        self.selected = match (roots.as_slice(), others.last()) {
            ([root], _) => Some(*root),
            ([], Some(last)) => Some(*last),
            _ => None,
        };
        self
    }

    /// Returns the index of the rule to hunt for, or `None` if there is no public rule. Fails if no
    /// rule is selected and there are several public, non-global rules.
    pub(super) fn main(&self) -> Result<Option<usize>, RuleError> {
        if self.selected.is_some() {
            return Ok(self.selected);
        }
        let public = || (0..self.rules.len()).filter(|&index| !self.rules[index].is_private);
        let mut plain = public().filter(|&index| !self.rules[index].is_global);
        match (plain.next(), plain.next()) {
            (Some(_), Some(second)) => {
                let why = format!("a hunt takes one rule; select one of {}", self.names());
                Err(self.selection_error(self.rules[second].name_span.clone(), why))
            }
            // If all public rules are global, either all of them match or none do, so use any.
            (None, _) => Ok(public().next_back()),
            (rule, None) => Ok(rule),
        }
    }

    pub(super) fn no_rule(&self) -> RuleError {
        let why = match self.rules.is_empty() {
            true => "the source contains no rules",
            false => "all rules are private, so they report no matches; make one public",
        };
        self.selection_error(0..0, why)
    }

    fn selection_error(&self, span: Range<usize>, why: impl Into<String>) -> RuleError {
        RuleError::new(RuleErrorKind::Selection, &self.text, span, why)
    }

    /// Returns the names of the public rules, for a message.
    fn names(&self) -> String {
        let public = self.rules.iter().filter(|rule| !rule.is_private);
        let names: Vec<_> = public.map(|rule| rule.name.as_str()).collect();
        let shown = names[..names.len().min(MAX_NAMES)].join(", ");
        match names.len() - names.len().min(MAX_NAMES) {
            0 => shown,
            more => format!("{shown} and {more} more"),
        }
    }

    /// Returns the indices of a rule, the global rules, and all rules that they need.
    fn closure(&self, chosen: usize) -> BTreeSet<usize> {
        let globals = (0..self.rules.len()).filter(|&index| self.rules[index].is_global);
        let mut todo: Vec<_> = globals.chain([chosen]).collect();
        let mut kept = BTreeSet::new();
        while let Some(index) = todo.pop() {
            if kept.insert(index) {
                todo.extend(&self.rules[index].needs);
            }
        }
        kept
    }

    /// Returns the text of a token, or an empty string after the last token.
    pub(super) fn written(&self, token: usize) -> &str {
        self.tokens
            .get(token)
            .map_or("", |token| &self.text[token.span.clone()])
    }

    pub(super) fn is(&self, token: usize, written: &str) -> bool {
        self.tokens
            .get(token)
            .is_some_and(|token| token.is(&self.text, written))
    }

    pub(super) fn kind(&self, token: usize) -> Option<Kind> {
        self.tokens.get(token).map(|token| token.kind)
    }

    fn expected(&self, token: usize, what: &str) -> RuleError {
        let end = self.text.trim_end().len();
        let span = self
            .tokens
            .get(token)
            .map_or(end..end, |token| token.span.clone());
        RuleError::invalid(&self.text, span, format!("syntax error: expected {what}"))
    }

    /// Parses an import, an include or a rule. Returns the index of the next token.
    fn part(&mut self, first: usize) -> Result<usize, RuleError> {
        let start = self.tokens[first].span.start;
        if self.kind(first) == Some(Kind::Include) {
            self.parts
                .push(Part::Include(self.tokens[first].span.clone()));
            return Ok(first + 1);
        }
        if self.is(first, "import") {
            if self.kind(first + 1) != Some(Kind::Text) {
                return Err(self.expected(first + 1, "a module name in quotes"));
            }
            let end = self.tokens[first + 1].span.end;
            let module = self.written(first + 1).trim_matches('"').to_owned();
            self.parts.push(Part::Import(start..end, module));
            return Ok(first + 2);
        }
        let mut at = first;
        while self.is(at, "private") || self.is(at, "global") {
            at += 1;
        }
        let modifiers = first..at;
        if !self.is(at, "rule") {
            // The lexer joins the word and its file name.
            if self.is(at, "include") {
                return Err(self.expected(
                    at + 1,
                    "a space and a file name in quotes, on the same line as `include`",
                ));
            }
            let what = match modifiers.is_empty() {
                true => "`rule`, `private`, `global`, `import` or `include`",
                false => "`rule`",
            };
            return Err(self.expected(at, what));
        }
        let name = at + 1;
        if self.kind(name) != Some(Kind::Word) {
            return Err(self.expected(name, "the name of the rule"));
        }
        at += 2;
        let mut tags = at..at;
        if self.is(at, ":") {
            at += 1;
            tags.start = at;
            while self.kind(at) == Some(Kind::Word) {
                at += 1;
            }
        }
        tags.end = at;
        if !self.is(at, "{") {
            return Err(self.expected(at, "`{`"));
        }
        let mut condition = None;
        let mut depth = 1;
        while depth > 0 {
            at += 1;
            match self.written(at) {
                "" => return Err(self.expected(at, "`}`")),
                "{" => depth += 1,
                "}" => depth -= 1,
                "condition" if self.is(at + 1, ":") && condition.is_none() => {
                    condition = Some(at + 2);
                }
                _ => {}
            }
        }
        let condition = condition.ok_or_else(|| self.expected(at, "`condition:`"))?;
        self.parts.push(Part::Rule(self.rules.len()));
        self.rules.push(RuleEntry {
            name: self.written(name).to_owned(),
            is_private: modifiers.clone().any(|at| self.is(at, "private")),
            is_global: modifiers.clone().any(|at| self.is(at, "global")),
            span: start..self.tokens[at].span.end,
            name_span: self.tokens[name].span.clone(),
            tags,
            condition: condition.min(at)..at,
            needs: BTreeSet::new(),
            modules: BTreeSet::new(),
        });
        Ok(at + 1)
    }

    /// Finds the modules and the earlier rules to which a condition refers.
    fn resolve(&mut self, index: usize, above: &BTreeMap<String, usize>) {
        let mut needs = BTreeSet::new();
        let mut modules = BTreeSet::new();
        // The variables of the enclosing loops, and, for each open parenthesis, whether it opens
        // the body of a loop.
        let mut loops: Vec<Vec<&str>> = Vec::new();
        let mut bodies = Vec::new();
        let mut in_variables = false;
        for at in self.rules[index].condition.clone() {
            let word = self.written(at);
            match word {
                "for" => {
                    loops.push(Vec::new());
                    in_variables = true;
                }
                "in" | "of" => in_variables = false,
                "(" => bodies.push(self.is(at - 1, ":")),
                ")" if bodies.pop() == Some(true) => drop(loops.pop()),
                _ => {}
            }
            if self.kind(at) != Some(Kind::Word) || self.is(at - 1, ".") {
                continue;
            }
            let is_listed = self.is(at + 1, ",") || self.is(at + 1, "in");
            if self.is(at + 1, ".") {
                modules.insert(word.to_owned());
            } else if in_variables && is_listed {
                if let Some(names) = loops.last_mut() {
                    names.push(word);
                }
            } else if !loops.iter().flatten().any(|name| *name == word) {
                let is_prefix =
                    self.is(at + 1, "*") && (self.is(at + 2, ",") || self.is(at + 2, ")"));
                if is_prefix {
                    let from = above.range(word.to_owned()..);
                    let named = from.take_while(|(name, _)| name.starts_with(word));
                    needs.extend(named.map(|(_, rule)| rule));
                } else {
                    needs.extend(above.get(word));
                }
            }
        }
        self.rules[index].needs = needs;
        self.rules[index].modules = modules;
    }
}

impl fmt::Debug for RuleFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuleFile")
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

/// Converts a `RuleFile` into its source. This allows [`Hunt::new`](crate::operations::Hunt::new)
/// to accept a `RuleFile`.
impl From<RuleFile> for String {
    fn from(file: RuleFile) -> Self {
        file.text
    }
}
