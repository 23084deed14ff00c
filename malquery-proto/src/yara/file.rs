//! A text with YARA rules: which rules it has, and what each needs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use super::error::{RuleError, RuleErrorKind};
use super::lexer::{Kind, Token, tokens};

/// How many names an error lists.
const MAX_NAMES: usize = 100;

/// A text with YARA rules. A hunt takes one of them.
///
/// [`parse`](Self::parse) splits the text into rules. [`select`](Self::select) cuts out one rule
/// and what it needs. [`check`](Self::check) compiles the text as YARA does.
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
    /// Imports, includes and rules, in the order of the text.
    parts: Vec<Part>,
    rules: Vec<RuleEntry>,
    /// The rule that was selected.
    selected: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Import(Range<usize>, String),
    Include(Range<usize>),
    Rule(usize),
}

/// A rule of a [`RuleFile`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleEntry {
    name: String,
    is_private: bool,
    is_global: bool,
    span: Range<usize>,
    pub(super) name_span: Range<usize>,
    /// Indices of the tokens that are its tags.
    pub(super) tags: Range<usize>,
    /// Indices of the tokens between the braces.
    pub(super) body: Range<usize>,
    /// Indices of the tokens of the condition. They end with the body.
    pub(super) condition: Range<usize>,
    /// Indices of the rules that the condition names.
    needs: BTreeSet<usize>,
    /// Names before a dot: modules, if they are imported.
    modules: BTreeSet<String>,
}

impl RuleEntry {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is private: other rules may refer to it, but it reports no match.
    pub fn is_private(&self) -> bool {
        self.is_private
    }

    /// Whether it is global: no rule of the text matches a sample that this rule does not match.
    pub fn is_global(&self) -> bool {
        self.is_global
    }

    /// Where it stands in the text, in bytes: from its first word to its closing brace.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }
}

impl RuleFile {
    /// Finds the rules of a text.
    ///
    /// This does not read the rules themselves, so it also finds rules that cannot be checked here.
    ///
    /// # Errors
    /// The text is not a list of rules, imports and includes. The error says what is wrong, and
    /// where.
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

    /// Finds the rules of a file, which may begin with a byte order mark.
    ///
    /// # Errors
    /// As [`parse`](Self::parse). The service takes a rule as JSON, so a text that is not UTF-8 is
    /// refused, too.
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
                let why = format!("the byte 0x{:02x} is not UTF-8", bytes[start]);
                Err(RuleError::invalid(&text, start..start + 1, why))
            }
        }
    }

    /// The text, without a byte order mark.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// All rules, in the order of the text.
    pub fn rules(&self) -> &[RuleEntry] {
        &self.rules
    }

    /// Cuts out one rule, the rules that it refers to, the global rules, what these need in turn,
    /// the imports of all of them, and every include.
    ///
    /// The pieces are copied byte for byte, in their order, one on each line. Comments between
    /// rules are left out.
    ///
    /// # Errors
    /// No rule has the name, and the error lists the names; or the rule is private.
    pub fn select(&self, name: &str) -> Result<Self, RuleError> {
        let found = self.rules.iter().position(|rule| rule.name == name);
        let Some(chosen) = found else {
            let why = match self.names() {
                names if names.is_empty() => "the text has no public rule".to_owned(),
                names => format!("no rule is called `{name}`; select one of {names}"),
            };
            return Err(self.selection_error(0..0, why));
        };
        if self.rules[chosen].is_private {
            let span = self.rules[chosen].name_span.clone();
            let why = format!("the rule `{name}` is private, so it reports nothing");
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

    /// Selects the rule that no other rule refers to, if there is one such rule. In a text that
    /// [`select`](Self::select) made, it is the selected rule, unless a global rule refers to that.
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

    /// The rule that the hunt is for; none if no rule is public.
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
            // Global rules match all together or not at all.
            (None, _) => Ok(public().next_back()),
            (rule, None) => Ok(rule),
        }
    }

    pub(super) fn no_rule(&self) -> RuleError {
        let why = match self.rules.is_empty() {
            true => "the text has no rule",
            false => "all rules are private, so they report nothing",
        };
        self.selection_error(0..0, why)
    }

    fn selection_error(&self, span: Range<usize>, why: impl Into<String>) -> RuleError {
        RuleError::new(RuleErrorKind::Selection, &self.text, span, why)
    }

    /// The names that can be selected.
    fn names(&self) -> String {
        let public = self.rules.iter().filter(|rule| !rule.is_private);
        let names: Vec<_> = public.map(|rule| rule.name.as_str()).collect();
        let shown = names[..names.len().min(MAX_NAMES)].join(", ");
        match names.len() - names.len().min(MAX_NAMES) {
            0 => shown,
            more => format!("{shown} and {more} more"),
        }
    }

    /// A rule, the global rules, and what they need.
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

    /// The text of a token; empty behind the last.
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

    /// Reads an import, an include or a rule, and gives the index of the token behind it.
    fn part(&mut self, first: usize) -> Result<usize, RuleError> {
        let start = self.tokens[first].span.start;
        if self.kind(first) == Some(Kind::Include) {
            self.parts
                .push(Part::Include(self.tokens[first].span.clone()));
            return Ok(first + 1);
        }
        if self.is(first, "import") {
            if self.kind(first + 1) != Some(Kind::Text) {
                return Err(self.expected(first + 1, "the name of a module in quotes"));
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
            return Err(self.expected(at, "`rule`, `import` or `include`"));
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
        let open = at;
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
            body: open + 1..at,
            condition: condition.min(at)..at,
            needs: BTreeSet::new(),
            modules: BTreeSet::new(),
        });
        Ok(at + 1)
    }

    /// Finds the rules and modules that a condition names. A rule can name the rules above it.
    fn resolve(&mut self, index: usize, above: &BTreeMap<String, usize>) {
        let mut needs = BTreeSet::new();
        let mut modules = BTreeSet::new();
        // The variables of the loops around a token, and whether each open parenthesis is a body.
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
                match is_prefix {
                    true => needs.extend(
                        above
                            .range(word.to_owned()..)
                            .take_while(|(name, _)| name.starts_with(word))
                            .map(|(_, rule)| *rule),
                    ),
                    false => needs.extend(above.get(word)),
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

/// The text, for [`Hunt::new`](crate::operations::Hunt::new).
impl From<RuleFile> for String {
    fn from(file: RuleFile) -> Self {
        file.text
    }
}
