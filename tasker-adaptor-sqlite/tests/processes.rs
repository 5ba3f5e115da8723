//! Several real processes on one file: they do operations at random under the contract, some are killed, and the audit is clean.
//!
//! The children are this test binary, started again with a file in the environment.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of test functions"
)]

mod support;

use std::collections::HashMap;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures::StreamExt as _;
use support::*;
use tasker_adaptor::*;
use tasker_adaptor_sqlite::{SqliteStorage, rusqlite};

const FILE: &str = "TASKER_TEST_FILE";
const SEED: &str = "TASKER_TEST_SEED";
const STEPS: &str = "TASKER_TEST_STEPS";

/// Virtual milliseconds between two operations of a child, against a lease of [`LEASE_MS`]: some leases end.
const STEP_MS: i64 = 10;
const LEASE_MS: i64 = 400;

fn start_child(file: &std::path::Path, seed: u64, steps: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_process", "--ignored", "--nocapture"])
        .env(FILE, file)
        .env(SEED, seed.to_string())
        .env(STEPS, steps.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn two_processes_sqlite() {
    let folder = Folder::new();
    // The file is made by whoever comes first.
    let children: Vec<_> = (1..=4)
        .map(|seed| start_child(&folder.file(), seed, 250))
        .collect();
    for mut child in children {
        let status = tokio::task::spawn_blocking(move || child.wait())
            .await
            .unwrap();
        assert!(
            status.unwrap().success(),
            "a child failed; its message is above"
        );
    }
    assert_sound_after_all(&folder).await;
    let storage = SqliteStorage::open(folder.file()).await.unwrap();
    let ended = RunFilter {
        statuses: vec![RunStatus::Completed, RunStatus::Failed],
        ..RunFilter::default()
    };
    assert!(storage.runs(&ended, 10).await.unwrap().runs.len() > 5);
}

#[tokio::test]
async fn a_process_killed_amid_commits_leaves_a_sound_file() {
    let folder = Folder::new();
    let storage = SqliteStorage::open(folder.file()).await.unwrap();
    for seed in 11..=14 {
        let mut hints = storage.watch();
        let mut child = start_child(&folder.file(), seed, u64::MAX);
        for _ in 0..15 {
            let hint = tokio::time::timeout(Duration::from_mins(10), hints.next()).await;
            assert!(hint.unwrap().is_some());
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    drop(storage);
    let conn = rusqlite::Connection::open(folder.file()).unwrap();
    let check: String = conn
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
    drop(conn);
    assert_sound_after_all(&folder).await;
}

/// Long after all leases have ended somebody takes everything over.
async fn assert_sound_after_all(folder: &Folder) {
    let storage = SqliteStorage::open(folder.file()).await.unwrap();
    let by = worker_id();
    let later = at(1_000_000_000);
    let reaper = NewWorker {
        id: by,
        name: "reaper".to_owned(),
        now: later,
        lease_ms: 1_000,
    };
    storage.register(reaper).await.unwrap();
    while storage.reap(by, later, 50).await.unwrap().more {}
    assert_sound(&storage).await;
}

#[tokio::test]
#[ignore = "the program of the children, which the other tests start"]
async fn child_process() {
    let Ok(file) = std::env::var(FILE) else {
        return;
    };
    let number = |name| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let storage = SqliteStorage::options(file)
        .busy_timeout(Duration::from_mins(10))
        .open()
        .await
        .unwrap();
    let mut random = Random(number(SEED).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    // Frames of one child begin at a time of its own, so that leases end for one another.
    let mut process = Process {
        worker: worker_id(),
        storage,
        held: HashMap::new(),
        runs: Vec::new(),
        now: at(random.below(200) as i64),
        random,
    };
    process.register().await;
    for _ in 0..number(STEPS) {
        process.step().await;
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A frame whose VM this process would have.
struct Held {
    row: StackRun,
    turn: u32,
    made: u32,
    /// Calls that were born claimed, with their place.
    calls: Vec<(StackRunId, u32)>,
}

struct Process {
    storage: SqliteStorage,
    worker: WorkerId,
    held: HashMap<StackRunId, Held>,
    runs: Vec<TaskRunId>,
    now: Timestamp,
    random: Random,
}

impl Process {
    async fn register(&mut self) {
        self.worker = worker_id();
        self.held.clear();
        let new = NewWorker {
            id: self.worker,
            name: "child".to_owned(),
            now: self.now,
            lease_ms: LEASE_MS,
        };
        self.storage.register(new).await.unwrap();
    }

    fn claim(&self) -> Claim {
        Claim {
            worker: self.worker,
            now: self.now,
            max: 3,
            only: None,
        }
    }

    async fn step(&mut self) {
        self.now = self.now.plus_millis(STEP_MS);
        let storage = self.storage.clone();
        match self.random.below(20) {
            0..=2 => {
                let new = new_run();
                self.runs.push(new.id);
                storage.submit(vec![new], self.now).await.unwrap();
            }
            3..=5 => {
                for frame in storage.claim_frames(self.claim()).await.unwrap() {
                    let held = Held {
                        turn: frame.row.turn.0,
                        made: frame.row.made_count,
                        row: frame.row,
                        calls: Vec::new(),
                    };
                    self.held.insert(held.row.id, held);
                }
            }
            6..=11 => self.turn().await,
            12 => self.finish().await,
            13 => {
                storage.fire_timers(self.now, 50, 10).await.unwrap();
            }
            14 => self.release().await,
            15 => {
                storage.reap(self.worker, self.now, 5).await.unwrap();
            }
            16 => {
                if !storage
                    .heartbeat(self.worker, self.now, LEASE_MS)
                    .await
                    .unwrap()
                {
                    self.register().await;
                }
            }
            17 => self.end_from_outside().await,
            18 => {
                for run in storage.foldable(self.now, 3).await.unwrap() {
                    storage.fold(run, vec![1], self.now).await.unwrap();
                }
                storage.delete_folded_rows(4).await.unwrap();
            }
            _ => {
                // A process that stops without a word, now and then.
                if self.random.below(5) == 0 {
                    self.register().await;
                }
            }
        }
    }

    /// One turn of a frame that this process holds.
    async fn turn(&mut self) {
        let Some(id) = self.held.keys().copied().min() else {
            return;
        };
        let Some(mut held) = self.held.remove(&id) else {
            return;
        };
        let mut commit = turn(&held.row, self.worker, held.turn, FrameNext::Suspended);
        commit.time = self.now;
        for row in self.storage.unread(id).await.unwrap() {
            held.calls.retain(|(call, _)| *call != row.id);
            commit.delivered.push(Delivery {
                child: row.id,
                seq: row.seq,
                source: DeliverySource::Recorded,
            });
        }
        if self.random.below(2) == 0
            && let Some((call, seq)) = held.calls.pop()
        {
            commit.delivered.push(local(call, seq, "1"));
        }
        if held.turn > 0 && commit.delivered.is_empty() {
            // Nothing settled: a frame makes no turn. It is put away.
            let lease = commit.lease;
            let answers = self.storage.release_frames(&[(id, lease)], self.now).await;
            drop(answers.unwrap());
            return;
        }
        if held.turn > 3 || self.random.below(6) == 0 {
            commit.next = FrameNext::Completed(None);
        } else {
            for _ in 0..=self.random.below(3) {
                let made = self.child();
                held.made += 1;
                if made.claimed && matches!(made.kind, MadeKind::Call { .. }) {
                    held.calls.push((made.id, held.made));
                }
                commit.made.push(made);
            }
        }
        let goes_on = matches!(commit.next, FrameNext::Suspended);
        let batch: std::sync::Arc<[TurnCommit]> = vec![commit].into();
        let answer = self
            .storage
            .commit(std::sync::Arc::clone(&batch))
            .await
            .unwrap();
        if answer[0].is_ok() && self.random.below(8) == 0 {
            // The reply was lost: sent again, it is known, unless others went on since.
            let again = self.storage.commit(batch).await.unwrap();
            assert!(!matches!(again[0], Ok(receipt) if !receipt.already_applied));
        }
        match &answer[0] {
            Ok(_) if goes_on => {
                held.turn += 1;
                self.held.insert(id, held);
            }
            Err(CommitRefused::LeaseLost) => self.register().await,
            _ => {}
        }
    }

    fn child(&mut self) -> NewStackRun {
        let kind = match self.random.below(6) {
            0 => MadeKind::Timer {
                path: "sleep".to_owned(),
                args: Json::parse("100").unwrap(),
                due_at: self.now.plus_millis(100),
            },
            1 => MadeKind::Frame {
                task: "nested".into(),
                version: "v1".into(),
                input: Json::null(),
                depth: 1,
            },
            _ => return call(self.random.below(2) == 0),
        };
        NewStackRun {
            id: row_id(),
            kind,
            claimed: false,
        }
    }

    /// Calls that anyone may do, done.
    async fn finish(&mut self) {
        let claimed = self.storage.claim_calls(self.claim()).await.unwrap();
        let finishes: Vec<_> = claimed
            .iter()
            .map(|call| CallFinish {
                call: call.row.id,
                lease: Lease {
                    worker: self.worker,
                    epoch: call.row.epoch,
                },
                end: if self.random.below(4) == 0 {
                    CallEnd::RetryAt {
                        not_before: self.now.plus_millis(30),
                        failure: Failure::new("Error", "again"),
                    }
                } else {
                    CallEnd::Settled(Outcome::Completed(None))
                },
            })
            .collect();
        self.storage
            .finish_calls(finishes.into(), self.now)
            .await
            .unwrap();
    }

    async fn release(&mut self) {
        let held: Vec<_> = self.held.drain().map(|(_, held)| held).collect();
        for held in held {
            let worker = self.worker;
            let calls: Vec<_> = held
                .calls
                .iter()
                .map(|(call, _)| ReleasedCall {
                    call: *call,
                    lease: Lease {
                        worker,
                        epoch: Epoch(1),
                    },
                    asked: false,
                })
                .collect();
            self.storage.release_calls(&calls, self.now).await.unwrap();
            let lease = Lease {
                worker,
                epoch: held.row.epoch,
            };
            self.storage
                .release_frames(&[(held.row.id, lease)], self.now)
                .await
                .unwrap();
        }
    }

    /// Cancels, with or without grace, and signals.
    async fn end_from_outside(&mut self) {
        let Some(run) = self.runs.pop() else { return };
        match self.random.below(3) {
            0 => {
                self.storage.cancel(run, self.now).await.unwrap();
            }
            1 => {
                let by = self.now.plus_millis(50);
                self.storage
                    .request_cancel(run, by, self.now)
                    .await
                    .unwrap();
            }
            _ => {
                let signal = NewSignal {
                    id: row_id().as_uuid(),
                    run,
                    name: "go".to_owned(),
                    payload: Json::null(),
                };
                self.storage.send_signal(signal, self.now).await.unwrap();
            }
        }
    }
}
