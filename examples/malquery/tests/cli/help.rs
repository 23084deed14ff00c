use crate::support::*;

const COMMANDS: [&str; 16] = [
    "quotas",
    "fuzzy-search",
    "exact-search",
    "hunt",
    "request",
    "resume",
    "metadata",
    "download",
    "multidownload",
    "samples",
    "collect",
    "check-rule",
    "extract",
    "serve",
    "completions",
    "man",
];

fn help(command: &str) -> String {
    let run = plain(&format!("{command} --help"));
    assert_eq!(run.code, 0);
    run.stdout.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_command_has_an_example() {
    let all = help("");
    for command in COMMANDS {
        assert!(all.contains(&format!(" {command} ")), "{command}");
        let text = help(command);
        let example = text.split("Example").nth(1).expect(command);
        assert!(
            example.contains(&format!("malquery {command}")),
            "{command}: {example}"
        );
        assert!(
            !text.contains("MalQueryQuotasV1") && !text.contains("oauth2"),
            "{text}"
        );
    }
}

#[test]
fn help_hides_options_without_effect() {
    for (command, shown, hidden) in [
        (
            "quotas",
            "--cloud --format --timeout --force",
            "--poll-interval --max-ratio --check-quota",
        ),
        (
            "serve",
            "--corpus --demo --port --polls",
            "--cloud --timeout --format --record --force",
        ),
        (
            "check-rule",
            "--format --rule-name",
            "--cloud --demo --poll-interval --force",
        ),
        (
            "extract",
            "--force --max-ratio --format",
            "--cloud --replay --poll-interval --timeout",
        ),
        (
            "hunt",
            "--rule --no-check-rule --poll-interval --check-quota",
            "--max-ratio --yes",
        ),
        (
            "collect",
            "--yes --no-check-quota --max-ratio --from --request",
            "--wait --check-quota",
        ),
        ("man", "", "--cloud --demo --timeout --quiet"),
    ] {
        let text = help(command);
        for option in shown.split_whitespace() {
            assert!(text.contains(option), "{command} hides {option}: {text}");
        }
        for option in hidden.split_whitespace() {
            let is_shown = text.split(' ').any(|word| word == option);
            assert!(!is_shown, "{command} shows {option}");
        }
        // The options are hidden, but still accepted.
        assert_eq!(plain(&format!("--cloud us-2 {command} --help")).code, 0);
    }
}

#[test]
fn help_says_what_a_command_costs() {
    let collect = help("collect");
    assert!(
        collect.contains("this costs a download per sample"),
        "{collect}"
    );
    assert!(
        collect.contains("Without --limit, all samples found are downloaded"),
        "{collect}"
    );
    assert!(help("hunt").contains("this costs a hunt"));
    let serve = help("serve");
    for setting in [
        "FALCON_BASE_URL",
        "FALCON_CLIENT_ID",
        "FALCON_CLIENT_SECRET",
    ] {
        assert!(serve.contains(&format!("{setting}=...")), "{serve}");
    }
}

#[test]
fn help_explains_statuses_rules_and_folders() {
    for command in ["hunt", "exact-search", "multidownload"] {
        let text = help(command);
        assert!(text.contains("describes the submission"), "{text}");
    }
    let hunt = help("hunt");
    assert!(
        hunt.contains("use this argument or --rule FILE")
            && hunt.contains("use this option or the argument [FILE]"),
        "{hunt}"
    );
    assert!(help("collect").contains("samples from an earlier run stay in the folder"));
}

#[test]
fn completions_and_the_manual_are_printed() {
    for shell in ["bash", "zsh", "fish"] {
        let run = plain(&format!("completions {shell}"));
        assert!(
            run.code == 0 && run.stdout.contains("fuzzy-search"),
            "{shell}"
        );
    }
    let manual = plain("man").stdout;
    assert!(manual.contains(".TH") && manual.contains("multidownload"));
    assert_eq!(
        plain("--version").stdout,
        concat!("malquery ", env!("CARGO_PKG_VERSION"), "\n")
    );
}
