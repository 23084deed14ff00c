//! The names that secrets go by.

use crate::redact;

/// Fields whose values are never shown.
pub(crate) const SECRET_FIELDS: [&str; 10] = [
    "client_id",
    "client_secret",
    "member_cid",
    "cid",
    "customer_id",
    "token",
    "access_token",
    "refresh_token",
    "id_token",
    "authorization",
];

/// Parts of other names whose values are not shown, as [`plain`] writes them.
const SECRET_WORDS: [&str; 12] = [
    "secret",
    "password",
    "passwd",
    "passphrase",
    "credential",
    "assertion",
    "authorization",
    "apikey",
    "accesskey",
    "privatekey",
    "amzsignature",
    "googsignature",
];

/// Their ends, so that `token_type` is none.
const SECRET_ENDS: [&str; 1] = ["token"];

/// The rest, which would be parts of harmless names.
const SECRET_SHORT: [&str; 3] = ["sig", "pwd", "username"];

/// The fields that hold what is searched for.
const SEARCHES: [&str; 4] = ["yara_rule", "yara_rules", "pattern", "patterns"];

/// Fewer characters after `Bearer` are a word.
const MIN_TOKEN: usize = 8;
/// Characters that a word is judged by: texts may be one word, with `bearer` in it a thousand times.
const MAX_JUDGED: usize = 1024;
/// Shorter names stand among any bytes.
const MIN_NAME_IN_BYTES: usize = 5;
/// Capitals in the midst of a word without digits that make it none.
const MIN_HUMPS: usize = 3;
/// Letters of the longest word of a message.
const MAX_WORD: usize = 12;
/// Words of a sentence among which none may be a value.
const MAX_WORDS: usize = 16;
/// How much of what stands behind `Basic` is looked at.
const MAX_BASIC: usize = 256;
/// Bytes of the longest placeholder.
const MAX_PLACEHOLDER: usize = 40;
/// How the names of malware go on behind a colon, as in `PasswordStealer:Win32/Vidar.B`.
const PLATFORMS: [&str; 10] = [
    "Win32/", "Win64/", "MSIL/", "Linux/", "MacOS/", "Android", "JS/", "VBS/", "HTML/", "Script/",
];

/// Whether a field, or the place of one, holds what is searched for: a rule against thieves of tokens is full of such words.
pub(crate) fn is_searched(pointer: &str) -> bool {
    pointer.split('/').any(|name| SEARCHES.contains(&name))
}

pub(crate) fn is_secret_field(name: &str) -> bool {
    secret_name(name).is_some()
}

/// What a value of this name is called where it stood, if it is a secret: `client_secret` for `clientSecret`.
pub(crate) fn secret_name(name: &str) -> Option<&'static str> {
    let name = plain(without_index(name));
    SECRET_FIELDS
        .into_iter()
        .find(|field| field.bytes().filter(|b| *b != b'_').eq(name.bytes()))
        .or_else(|| SECRET_WORDS.into_iter().find(|word| name.contains(word)))
        .or_else(|| SECRET_ENDS.into_iter().find(|end| name.ends_with(end)))
        .or_else(|| SECRET_SHORT.into_iter().find(|word| name == *word))
}

/// What [`secret_name`] gives.
pub(crate) fn secret_names() -> impl Iterator<Item = &'static str> {
    SECRET_FIELDS
        .into_iter()
        .chain(SECRET_WORDS)
        .chain(SECRET_ENDS)
        .chain(SECRET_SHORT)
}

/// A name without what is written now this way and now that: `x-api-key`, `xApiKey`, `X_API_KEY`.
pub(crate) fn plain(name: &str) -> String {
    name.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

/// The name of a list without the place in it, as in `token[0]`.
fn without_index(mut name: &str) -> &str {
    let before = |name: &'_ str| {
        let digits = name
            .strip_suffix(']')?
            .trim_end_matches(|c: char| c.is_ascii_digit());
        digits.strip_suffix('[').map(str::len)
    };
    while let Some(end) = before(name) {
        name = &name[..end];
    }
    name
}

/// Whether there is the name of a secret in bytes that are no text, such as those of MessagePack, where no sign tells what
/// is a name and what a value.
pub(crate) fn bytes_name_secret(bytes: &[u8]) -> bool {
    // Zeros are those of wide characters.
    let plain: Vec<u8> = bytes
        .iter()
        .filter(|byte| !matches!(byte, 0 | b'_' | b'-'))
        .map(u8::to_ascii_lowercase)
        .collect();
    secret_names().map(self::plain).any(|name| {
        name.len() >= MIN_NAME_IN_BYTES && memchr::memmem::find(&plain, name.as_bytes()).is_some()
    })
}

