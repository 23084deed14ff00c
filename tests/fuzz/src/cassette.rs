use malquery_mock::Cassette;

/// Loads a cassette, or refuses it with a message.
pub fn cassette(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Err(error) = Cassette::parse("a-cassette", text) {
        assert!(!error.to_string().is_empty());
    }
}
