use crate::support::*;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

/// A running stand-in and the settings that it printed.
struct Serving {
    child: Child,
    settings: Vec<(String, String)>,
}

impl Serving {
    fn start(options: &str) -> Self {
        let mut command = command(&format!("serve {options}"));
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let settings = lines
            .take(3)
            .map(|line| {
                let line = line.unwrap();
                let (name, value) = line.split_once('=').expect("NAME=value");
                (name.to_owned(), value.to_owned())
            })
            .collect();
        Self { child, settings }
    }

    fn ask(&self, line: &str) -> Run {
        run(command(line).envs(self.settings.iter().cloned()))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_stand_in_serves_other_programs() {
    let serving = Serving::start("");
    let names_of: Vec<_> = serving
        .settings
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(
        names_of,
        [
            "FALCON_BASE_URL",
            "FALCON_CLIENT_ID",
            "FALCON_CLIENT_SECRET"
        ]
    );
    assert!(serving.settings[0].1.starts_with("http://127.0.0.1:"));
    // A job outlives the process that submitted it.
    let submitted = serving.ask("exact-search --ascii CrowdStrike").json();
    let id = submitted["meta"]["reqid"].as_str().unwrap();
    let done = serving.ask(&format!("request {id} --wait")).json();
    assert_eq!(done["resources"].as_array().unwrap().len(), 4);
    let out = folder();
    let target = in_folder(&out, "out");
    serving
        .ask(&format!("collect --yes --ascii GNU --output-dir {target}"))
        .json();
    assert_eq!(names(&target).len(), 3);
    assert_eq!(serving.ask("quotas").json()["meta"]["download_count"], 2);
}

#[test]
fn the_stand_in_has_knobs() {
    let serving = Serving::start("--hunts 1 --downloads 7 --polls 3 --token-life 20m");
    let quotas = serving.ask("quotas").json();
    assert_eq!(
        (
            &quotas["meta"]["hunt_limit"],
            &quotas["meta"]["download_limit"]
        ),
        (&json!(1), &json!(7))
    );
    serving.ask(&format!("hunt {RULE} --wait")).json();
    serving.ask(&format!("hunt {RULE} --wait")).error(5);
    let serving = Serving::start("--fail-jobs");
    serving.ask("exact-search --ascii GNU --wait").error(3);
    let serving = Serving::start("--job-time 1h");
    let run = serving.ask("exact-search --ascii GNU --wait --timeout 1s");
    run.error(6);
}

#[test]
fn the_stand_in_logs_each_request() {
    let out = folder();
    let log = in_folder(&out, "log");
    let serving = Serving::start(&format!("--log {log}"));
    serving.ask("quotas").json();
    let text = fs::read_to_string(&log).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains("/malquery/aggregates/quotas/v1"), "{text}");
}

#[test]
fn the_stand_in_asks_no_service() {
    for option in [
        "--cloud us-2",
        "--base-url http://127.0.0.1:1",
        "--record x",
        &format!("--replay {CASSETTE}"),
    ] {
        assert!(
            plain(&format!("serve {option}"))
                .error(2)
                .contains("`serve` does not support --cloud")
        );
    }
}