/// Whether a text that could not be read as what it is may hold a secret.
pub(crate) fn names_secret(text: &str) -> bool {
    let quote = |c: char| matches!(c, '"' | '\'' | '`');
    let quoted = |(at, name): (usize, &str)| {
        text[..at].ends_with(quote)
            && text[at + name.len()..]
                .trim_start_matches('\\')
                .starts_with(quote)
            && secret_name(name).is_some()
    };
    words(text).any(quoted) || gives(text, true)
}

/// Whether a text gives a value to the name of a secret, in whatever notation, or has the credentials of an
/// `Authorization` header or of a URL. Placeholders are no values.
pub(crate) fn gives_secret(text: &str) -> bool {
    gives(text, false)
}

/// The same; if it is `strict`, also what may as well be the next word of a sentence.
fn gives(text: &str, strict: bool) -> bool {
    let named = words(text).any(|(at, name)| {
        // `$token = "..."`, `#token > 1` and `@token[1]` are of a YARA rule, `#token=` is of a URL.
        let is_counted = text[..at].ends_with(['#', '@', '!'])
            && text[at + name.len()..].starts_with([' ', '[']);
        let free = !text[..at].ends_with('$') && !is_counted;
        // `cid:` is also a kind of link.
        let plain_name = plain(name);
        let is_family = plain_name == "token" && is_family(&text[..at]);
        free && plain_name != "cid"
            && !is_family
            && secret_name(name).is_some()
            && value_of(behind(&text[..at], &text[at + name.len()..])).is_some_and(
                |(value, sentence)| {
                    // What follows a colon in a sentence is often no more than the next word of it.
                    let certain = plain_name != "token"
                        && ["token", "secret"]
                            .iter()
                            .any(|end| plain_name.ends_with(end));
                    !sentence || certain && (strict || !is_word(value)) || is_token(value)
                },
            )
    });
    if named || has_user(text) {
        return true;
    }
    let lower = text.to_ascii_lowercase();
    ["bearer", "basic"].iter().any(|scheme| {
        lower.match_indices(scheme).any(|(at, _)| {
            let rest = &text[at + scheme.len()..];
            let value =
                rest.trim_start_matches(|c: char| c.is_whitespace() || "\"'`<:=\\".contains(c));
            let may_be = strict || *scheme != "basic" || is_basic(value);
            value.len() < rest.len() && may_be && is_token(value)
        })
    })
}

/// What may be a name, and where.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let belongs = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + text[at..].find(belongs)?;
        let end = text[start..]
            .find(|c| !belongs(c))
            .map_or(text.len(), |length| start + length);
        at = end;
        Some((start, &text[start..end]))
    })
}

/// Whether there is a URL with a password.
fn has_user(text: &str) -> bool {
    text.match_indices("://")
        .filter(|(at, _)| !text[..*at].ends_with("mailto"))
        .any(|(at, sign)| {
            let rest = &text[at + sign.len()..];
            let ends = |c: char| {
                c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'' | '<' | '>' | '\\')
            };
            let authority = &rest[..rest.find(ends).unwrap_or(rest.len())];
            authority
                .rsplit_once('@')
                .is_some_and(|(user, _)| match user.split_once(':') {
                    Some((_, password)) => !password.is_empty() && !is_placeholder(password),
                    None => is_token(user),
                })
        })
}

/// What follows a name; where that is the name of a tag, without the attributes that stand between it and its text.
fn behind<'a>(before: &str, rest: &'a str) -> &'a str {
    let belongs = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    // It may have a prefix.
    let before = before
        .strip_suffix(':')
        .map_or(before, |prefix| prefix.trim_end_matches(belongs));
    let tag = if before.ends_with('<') {
        rest.find(['<', '>'])
    } else {
        None
    };
    let has_attributes = |end: &usize| rest[..*end].contains('=') && !rest[..*end].ends_with('/');
    tag.filter(has_attributes).map_or(rest, |end| &rest[end..])
}

