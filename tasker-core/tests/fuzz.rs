//! The fuzz targets for a moment, without a fuzzer: the kept corpus, and seeded changes of it. `TASKER_FUZZ_ROUNDS` makes it longer.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Changes of the entries of a corpus, all together.
const ROUNDS: u64 = 800;

#[test]
fn source() {
    run("source", targets::source);
}

#[test]
fn jsdoc() {
    run("jsdoc", targets::jsdoc);
}

#[test]
fn journal() {
    // Made anew: a kept one would test the version that made it.
    for turns in 0..4 {
        let entry = targets::a_journal(turns);
        changes("journal", &[entry], targets::journal);
    }
    run("journal", targets::journal);
}

#[test]
fn wire() {
    run("wire", targets::wire);
}

fn run(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let entries: Vec<Vec<u8>> = paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    assert!(!entries.is_empty(), "the corpus of {target} is empty");
    for entry in &entries {
        check(entry);
    }
    changes(target, &entries, check);
}

fn changes(target: &str, entries: &[Vec<u8>], check: fn(&[u8])) {
    let rounds = std::env::var("TASKER_FUZZ_ROUNDS").map_or(ROUNDS, |text| text.parse().unwrap());
    for (n, entry) in entries.iter().enumerate() {
        for round in 0..rounds.div_ceil(entries.len() as u64) {
            let seed = (n as u64) << 32 | round;
            let changed = changed(entry, entries, seed);
            let done = std::panic::catch_unwind(|| check(&changed));
            assert!(
                done.is_ok(),
                "{target}, entry {n}, seed {seed}: {:?}",
                String::from_utf8_lossy(&changed)
            );
        }
    }
}

/// One to four changes: a bit, a byte, a piece taken out, doubled, or brought from another entry.
fn changed(entry: &[u8], others: &[Vec<u8>], seed: u64) -> Vec<u8> {
    const WORDS: [&str; 12] = [
        "0",
        "-1",
        "1e999",
        "null",
        "\"",
        "\\ud800",
        "[",
        "}",
        "\u{0}",
        "4294967296",
        "await ",
        "\n * @param {",
    ];
    let mut random = StdRng::seed_from_u64(seed);
    let mut bytes = entry.to_vec();
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(0..=bytes.len());
        let end = (at + random.random_range(0..20)).min(bytes.len());
        match random.random_range(0..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            3 => {
                let other = &others[random.random_range(0..others.len())];
                let from = random.random_range(0..=other.len());
                let to = (from + random.random_range(0..60)).min(other.len());
                bytes.splice(at..end, other[from..to].iter().copied());
            }
            4 => bytes.truncate(at),
            _ => {
                let word = WORDS[random.random_range(0..WORDS.len())];
                bytes.splice(at..at, word.bytes());
            }
        }
    }
    bytes
}
