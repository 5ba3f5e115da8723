//! The round trip of a call in a hot VM, beside bare QuickJS. `cargo bench -p tasker-benches`.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use criterion::{Criterion, criterion_group, criterion_main};
use tasker_benches::figures::{BareLoop, HotVm};

const LOOP: u32 = 1_000;

fn call(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("call");
    group.throughput(criterion::Throughput::Elements(u64::from(LOOP)));
    let mut hot = HotVm::start().expect("the task of the bench runs to its first call");
    group.bench_function("hot_vm", |bencher| {
        bencher.iter(|| {
            for _ in 0..LOOP {
                hot.round_trip()
                    .expect("the task of the bench asks for ever");
            }
        });
    });
    let bare = BareLoop::start().expect("bare QuickJS starts");
    group.bench_function("bare_quickjs", |bencher| {
        bencher.iter(|| bare.run(LOOP).expect("the bare loop ends"));
    });
    group.finish();
}

criterion_group!(benches, call);
criterion_main!(benches);