/// What follows a name, if that is a value: `="x`, `: 'x`, `\":\"x`, `>x`; and whether it looks as it does after
/// a word of a sentence.
fn value_of(rest: &str) -> Option<(&str, bool)> {
    let quote = |c: char| matches!(c, '"' | '\'' | '\\' | '`');
    // `user[password]=` and `token[0]=`.
    let rest = rest.strip_prefix(']').unwrap_or(rest);
    let mut rest = rest;
    while let Some(behind) = rest.strip_prefix('[').and_then(|rest| {
        rest.trim_start_matches(|c: char| c.is_ascii_digit())
            .strip_prefix(']')
    }) {
        rest = behind;
    }
    let sign = rest.trim_start_matches(|c: char| quote(c) || c.is_whitespace());
    let quoted = rest[..rest.len() - sign.len()].contains(quote);
    // PHP writes `s:5:"token";s:3:"abc";`.
    let php = || {
        sign.strip_prefix(";s:")?
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .strip_prefix(':')
    };
    // A pair may also be a list of two.
    let pair = || sign.strip_prefix(',').or_else(php).filter(|_| quoted);
    let value = sign.strip_prefix([':', '=', '>']).or_else(pair)?;
    let bare = value.trim_start_matches(['=', '>']).trim_start();
    let bare = bare.strip_prefix("<![CDATA[").unwrap_or(bare);
    let value = bare.trim_start_matches(quote);
    let first = value.chars().next()?;
    let placeholder = value
        .bytes()
        .take(MAX_PLACEHOLDER)
        .position(|byte| byte == b']')
        .is_some_and(|end| is_placeholder(&value[..=end]));
    // `token=...` is of a manual, and `token=[a-z]+` of a rule.
    let dots =
        value.starts_with("...") && !value[3..].starts_with(|c: char| c.is_ascii_alphanumeric());
    let class =
        matches!(value.as_bytes(), [b'[', first, b'-', ..] if first.is_ascii_alphanumeric());
    let some =
        !first.is_whitespace() && !"<,;&)}]*…".contains(first) && !placeholder && !dots && !class;
    some.then_some((value, value.len() == bare.len() && sign.starts_with(':')))
}

/// Whether what follows is the name of a family of malware, as in `Stealer:Win32/Token`.
fn is_family(before: &str) -> bool {
    PLATFORMS.iter().any(|name| {
        before
            .strip_suffix(name)
            .is_some_and(|rest| rest.ends_with(':'))
    })
}

/// Whether it begins with a word of a sentence, as in `access_token: expired`.
fn is_word(text: &str) -> bool {
    let end = text
        .find(|c: char| !c.is_ascii_lowercase())
        .unwrap_or(text.len());
    let (word, rest) = text.split_at(if text.starts_with('0') { 1 } else { end });
    let rest = rest.trim_start_matches(|c| ".,;:!?)'\"".contains(c));
    let token =
        |word: &str| is_token(word.trim_start_matches(|c: char| !c.is_ascii_alphanumeric()));
    (1..=MAX_WORD).contains(&word.len())
        && (rest.is_empty() || rest.starts_with(char::is_whitespace))
        && !rest.split_whitespace().take(MAX_WORDS).any(token)
}

/// Whether it begins with what may stand behind `Basic`, and not with what stands behind that name of a language.
fn is_basic(text: &str) -> bool {
    let belongs = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    let end = text
        .bytes()
        .take(MAX_BASIC)
        .position(|byte| !belongs(byte))
        .unwrap_or(text.len().min(MAX_BASIC));
    let word = text[..end].trim_end_matches('.');
    !word.contains(['-', '.', '_', '~'])
        || redact::decode_base64(word.as_bytes()).is_some_and(|decoded| decoded.contains(&b':'))
}

/// Whether it begins with what is no word.
pub(crate) fn is_token(text: &str) -> bool {
    let mut bytes = text.bytes().take(MAX_JUDGED);
    let end = bytes.position(|byte| !byte.is_ascii_alphanumeric() && !b"-._~+/=".contains(&byte));
    let end = end.unwrap_or(text.len().min(MAX_JUDGED));
    let word = text[..end].trim_end_matches('.');
    let humps = word
        .as_bytes()
        .windows(2)
        .filter(|pair| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase());
    word.len() >= MIN_TOKEN
        && !PLATFORMS.iter().any(|platform| word.starts_with(platform))
        && (word.bytes().any(|byte| byte.is_ascii_digit()) || humps.count() >= MIN_HUMPS)
}

/// Whether this stands for a value that is not in the cassette, such as `[client_secret]`.
pub(crate) fn is_placeholder(value: &str) -> bool {
    let name = value
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    name.is_some_and(|name| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
    })
}
