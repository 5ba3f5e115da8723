//! The crash laboratory: real engines on a real contract, crashed before and after every call they make to the database or
//! to a service, one at a time exhaustively and in random combination. After each history everything is counted.
//!
//! A crash forgets: from that call on the machine's connection answers nothing, its services ask nobody and hear nothing, and no
//! drain, drop or release has an effect. Others take over when the lease has passed on the clock, which only the laboratory moves.
//! Some dead machines wake later; nothing that they write under their old worker id may be accepted. In some histories replies are
//! lost, or calls made twice, and the machine lives on: that may repeat nothing.
//!
//! What is asserted of every history: the run ends as without a fault · each call is performed once, and once more for each machine
//! that crashed between asking it and recording its result, always under one idempotency key and with the same arguments · nothing
//! is asked after its result was recorded · the audit of the protocol finds nothing, right after the crash and at the end ·
//! no row is left after the cleaner · nothing is stuck.
//!
//! `TASKER_HISTORIES=100000` lives through more; `TASKER_SEED=nested/memory/park/1/12-before` repeats one;
//! `TASKER_MUTATION=NoTurnNumber` takes a guard out of the memory store, to see the laboratory fail.

mod crash_lab {
    pub(crate) mod book;
    pub(crate) mod history;
    pub(crate) mod machine;
    pub(crate) mod plan;
    pub(crate) mod scenarios;
}

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crash_lab::history::{Report, Tasks, live};
use crash_lab::plan::{Backend, Crash, Plan, Side};
use crash_lab::scenarios::SCENARIOS;
use tasker_core::MemoryStorage;
use tasker_core::adaptor::Mutation;

/// Random histories in one run of the tests, unless `TASKER_HISTORIES` says otherwise. The exhaustive ones are over 4,000 more.
const HISTORIES: usize = 6_000;
/// One history in this many is lived on SQLite. A prime, so that it takes every kind of crash in turn.
const SQLITE_SHARE: usize = 41;
/// Failures that are told before the laboratory stops.
const TOLD: usize = 5;

fn histories() -> usize {
    std::env::var("TASKER_HISTORIES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(HISTORIES)
}

/// A memory store, without the guard that `TASKER_MUTATION` names.
fn memory() -> MemoryStorage {
    let Ok(name) = std::env::var("TASKER_MUTATION") else {
        return MemoryStorage::new();
    };
    let mutation = Mutation::ALL
        .iter()
        .find(|mutation| format!("{mutation:?}") == name)
        .unwrap_or_else(|| panic!("there is no mutation {name}; there are {:?}", Mutation::ALL));
    MemoryStorage::with_mutation(*mutation)
}

/// Lives through histories on as many threads as there are cores, each on a runtime of its own.
struct Laboratory {
    threads: usize,
    failures: Mutex<Vec<String>>,
    lived: AtomicUsize,
    crashes: AtomicUsize,
    repeated: AtomicUsize,
    refused: AtomicUsize,
}

impl Laboratory {
    fn new() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(2, usize::from),
            failures: Mutex::default(),
            lived: AtomicUsize::new(0),
            crashes: AtomicUsize::new(0),
            repeated: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
        }
    }

    /// Lives through all of them and gives their reports in order.
    fn live_all(&self, plans: &[Plan]) -> Vec<Report> {
        let next = AtomicUsize::new(0);
        let reports = Mutex::new(BTreeMap::new());
        std::thread::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()
                        .unwrap();
                    let tasks = runtime.block_on(Tasks::publish());
                    while self.failures.lock().unwrap().len() < TOLD {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        let Some(plan) = plans.get(n) else { break };
                        let report = runtime.block_on(live(plan, &tasks, memory()));
                        self.note(plan, &report);
                        reports.lock().unwrap().insert(n, report);
                    }
                });
            }
        });
        reports.into_inner().unwrap().into_values().collect()
    }

    fn note(&self, plan: &Plan, report: &Report) {
        self.lived.fetch_add(1, Ordering::Relaxed);
        self.crashes.fetch_add(report.crashes, Ordering::Relaxed);
        self.repeated.fetch_add(report.repeated, Ordering::Relaxed);
        self.refused.fetch_add(report.refused, Ordering::Relaxed);
        if !report.wrong.is_empty() {
            self.failures.lock().unwrap().push(format!(
                "TASKER_SEED={plan}\n  {}\n  {}",
                report.deaths.join("\n  "),
                report.wrong.join("\n  ")
            ));
        }
    }

    /// Says what was seen, and fails when a promise was broken.
    fn finish(&self, what: &str) {
        let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        println!(
            "{what}: {} histories, {} crashes, {} calls performed again, {} writes of dead workers refused",
            count(&self.lived),
            count(&self.crashes),
            count(&self.repeated),
            count(&self.refused),
        );
        let failures = self.failures.lock().unwrap();
        assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    }
}

