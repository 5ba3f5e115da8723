#!/usr/bin/env bash
# The tests of what is `unsafe` under AddressSanitizer: QuickJS and SQLite too, which are compiled with it.
#
#   .config/sanitize.sh [ARGUMENTS OF cargo test…]
#
# Not part of .ci/run: it builds everything once more. It needs the sanitizer's runtime, which comes with stable Rust for x86_64
# Linux, and a nightly feature of the compiler, which RUSTC_BOOTSTRAP lets the stable one use.
#
# Left out: tests of how an image of a realm is laid out and of when a heap is looked through for garbage (QuickJS has no arenas here), and
# those with the wall of processes, whose children may not have the address space that the sanitizer asks for. Globals that are defined
# twice are not looked for: tables of SQLite are reported, which is linked once. Nor are leaks: tests report some.
set -euo pipefail
cd "$(dirname "$0")/.."

target=$(rustc -vV | sed -n 's/^host: //p')
export RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address -Cdebuginfo=1"
export ASAN_OPTIONS="detect_odr_violation=0:detect_leaks=0"

if [ $# -eq 0 ]; then
    set -- -p tasker-adaptor-sqlite -p tasker-core --features tasker-core/testing --no-fail-fast --lib \
        --test conformance --test processes --test model --test life --test faults --test company \
        --test vm_bridge --test vm_date --test vm_forms --test vm_globals --test vm_limits --test vm_stacks \
        --test vm_turns --test vm_values --test engine --test durability --test million
fi
cargo test --target "$target" --target-dir "${CARGO_TARGET_DIR:-target}/sanitized" "$@" -- \
    --skip an_image_leaves_out_what_was_never_used --skip an_arena_that_comes_and_goes_is_held \
    --skip a_large_heap_is_looked_through_less_often --skip the_line_is_the_same_on_both_walls \
    --skip what_turns_touch_is_known_of_each_kind_of_image
