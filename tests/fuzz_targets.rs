//! Runs the fuzz targets with the seeds, and with truncated and changed seeds: a smoke test that
//! needs no nightly compiler. `tests/fuzz/README.md` explains how to fuzz.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "fuzz/src/lib.rs"]
#[allow(unreachable_pub, unused_imports)]
mod targets;

use targets::TARGETS;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = fuzz().join("seeds").join(target);
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

#[test]
fn fuzz_targets_hold_near_their_seeds() {
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for seed in &seeds {
            target(seed);
            for round in 1..=6 {
                target(&seed[..seed.len() * round / 7]);
                let mut changed = seed.clone();
                if !changed.is_empty() {
                    let at = (round * 2_654_435_761) % changed.len();
                    changed[at] = changed[at]
                        .wrapping_add(round as u8)
                        .rotate_left(round as u32);
                    target(&changed);
                }
            }
        }
    }
}

#[test]
fn every_target_has_a_program_and_seeds() {
    let names: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let listed = |folder: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(fuzz().join(folder)).unwrap();
        let path = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().path();
        entries
            .map(path)
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(listed("fuzz_targets"), names);
    assert_eq!(listed("seeds"), names);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for name in names {
        assert!(
            manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")),
            "{name}"
        );
    }
    // The fuzzing package is outside the workspace, so `cargo test` does not build it.
    let features = manifest
        .split("../../malquery-proto\", features = [\"")
        .nth(1);
    let feature = features.and_then(|rest| rest.split('"').next()).unwrap();
    let library = include_str!("../malquery-proto/Cargo.toml");
    assert!(library.contains(&format!("\n{feature} = [")), "{feature}");
}
