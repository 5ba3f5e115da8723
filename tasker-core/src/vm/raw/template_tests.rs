//! Copies of realms against realms that were built.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Template;
use crate::vm::realm::{self, With};

const KINDS: [With; 3] = [With::Nothing, With::Usual, With::Date];

#[test]
fn a_copy_can_be_walked_and_freed_by_quickjs() {
    for with in KINDS {
        let built = realm::built(0, with);
        assert!(Template::of(&built).is_some());
        let bytes = built.memory_bytes();
        assert_eq!(built.free_by_quickjs(), 0);
        // The third uses the memory of the first.
        for _ in 0..3 {
            let (copy, _host) = realm::realm(&Arc::default(), with);
            assert_eq!(copy.memory_bytes(), bytes);
            assert_eq!(copy.free_by_quickjs(), 0);
        }
    }
}

/// A later QuickJS may lay its arenas out otherwise: they would be left whole, and an image would be a fifth larger.
#[test]
fn an_image_leaves_out_what_was_never_used() {
    for (with, most) in KINDS.into_iter().zip([230_000, 245_000, 280_000]) {
        let built = realm::built(0, with);
        let image = Template::of(&built).unwrap();
        let in_blocks = built.memory_bytes();
        let bytes = image.words.len() * 8;
        assert!(bytes < most, "{with:?}: {bytes} bytes");
        assert!(
            bytes.abs_diff(in_blocks) < 1_000,
            "{with:?}: {bytes} bytes for blocks of {in_blocks}"
        );
    }
}

#[test]
fn a_copy_is_refused_to_what_runs_a_task() {
    let built = realm::built(0, With::Nothing);
    built.arm(1 << 20, 1 << 16);
    assert!(Template::of(&built).is_none());
}

/// Two realms, built at addresses that differ in every byte that the heap spans. A word that is the same place in both is a pointer.
/// What else looks like one is of the table of shapes, which is ordered by addresses, or has a small field in the place of its low
/// bytes, for which there is [`super::ALIGN`].
#[test]
fn what_looks_like_a_pointer_is_one() {
    KINDS.into_iter().for_each(compare_two);
}

fn compare_two(with: With) {
    const SKIP: usize = 0x1230;
    let (one, two) = (
        Template::of(&realm::built(0, with)).unwrap(),
        Template::of(&realm::built(SKIP, with)).unwrap(),
    );
    let (ones, twos): (BTreeSet<_>, BTreeSet<_>) =
        (one.pointers.iter().collect(), two.pointers.iter().collect());
    let (mut stable, mut others) = (0, 0);
    let all = 0u32..one.words.len() as u32;
    for at in all {
        let there = at + SKIP as u32 / 8;
        let (word, other) = (one.words[at as usize], two.words[there as usize]);
        match (ones.contains(&at), twos.contains(&there)) {
            (true, true) if word + SKIP as u64 == other => stable += 1,
            (false, false) => {}
            _ => others += 1,
        }
    }
    assert!(stable > 7_000, "{stable} pointers");
    assert!(others < 300, "{others} are elsewhere");
}

/// Each turn takes a place of the largest kind and gives it back, and an arena comes and goes with it, until it is held.
#[test]
fn an_arena_that_comes_and_goes_is_held() {
    let (copy, _host) = realm::realm(&Arc::default(), With::Nothing);
    copy.arm(32 << 20, 1 << 20);
    // What the image has free of them, and one arena more: seven.
    while !copy.takes_an_arena(512, true) {}
    for _ in 1..7 {
        assert!(!copy.takes_an_arena(512, true));
    }
    let turns = [(); 4].map(|()| {
        let took = copy.takes_an_arena(512, false);
        copy.hold_arenas();
        took
    });
    assert_eq!(turns, [true, true, false, false]);
}
