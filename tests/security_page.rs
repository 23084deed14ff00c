//! Checks that the tests named on the security page exist.

use std::fs;
use std::path::Path;

#[test]
fn every_named_test_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = fs::read_to_string(root.join("malquery-proto/docs/security.md")).unwrap();
    let mut count = 0;
    for line in page
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains(".rs`"))
    {
        let (what, shown) = line.trim_end_matches(" |").rsplit_once(" | ").unwrap();
        for of_file in shown.split("; ") {
            let (file, tests) = of_file
                .split_once(": ")
                .unwrap_or_else(|| panic!("{what}: {of_file}"));
            let code = fs::read_to_string(root.join(file.trim_matches('`')))
                .unwrap_or_else(|_| panic!("{file}"));
            for test in tests.split(", ") {
                let name = test.trim_matches('`');
                let place = code
                    .find(&format!("fn {name}("))
                    .unwrap_or_else(|| panic!("{file} has no {name}"));
                // Another attribute may follow it.
                let is_test = code[..place]
                    .lines()
                    .rev()
                    .take(4)
                    .any(|line| line.trim() == "#[test]");
                assert!(is_test, "{name} in {file} is no test");
                count += 1;
            }
        }
    }
    assert!(count > 50, "the tables were not understood: {count}");
}
