//! Which shapes stay, what they take, and that they are given back.

use std::sync::Arc;

use super::super::heap::HELD_ROOM;
use super::super::{Ctx, Runtime};
use super::{HELD, HeldShapes, KEYS, KeyOrder, SEEN};
use crate::vm::realm::{self, With};
use crate::vm::{read, write::Writer};

/// What all that is held makes a heap larger by at the most, in bytes: six arenas, for blocks of more than six sizes.
const MOST_BYTES: usize = 25_000;

fn runtime() -> Runtime {
    let (runtime, _host) = realm::realm(&Arc::default(), With::Nothing);
    runtime.arm(32 << 20, 1 << 20);
    runtime
}

fn reads(ctx: Ctx<'_>, text: &str) {
    read::value(ctx, text).expect("a JSON text");
}

/// The text of an object with so many keys that no other object has.
fn object(name: &str, keys: usize) -> String {
    let members: Vec<_> = (0..keys)
        .map(|key| format!("\"{name}{key}\":{key}"))
        .collect();
    format!("{{{}}}", members.join(","))
}

/// How many shapes reading this once more leaves behind, and how many it makes.
fn left_and_made(runtime: &Runtime, text: &str) -> (i64, i64) {
    let before = runtime.shapes();
    let value = read::value(runtime.enter(), text).expect("a JSON text");
    let during = runtime.shapes();
    drop(value);
    (runtime.shapes() - before, during - before)
}

#[test]
fn shapes_of_keys_that_came_twice_stay() {
    let runtime = runtime();
    let text = object("key", 5);
    assert_eq!(left_and_made(&runtime, &text).0, 0);
    // That of no key, and five more.
    assert_eq!(left_and_made(&runtime, &text).0, 6);
    for _ in 0..3 {
        assert_eq!(left_and_made(&runtime, &text), (0, 0));
    }
    // Another order of the same keys is another one.
    let others = r#"{"key1":1,"key0":0}"#;
    assert_eq!(left_and_made(&runtime, others), (0, 1));
    assert_eq!(left_and_made(&runtime, others), (2, 2));
    assert_eq!(left_and_made(&runtime, others), (0, 0));
    assert_eq!(runtime.free_by_quickjs(), 0);
}

#[test]
fn shapes_of_what_is_written_stay_too() {
    let runtime = runtime();
    {
        let ctx = runtime.enter();
        let source = "() => ({ id: 1, inner: { text: 'a', other: 'b' } })";
        let code = ctx.compile_script(source, "test", 1).unwrap();
        let make = ctx.run_script(&code.into()).unwrap();
        let writes = || {
            let value = make.call(&[]).unwrap();
            let writer = Writer::new(ctx, 1 << 20, 100);
            writer.value(&value, "value").unwrap().unwrap();
        };
        let before = runtime.shapes();
        let after = [(); 4].map(|()| {
            writes();
            runtime.shapes() - before
        });
        assert_eq!(after, [0, 5, 5, 5]);
    }
    assert_eq!(runtime.free_by_quickjs(), 0);
}

#[test]
fn what_is_held_is_bounded() {
    let runtime = runtime();
    // What reading takes for good: keys that are known.
    let before = {
        reads(runtime.enter(), &object("first", 40));
        (runtime.shapes(), runtime.memory_bytes())
    };
    for name in 0..100 {
        let text = object(&format!("k{name}_"), 20);
        for _ in 0..3 {
            reads(runtime.enter(), &text);
        }
    }
    let shapes = usize::try_from(runtime.shapes() - before.0).unwrap();
    assert_eq!(shapes, HELD * KEYS + 1);
    let bytes = runtime.memory_bytes() - before.1;
    assert!(bytes < MOST_BYTES, "{bytes} bytes");
    assert_eq!(runtime.free_by_quickjs(), 0);
}

#[test]
fn a_frame_near_its_limit_holds_nothing() {
    for (room, held) in [(HELD_ROOM + (16 << 10), 6), (HELD_ROOM - 1, 0)] {
        let runtime = runtime();
        let text = object("key", 5);
        reads(runtime.enter(), &text);
        runtime.arm(runtime.memory_bytes() + room, 1 << 20);
        let before = runtime.shapes();
        for _ in 0..10 {
            reads(runtime.enter(), &text);
        }
        assert_eq!(runtime.shapes() - before, held, "{room}");
        assert_eq!(runtime.tripped(), None);
    }
}

#[test]
fn a_realm_that_is_made_holds_nothing() {
    let (runtime, _host) = realm::realm(&Arc::default(), With::Nothing);
    let before = runtime.shapes();
    for _ in 0..10 {
        reads(runtime.enter(), &object("key", 5));
    }
    assert_eq!(runtime.shapes(), before);
}

#[test]
fn shapes_of_what_settles_promises_stay() {
    let runtime = runtime();
    {
        let ctx = runtime.enter();
        // That of the frame, as which the shape of promises stays.
        let (_of_frame, ..) = ctx.promise().unwrap();
        let before = runtime.shapes();
        let made_and_left = [(); 3].map(|()| {
            let functions = ctx.promise().unwrap();
            let made = runtime.shapes() - before;
            drop(functions);
            (made, runtime.shapes() - before)
        });
        // Those of a function with its first key and with both; that of one without is of other functions too.
        assert_eq!(made_and_left, [(2, 2); 3]);
    }
    assert_eq!(runtime.free_by_quickjs(), 0);
}

#[test]
fn an_order_is_wanted_when_it_comes_again_among_others() {
    let order = |keys: &[u32]| {
        let mut order = KeyOrder::default();
        for key in keys {
            order.push_number(*key);
        }
        order
    };
    let mut shapes = HeldShapes::default();
    let others = |shapes: &mut HeldShapes, count: usize| {
        for number in 0..count as u32 {
            assert!(!shapes.is_wanted(order(&[1_000 + number, 1, 2])));
        }
    };
    assert!(!shapes.is_wanted(order(&[1, 2])));
    assert!(!shapes.is_wanted(order(&[2, 1])), "another order");
    others(&mut shapes, SEEN - 2);
    assert!(shapes.is_wanted(order(&[1, 2])));
    assert!(shapes.hold(order(&[1, 2])), "it is the first");
    assert!(!shapes.is_wanted(order(&[1, 2])), "it is held");
    // As many as are remembered came since.
    let mut shapes = HeldShapes::default();
    assert!(!shapes.is_wanted(order(&[1, 2])));
    others(&mut shapes, SEEN);
    assert!(!shapes.is_wanted(order(&[1, 2])), "it is forgotten");
    let mut held = 0;
    for number in 1..100 {
        shapes.is_wanted(order(&[number]));
        if shapes.is_wanted(order(&[number])) {
            shapes.hold(order(&[number]));
            held += 1;
        }
    }
    assert_eq!(held, HELD);
}
