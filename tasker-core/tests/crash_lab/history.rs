//! One history: machines work on a run, crash as planned, are replaced, wake again; then everything is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tasker_adaptor_sqlite::{SqliteStorage, Synchronous};
use tasker_core::adaptor::{NewTask, NewTaskRun, Unblock};
use tasker_core::testing::{TestClock, TestEngine};
use tasker_core::{
    BlockedReason, Clock as _, Json, MemoryStorage, Outcome, RunStatus, StackRunId, StackStatus,
    Storage, TaskRun, TaskRunId, UnblockDecision,
};

use super::book::Book;
use super::machine::{LEASE_MS, LONGEST_PAUSE_MS, Machine, World, answer};
use super::plan::{Backend, Plan};
use super::scenarios::{SCENARIOS, Scenario};

/// Steps of the clock after which a run counts as stuck. A run with three take-overs needs about 60.
const STEPS: usize = 500;
/// Real time after which an engine counts as hung.
const PATIENCE: Duration = Duration::from_mins(5);
/// After this long on the clock a dead machine's work has been taken over: its lease is over after one lease, others look every half a
/// lease, and may die themselves or lose a reply while they do.
const TAKEN_OVER_MS: i64 = LEASE_MS as i64 * 3;
/// A woken machine has tried again whatever it was at, and has had a heartbeat.
const COME_TO_MS: i64 = LONGEST_PAUSE_MS + LEASE_MS as i64 / 3 + 100;

/// The tasks of all scenarios as published, so that a history need not read them again.
pub(crate) struct Tasks(BTreeMap<&'static str, NewTask>);

impl Tasks {
    pub(crate) async fn publish() -> Self {
        let mut tasks = BTreeMap::new();
        let test = TestEngine::builder().start().await;
        for (name, source) in SCENARIOS.iter().flat_map(|scenario| scenario.tasks) {
            test.publish(source, name).await;
            let task = test.engine().task(name).await.unwrap();
            let task = NewTask {
                name: task.name,
                version: task.version,
                source: task.source,
                modules: task.modules,
                schema: task.schema,
                options: task.options,
            };
            tasks.insert(*name, task);
        }
        test.engine().abandon();
        Self(tasks)
    }

    fn of(&self, scenario: &Scenario) -> impl Iterator<Item = &NewTask> {
        scenario.tasks.iter().map(|(name, _)| &self.0[name])
    }
}

/// What a history came to.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Calls that each machine made while it lived, by number.
    pub(crate) calls: Vec<usize>,
    /// Crashes that happened.
    pub(crate) crashes: usize,
    /// Calls that were performed more than once.
    pub(crate) repeated: usize,
    /// Writes of woken machines that were refused.
    pub(crate) refused: usize,
    /// What is wrong; empty when all promises were kept.
    pub(crate) wrong: Vec<String>,
    /// Who died where.
    pub(crate) deaths: Vec<String>,
}

/// Lives through one history.
pub(crate) async fn live(plan: &Plan, tasks: &Tasks, storage: MemoryStorage) -> Report {
    let folder;
    let storage: Arc<dyn Storage> = match plan.backend {
        Backend::Memory => Arc::new(storage),
        Backend::Sqlite => {
            folder = tempfile::tempdir().unwrap();
            let store = SqliteStorage::options(folder.path().join("lab.db"))
                .synchronous(Synchronous::Off)
                .readers(1)
                .open()
                .await
                .unwrap();
            Arc::new(store)
        }
    };
    let world = World {
        storage,
        clock: TestClock::default(),
        book: Book::default(),
        park: plan.park,
        hiccups: plan.hiccups,
    };
    let mut history = History {
        plan,
        world,
        run: TaskRunId::from_parts(tasker_core::Timestamp::from_millis(0), 1),
        machines: Vec::new(),
        asleep: Vec::new(),
        report: Report::default(),
    };
    if let Err(_elapsed) = tokio::time::timeout(PATIENCE, history.unfold(tasks)).await {
        history.wrong("an engine hung".to_owned());
    }
    history.end()
}

struct History<'a> {
    plan: &'a Plan,
    world: World,
    run: TaskRunId,
    machines: Vec<Machine>,
    /// Dead machines that will wake, and when; then those that have woken, and when they have come to themselves.
    asleep: Vec<(Machine, i64)>,
    report: Report,
}

