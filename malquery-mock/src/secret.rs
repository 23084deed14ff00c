//! The names that secrets go by.

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
const SECRET_WORDS: [&str; 10] = [
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
];

/// Their ends, so that `token_type` is none.
const SECRET_ENDS: [&str; 2] = ["token", "signature"];

/// The rest, which would be parts of harmless names.
const SECRET_SHORT: [&str; 3] = ["sig", "pwd", "username"];

/// Fewer characters after `Bearer` are a word.
const MIN_TOKEN: usize = 8;

pub(crate) fn is_secret_field(name: &str) -> bool {
    secret_name(name).is_some()
}

/// What a value of this name is called where it stood, if it is a secret: `client_secret` for `clientSecret`.
pub(crate) fn secret_name(name: &str) -> Option<&'static str> {
    let name = plain(name);
    SECRET_FIELDS
        .into_iter()
        .find(|field| plain(field) == name)
        .or_else(|| SECRET_WORDS.into_iter().find(|word| name.contains(word)))
        .or_else(|| SECRET_ENDS.into_iter().find(|end| name.ends_with(end)))
        .or_else(|| SECRET_SHORT.into_iter().find(|word| name == *word))
}

/// What [`secret_name`] gives.
pub(crate) fn secret_names() -> impl Iterator<Item = &'static str> {
    SECRET_FIELDS.into_iter().chain(SECRET_WORDS).chain(SECRET_ENDS).chain(SECRET_SHORT)
}

/// A name without what is written now this way and now that: `x-api-key`, `xApiKey`, `X_API_KEY`.
pub(crate) fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// Whether a text that could not be read as what it is may hold a secret.
pub(crate) fn names_secret(text: &str) -> bool {
    let quote = |c: char| matches!(c, '"' | '\'' | '`');
    let quoted = |(at, name): (usize, &str)| {
        text[..at].ends_with(quote)
            && text[at + name.len()..].trim_start_matches('\\').starts_with(quote)
            && secret_name(name).is_some()
    };
    words(text).any(quoted) || gives_secret(text)
}

/// Whether a text gives a value to the name of a secret, in whatever notation, or has the credentials of an
/// `Authorization` header or of a URL. Placeholders are no values.
pub(crate) fn gives_secret(text: &str) -> bool {
    let named = words(text).any(|(at, name)| {
        // `$token = "..."` and `#token > 1` are of a YARA rule.
        let free = !text[..at].ends_with(['$', '#', '@', '!']);
        // `cid:` is also a kind of link.
        let plain_name = plain(name);
        free && plain_name != "cid"
            && secret_name(name).is_some()
            && value_of(&text[at + name.len()..]).is_some_and(|(value, sentence)| {
                // What follows a colon in a sentence is often no more than the next word of it.
                let certain =
                    plain_name != "token" && SECRET_FIELDS.iter().any(|field| plain(field) == plain_name);
                !sentence || certain || is_token(value)
            })
    });
    let lower = || text.to_ascii_lowercase();
    named
        || has_user(text)
        || ["bearer", "basic"].iter().any(|scheme| {
            lower().match_indices(scheme).any(|(at, _)| {
                let rest = &text[at + scheme.len()..];
                let value = rest.trim_start();
                value.len() < rest.len() && is_token(value)
            })
        })
}

/// What may be a name, and where.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let belongs = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + text[at..].find(belongs)?;
        let end = text[start..].find(|c| !belongs(c)).map_or(text.len(), |length| start + length);
        at = end;
        Some((start, &text[start..end]))
    })
}

/// Whether there is a URL with a password.
fn has_user(text: &str) -> bool {
    text.match_indices("://").any(|(at, sign)| {
        let rest = &text[at + sign.len()..];
        let ends =
            |c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'' | '<' | '>' | '\\');
        let authority = &rest[..rest.find(ends).unwrap_or(rest.len())];
        let user = authority.rsplit_once('@').and_then(|(user, _)| user.split_once(':'));
        user.is_some_and(|(_, password)| !password.is_empty() && !is_placeholder(password))
    })
}

/// What follows a name, if that is a value: `="x`, `: 'x`, `\":\"x`, `>x`; and whether it looks as it does after
/// a word of a sentence.
fn value_of(rest: &str) -> Option<(&str, bool)> {
    let quote = |c: char| matches!(c, '"' | '\'' | '\\' | '`');
    let sign = rest.trim_start_matches(|c: char| quote(c) || c.is_whitespace());
    let quoted = rest[..rest.len() - sign.len()].contains(quote);
    // A pair may also be a list of two.
    let value = sign.strip_prefix([':', '=', '>']).or(sign.strip_prefix(',').filter(|_| quoted))?;
    let value = value.trim_start_matches(['=', '>']).trim_start().trim_start_matches(quote);
    let first = value.chars().next()?;
    let placeholder = value.find(']').is_some_and(|end| is_placeholder(&value[..=end]));
    let some = !first.is_whitespace() && !"<,;&)}]".contains(first) && !placeholder;
    some.then_some((value, !quoted && sign.starts_with(':')))
}

/// Whether it begins with what is no word.
fn is_token(text: &str) -> bool {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && !"-._~+/=".contains(c)).unwrap_or(text.len());
    let word = text[..end].trim_end_matches('.');
    word.len() >= MIN_TOKEN
        && word
            .bytes()
            .enumerate()
            .any(|(at, b)| !(b.is_ascii_lowercase() || at == 0 && b.is_ascii_uppercase()))
}

/// Whether this stands for a value that is not in the cassette, such as `[client_secret]`.
pub(crate) fn is_placeholder(value: &str) -> bool {
    let name = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    name.is_some_and(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
}
