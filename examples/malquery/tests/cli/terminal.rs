#![cfg(target_os = "linux")]

use crate::support::*;

#[test]
fn a_table_is_shown_on_a_terminal() {
    let other = "63b8b9f7076fc162ff8389debef083e3e8e150d46db1b8641216a8622d5b96c6";
    let mut lookup = command(&format!("--demo lookup {A} {other}"));
    let (code, shown) = on_terminal(200, &mut lookup);
    assert_eq!(code, 0);
    assert!(
        shown.contains("offline: searching 8 harmless demo files"),
        "{shown}"
    );
    let row = format!("\n{A}  text    103  2024/01/15  malware  Demo\n");
    assert!(shown.contains(&row), "{shown}");
    // The hash is shortened last.
    let (_, shown) = on_terminal(80, &mut lookup);
    assert!(shown.contains(&format!("\n{A}\n")), "{shown}");
    assert!(
        shown.contains("malware") && shown.contains("Demo"),
        "{shown}"
    );
    for columns in [80, 200] {
        for line in [
            format!("--demo lookup {A} {other}"),
            "--demo fuzzy-search --ascii CrowdStrike".into(),
            "--demo exact-search --ascii CrowdStrike --wait".into(),
            "--demo quotas".into(),
        ] {
            let (code, shown) = on_terminal(columns, &mut command(&line));
            assert_eq!(code, 0, "{shown}");
            let wide = |line: &&str| console::measure_text_width(line) > columns.into();
            let table = shown.lines().filter(|line| !line.contains("\u{1b}"));
            assert_eq!(table.clone().find(wide), None, "{columns}: {shown}");
        }
    }
}

#[test]
fn quotas_are_bars_on_a_terminal() {
    let meta = json!({
        "hunt_count": 30, "hunt_limit": 100, "download_count": 25, "download_limit": 50, "days_left": 12,
        "hunt_counts": [{"userid": "user-1", "counter": 30}], "download_counts": [{"userid": "", "counter": 25}],
    });
    let server =
        Server::with_answers((0..2).map(|_| answer(200, json!({"meta": meta, "errors": []}))));
    for columns in [80, 200] {
        let (code, shown) = on_terminal(columns, &mut server.command("quotas"));
        assert_eq!(code, 0, "{shown}");
        for text in [
            "hunts      [####",
            "30 of 100 used, 70 left",
            "downloads  [####",
            "25 of 50 used, 25 left",
            "12 days left",
            "user-1        30          0",
            "(no user)      0         25",
        ] {
            assert!(shown.contains(text), "{text}: {shown}");
        }
        assert!(
            shown.lines().all(|line| line.len() <= columns.into()),
            "{shown}"
        );
    }
}

#[test]
fn a_terminal_without_messages_shows_what_is_offline() {
    let mut command = Command::new("sh");
    let program = env!("CARGO_BIN_EXE_malquery");
    command.args(["-c", &format!("{program} quotas --demo 2> /dev/null")]);
    let (_, shown) = on_terminal(80, &mut command);
    assert!(shown.starts_with("offline: searching"), "{shown}");
}
