//! Copies of realms against realms that were built.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tasker_adaptor::{CallSeq, Json, Outcome, TaskName, TaskVersion, Timestamp};

use super::{LINE, Piece, Template};
use crate::limits::Limits;
use crate::service::ServiceStyle;
use crate::task::{Module, ModuleFormat, Program};
use crate::vm::realm::{self, With};
use crate::vm::{RunInfo, ToolNames, Vm, VmDeliver, VmStart};

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

#[test]
#[cfg_attr(
    not(all(target_os = "linux", target_arch = "x86_64")),
    ignore = "the lists are of images on Linux and x86-64"
)]
fn what_turns_touch_is_known_of_each_kind_of_image() {
    for with in KINDS {
        let image = Template::of(&realm::built(0, with)).unwrap();
        let end = image.words.len() * 8;
        let most = image.words.len() * 8 / LINE / 10;
        assert!(
            (50..most).contains(&image.hot.len()),
            "{with:?}: {} lines; a realm is laid out otherwise than when they were found: run .config/hot_lines.sh",
            image.hot.len()
        );
        assert!(image.hot.is_sorted());
        assert!(image.hot.iter().all(|line| usize::from(*line) * LINE < end));
    }
}

/// Written before each traced turn, and after it.
static TURN: AtomicU32 = AtomicU32::new(0);

/// What `.config/hot_lines.sh` looks on at. It says where images lie and turns a frame in each of them.
#[test]
#[ignore = "a program for .config/hot_lines.sh"]
fn turns_to_trace() {
    println!("\nmark {:p}", &raw const TURN);
    for with in KINDS {
        let (runtime, host) = realm::realm(&Arc::default(), with);
        let Some(Piece::Copy { memory, template }) = runtime.shared().heap.piece() else {
            panic!("no copy");
        };
        let layout = super::hot_lines::layout(&template.words);
        let (start, bytes) = (memory.start, template.words.len() * 8);
        println!("image {with:?} {layout:016x} {start:p} {bytes}");
        let (mut vm, _) = Vm::start(runtime, host, &asks_and_asks());
        for seq in 1..=8 {
            let deliver = VmDeliver {
                time: Timestamp::from_millis(1_700_000_000_000),
                items: vec![(CallSeq(seq), answer())],
            };
            TURN.store(seq, Ordering::Relaxed);
            let turn = vm.deliver(&deliver);
            TURN.store(0, Ordering::Relaxed);
            assert_eq!(turn.made.len(), 1, "{turn:?}");
        }
    }
}

fn answer() -> Outcome {
    Outcome::Completed(Some(
        Json::parse(r#"{"n":7,"text":"an answer","tags":["a"]}"#).unwrap(),
    ))
}

fn asks_and_asks() -> VmStart {
    const SOURCE: &str = "module.exports = async function asks(input, { tools }) {
        let last = null;
        for (let n = 0; ; n++) last = await tools.bench.step({ n, text: 'a step of a chain', tags: ['a'] });
    }";
    VmStart {
        program: Arc::new(Program {
            name: TaskName::new("asks"),
            version: TaskVersion::new("v1"),
            entry: Module {
                path: "asks.js".into(),
                source: SOURCE.into(),
                format: ModuleFormat::CommonJs,
            },
            modules: Vec::new(),
            bare_function: None,
        }),
        input: Json::null(),
        seed: [7; 32],
        time: Timestamp::from_millis(1_700_000_000_000),
        tools: Arc::new(ToolNames::new([("bench".to_owned(), ServiceStyle::Plain)])),
        run: RunInfo::default(),
        limits: Arc::new(Limits::default()),
    }
}
