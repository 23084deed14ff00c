//! The names that secrets go by.

/// Form fields whose values are never shown.
pub(crate) const SECRET_FIELDS: [&str; 7] =
    ["client_id", "client_secret", "member_cid", "token", "access_token", "refresh_token", "id_token"];

pub(crate) fn is_secret_field(name: &str) -> bool {
    SECRET_FIELDS.iter().any(|field| field.eq_ignore_ascii_case(name))
}

/// Whether a text that could not be read as what it is may hold a secret.
pub(crate) fn names_secret(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    SECRET_FIELDS
        .iter()
        .any(|name| text.contains(&format!("\"{name}\"")) || text.contains(&format!("{name}=")))
}

/// Whether this stands for a value that is not in the cassette, such as `[client_secret]`.
pub(crate) fn is_placeholder(value: &str) -> bool {
    let name = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    name.is_some_and(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
}