impl History<'_> {
    async fn unfold(&mut self, tasks: &Tasks) {
        self.submit(tasks).await;
        for _ in 0..self.plan.workers {
            self.start_machine().await;
        }
        for _ in 0..STEPS {
            self.settle().await;
            if self.unblock().await {
                continue;
            }
            if self.is_over().await {
                self.check_end().await;
                return;
            }
            self.world.clock.advance_to_next().await;
            self.rest().await;
            self.wake_sleepers();
        }
        let run = self.read_run().await;
        let rows = self.world.storage.stack_runs(self.run).await.unwrap();
        let rows: Vec<String> = rows
            .iter()
            .map(|row| {
                format!(
                    "{} {} {} owner {:?}",
                    row.kind, row.path, row.status, row.owner
                )
            })
            .collect();
        let asleep = self.asleep.len();
        self.wrong(format!(
            "stuck: the run is {} (blocked: {:?}) after {STEPS} steps of the clock, {asleep} machines asleep, rows {rows:?}",
            run.status, run.blocked
        ));
    }

    async fn submit(&mut self, tasks: &Tasks) {
        let now = self.world.clock.now();
        let mut root = None;
        for task in tasks.of(self.plan.scenario) {
            root.get_or_insert_with(|| (task.name.clone(), task.version.clone()));
            self.world.storage.publish(task.clone(), now).await.unwrap();
        }
        let (task, version) = root.expect("a scenario has a task");
        let run = NewTaskRun {
            id: TaskRunId::from_parts(now, 1),
            root: StackRunId::from_parts(now, 1),
            task,
            version,
            input: Json::null(),
            idempotency_key: None,
            request_hash: String::new(),
            priority: 0,
            run_at: now,
            deadline: None,
            labels: BTreeMap::new(),
            correlation_id: None,
            traceparent: None,
        };
        self.run = run.id;
        let submitted = self.world.storage.submit(vec![run], now).await.unwrap();
        assert!(submitted.iter().all(Result::is_ok), "{submitted:?}");
    }

    /// Starts machines until one of them lives.
    async fn start_machine(&mut self) {
        loop {
            let number = self.report.calls.len();
            let crash = self.plan.crashes.get(number).copied();
            self.report.calls.push(0);
            let machine = Machine::start(&self.world, number, crash).await;
            if machine.engine.is_some() {
                self.machines.push(machine);
                return;
            }
            self.note_death(&machine).await;
        }
    }

    /// Lets everything happen that happens without the clock, replacing machines that crash.
    async fn settle(&mut self) {
        let mut n = 0;
        while n < self.machines.len() {
            if self.machines[n].settle().await {
                n += 1;
                continue;
            }
            let machine = self.machines.remove(n);
            self.rest_of(&machine).await;
            self.note_death(&machine).await;
            let wakes = self.plan.crashes[machine.number].wakes;
            if wakes {
                let at = self.world.clock.millis() + TAKEN_OVER_MS;
                self.asleep.push((machine, at));
            } else {
                machine.bury();
            }
            self.start_machine().await;
            n = 0;
        }
    }

    /// What a crash leaves must be sound but for the owners, who are not known to be dead yet.
    async fn note_death(&mut self, machine: &Machine) {
        self.report.crashes += 1;
        self.report.deaths.push(machine.fate.around());
        self.world.book.crashed(machine.number);
        for violation in self.world.storage.audit().await.unwrap() {
            if violation.invariant != "I8" {
                self.wrong(format!("right after a crash: {violation}"));
            }
        }
    }

    fn wake_sleepers(&mut self) {
        let now = self.world.clock.millis();
        for (machine, until) in std::mem::take(&mut self.asleep) {
            if now < until {
                self.asleep.push((machine, until));
            } else if machine.fate.is_dead() {
                self.world.book.fence(machine.number, now);
                machine.wake();
                self.asleep.push((machine, now + COME_TO_MS));
            } else if machine.began_again() {
                // From here on it is a machine like any other.
                self.machines.push(machine);
            } else {
                let number = machine.number;
                self.wrong(format!(
                    "machine {number} woke and did not notice that its lease is gone"
                ));
                machine.bury();
            }
        }
    }

    /// A person looks at a blocked run: was the call performed or not?
    async fn unblock(&mut self) -> bool {
        let run = self.read_run().await;
        if run.status != RunStatus::Blocked {
            return false;
        }
        if !matches!(run.blocked, Some(BlockedReason::OutcomeUnknown { .. })) {
            self.wrong(format!("blocked: {:?}", run.blocked));
        }
        for row in self.world.storage.stack_runs(self.run).await.unwrap() {
            if row.status != StackStatus::Blocked {
                continue;
            }
            let decision = if self.world.book.happened(&row.id.to_string()) {
                let argument: Vec<serde_json::Value> =
                    row.args.clone().unwrap_or_default().to().unwrap();
                let id = argument[0]["id"].as_str().unwrap().to_owned();
                UnblockDecision::supply(answer(&id))
            } else {
                UnblockDecision::Retry
            };
            let unblock = Unblock {
                run: self.run,
                row: Some(row.id),
                decision,
                now: self.world.clock.now(),
            };
            self.world.storage.unblock(unblock).await.unwrap();
        }
        self.rest().await;
        true
    }

    async fn read_run(&self) -> TaskRun {
        let run = self.world.storage.run(self.run).await.unwrap();
        run.expect("a run that was submitted is there")
    }

    /// The run has ended, its rows are cleaned, and nobody is asleep.
    async fn is_over(&self) -> bool {
        if !self.asleep.is_empty() {
            return false;
        }
        let run = self.read_run().await;
        run.status.is_terminal()
            && run.folded_at.is_some()
            && self
                .world
                .storage
                .stack_runs(self.run)
                .await
                .unwrap()
                .is_empty()
    }

    async fn check_end(&mut self) {
        let run = self.read_run().await;
        let ended = match &run.outcome {
            Some(Outcome::Completed(value)) => value.clone().unwrap_or_default().text().to_owned(),
            Some(Outcome::Failed(failure)) => {
                format!("!{}", failure.code.as_deref().unwrap_or(&failure.message))
            }
            None => format!("{:?}", run.status),
        };
        if ended != self.plan.scenario.result {
            let wanted = self.plan.scenario.result;
            self.wrong(format!("ended with {ended}, not with {wanted}"));
        }
        for violation in self.world.storage.audit().await.unwrap() {
            self.wrong(format!("at the end: {violation}"));
        }
        self.count_calls();
    }

    /// Each call once, and once more for each machine that crashed between asking it and recording its result.
    fn count_calls(&mut self) {
        let pages = self.world.book.pages();
        let mut wrong = pages.wrong.clone();
        let ids: BTreeSet<&str> = pages.performed.iter().map(|one| one.id.as_str()).collect();
        let wanted: BTreeSet<&str> = self.plan.scenario.calls.iter().copied().collect();
        if ids != wanted {
            wrong.push(format!("performed {ids:?}, not {wanted:?}"));
        }
        for id in ids {
            let of_id = || pages.performed.iter().filter(move |one| one.id == id);
            let forms: BTreeSet<(&str, &str)> = of_id()
                .map(|one| (one.key.as_str(), one.args.as_str()))
                .collect();
            if forms.len() != 1 {
                wrong.push(format!("{id} was performed as {forms:?}"));
            }
            let times = of_id().count();
            let key = of_id().next().map_or("", |one| one.key.as_str());
            let lost = pages.repeats.get(key).map_or(0, Vec::len);
            // A careful method is performed once even then.
            let careful = self.plan.scenario.name == "careful";
            let wanted = if careful { 1 } else { 1 + lost };
            if times != wanted {
                let by: Vec<usize> = of_id().map(|one| one.machine).collect();
                wrong.push(format!(
                    "{id} was performed {times} times (by machines {by:?}), not {wanted}"
                ));
            }
            self.report.repeated += usize::from(times > 1);
        }
        self.report.refused = pages.refused;
        drop(pages);
        self.report.wrong.append(&mut wrong);
    }

    /// Waits until no machine's storage has a call under way.
    async fn rest(&self) {
        for machine in &self.machines {
            self.rest_of(machine).await;
        }
        for (machine, _) in &self.asleep {
            self.rest_of(machine).await;
        }
    }

    async fn rest_of(&self, machine: &Machine) {
        while machine.storage.control().under_way() > 0 {
            tokio::task::yield_now().await;
        }
    }

    fn wrong(&mut self, what: String) {
        self.report.wrong.push(what);
    }

    fn end(mut self) -> Report {
        for machine in self
            .machines
            .iter()
            .chain(self.asleep.iter().map(|(machine, _)| machine))
        {
            self.report.calls[machine.number] = machine.fate.calls();
            machine.bury();
        }
        self.report
    }
}