/// The calls of the first machine of each scenario without a fault, by scenario and parking.
fn calm(laboratory: &Laboratory, backend: Backend) -> BTreeMap<(&'static str, bool), usize> {
    let plans: Vec<Plan> = SCENARIOS
        .iter()
        .flat_map(|scenario| [false, true].map(|park| Plan::calm(scenario, backend, park)))
        .collect();
    let reports = laboratory.live_all(&plans);
    laboratory.finish("without a fault");
    plans
        .iter()
        .zip(reports)
        .map(|(plan, report)| ((plan.scenario.name, plan.park), report.calls[0]))
        .collect()
}

fn exhaustive(backend: Backend, share: usize) {
    let laboratory = Laboratory::new();
    let calls = calm(&laboratory, backend);
    let mut plans = Vec::new();
    for scenario in SCENARIOS {
        for park in [false, true] {
            for at in 0..calls[&(scenario.name, park)] {
                for side in [Side::Before, Side::After] {
                    for wakes in [false, true] {
                        let crash = Crash { at, side, wakes };
                        plans.push(Plan {
                            crashes: vec![crash],
                            ..Plan::calm(scenario, backend, park)
                        });
                    }
                }
            }
        }
    }
    let plans: Vec<Plan> = plans.into_iter().step_by(share).collect();
    laboratory.live_all(&plans);
    laboratory.finish("a crash at every call");
}

fn random(backend: Backend, first: usize, count: usize) {
    let laboratory = Laboratory::new();
    let calls = calm(&laboratory, backend);
    let plans: Vec<Plan> = (first..first + count)
        .map(|seed| {
            Plan::random(seed as u64, backend, |scenario| {
                calls[&(scenario.name, false)]
            })
        })
        .collect();
    laboratory.live_all(&plans);
    laboratory.finish("crashes in random combination");
}

/// Whether one history is to be repeated instead of all.
fn repeats_one() -> bool {
    std::env::var_os("TASKER_SEED").is_some()
}

#[test]
fn a_seed_repeats_its_history() {
    let Ok(seed) = std::env::var("TASKER_SEED") else {
        return;
    };
    let plan: Plan = seed.parse().unwrap();
    assert_eq!(plan.to_string(), seed);
    let laboratory = Laboratory::new();
    laboratory.live_all(&[plan]);
    laboratory.finish("one history");
}

#[test]
fn a_crash_at_every_call_loses_nothing() {
    if !repeats_one() {
        exhaustive(Backend::Memory, 1);
    }
}

#[test]
fn crashes_in_random_combination_lose_nothing() {
    if !repeats_one() {
        random(Backend::Memory, 0, histories());
    }
}

#[test]
fn crashes_on_sqlite_lose_nothing() {
    if !repeats_one() {
        exhaustive(Backend::Sqlite, SQLITE_SHARE);
        random(Backend::Sqlite, histories(), histories() / SQLITE_SHARE);
    }
}
