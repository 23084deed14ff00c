use std::fmt;

use zeroize::Zeroizing;

/// A string that must not leak. It has no `Display`, `Serialize` or `PartialEq`, its `Debug` hides
/// the value, and the value is wiped from memory on drop.
#[derive(Clone)]
pub(crate) struct Secret(Zeroizing<String>);

impl Secret {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// Returns the value. Use it only to validate, send or mask the secret.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}
