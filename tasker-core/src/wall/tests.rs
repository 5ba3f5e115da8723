//! Commands and answers across the pipe, honest and not.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use std::sync::Arc;

use proptest::prelude::*;
use tasker_adaptor::{
    BlockedReason, CallRecord, CallSeq, Failure, Json, LogLevel, LogLine, Outcome, StackKind,
    TaskName, TaskVersion, Timestamp,
};

use super::answers::{Answer, read_answer, write_report};
use super::check::{Believed, Ledger, max_answer};
use super::codec::{LENGTH, split};
use super::commands::{CommandReader, CommandWriter, turn_of};
use super::wire::{Garbled, Output};
use super::worker::{VmCommand, VmDid, VmKey, VmReport, Watched, Worker};
use crate::limits::Limits;
use crate::run::{History, RecordedTurn};
use crate::service::ServiceStyle;
use crate::task::{Module, ModuleFormat, Program};
use crate::vm::{
    BytecodeCache, Made, RunInfo, Stopper, ToolNames, Turn, TurnEnd, VmDeliver, VmPool, VmStart,
};

const SOURCE: &str = "module.exports = async function (input, context) {
    const { tools } = context;
    console.log('begins', { input });
    const timer = setTimeout(() => {}, 5);
    const first = await tools.svc.step(input, 'ä');
    clearTimeout(timer);
    try { await tools.db.from('t').select('*').eq('id', first) } catch (e) { console.error(e) }
    await tools.tasks.execute('other', { first });
    await context.signal('go');
    throw Object.assign(new TypeError('no', { cause: new Error('why') }), { code: 'E1', details: { a: 1 } });
}";

struct Unwatched;

impl Watched for Unwatched {
    fn begins(&mut self, _: VmKey, _: Stopper, _: u64) {}
    fn replayed_one(&mut self, _: VmKey) {}
    fn ends(&mut self) {}
}

fn start() -> VmStart {
    VmStart {
        program: Arc::new(Program {
            name: TaskName::new("main"),
            version: TaskVersion::new("v1"),
            entry: Module {
                path: "main.js".into(),
                source: SOURCE.into(),
                format: ModuleFormat::CommonJs,
            },
            modules: vec![Module {
                path: "lib/other.js".into(),
                source: "export const a = 1".into(),
                format: ModuleFormat::EsModule,
            }],
            bare_function: None,
        }),
        input: Json::parse("[1,{\"a\":null}]").unwrap(),
        seed: [7; 32],
        time: Timestamp::from_millis(-5),
        tools: Arc::new(ToolNames::new([
            ("svc".to_owned(), ServiceStyle::Plain),
            ("db".to_owned(), ServiceStyle::Fluent),
        ])),
        run: RunInfo {
            id: "run".into(),
            task: "main".into(),
            version: "v1".into(),
            depth: 3,
            correlation_id: Some("c".into()),
            labels: [("k".to_owned(), "v".to_owned())].into(),
        },
        limits: Arc::new(Limits::default()),
    }
}

fn started(key: u64, history: Option<History>) -> VmCommand {
    VmCommand::Start {
        key: VmKey(key),
        start: Box::new(start()),
        history: history.map(Arc::new),
    }
}

fn delivered(key: u64, seq: u32, outcome: Outcome) -> VmCommand {
    VmCommand::Deliver {
        key: VmKey(key),
        deliver: VmDeliver {
            time: Timestamp::from_millis(i64::from(seq) * 1_000),
            items: vec![(CallSeq(seq), outcome)],
        },
    }
}

fn value(text: &str) -> Outcome {
    Outcome::Completed(Some(Json::parse(text).unwrap()))
}

fn failure() -> Failure {
    Failure {
        kind: Some("CONFLICT_ERROR".into()),
        code: Some("TAKEN".into()),
        status: Some(409),
        details: Some(Json::parse("{\"at\":1}").unwrap()),
        retry_after_ms: Some(3),
        stack: Some("  at main.js:1".into()),
        cause: Some(Box::new(Failure::new("Error", "deep"))),
        ..Failure::new("ServiceError", "taken")
    }
}

/// A frame from its first turn to its end, and what was recorded of its first turns.
fn commands() -> Vec<VmCommand> {
    vec![
        started(1, None),
        delivered(1, 2, value("\"one\"")),
        delivered(1, 3, Outcome::Failed(failure())),
        delivered(1, 4, value("null")),
        delivered(1, 5, Outcome::Completed(None)),
        VmCommand::Drop { key: VmKey(1) },
        started(2, Some(recorded("[[1,{\"a\":null}],\"ä\"]"))),
        started(3, Some(recorded("[0]"))),
    ]
}

fn recorded(args: &str) -> History {
    let record = |service: &str, path: &str, args: &str| CallRecord {
        service: service.into(),
        path: path.into(),
        args: args.into(),
    };
    History::from_recorded(
        vec![
            (StackKind::Timer, record("timer", "setTimeout", "5")),
            (StackKind::Call, record("svc", "step", args)),
            (
                StackKind::Call,
                record(
                    "db",
                    "from().select().eq()",
                    "[[\"t\"],[\"*\"],[\"id\",\"one\"]]",
                ),
            ),
        ],
        vec![RecordedTurn {
            time: Timestamp::from_millis(2_000),
            items: vec![(CallSeq(2), value("\"one\""))],
        }],
    )
}

/// What an honest child makes of bytes.
fn answers(bytes: &[u8]) -> Vec<VmReport> {
    let mut worker = Worker::new(VmPool::new(Arc::new(BytecodeCache::new()), 0));
    let mut reader = CommandReader::default();
    let mut rest = bytes;
    let mut reports = Vec::new();
    while let Some((body, size)) = split(rest, u64::MAX).unwrap() {
        if let Some(command) = reader.read(body).unwrap()
            && let Some(report) = worker.handle(command, &mut Unwatched)
        {
            reports.push(report);
        }
        rest = &rest[size..];
    }
    assert!(rest.is_empty());
    reports
}

fn written(commands: &[VmCommand]) -> Vec<u8> {
    let (mut writer, mut out) = (CommandWriter::default(), Output::default());
    for command in commands {
        writer.write(&mut out, command);
    }
    out.0
}

fn same(one: &VmReport, other: &VmReport) {
    assert_eq!(
        (one.key, one.time, format!("{:?}", one.what)),
        (other.key, other.time, format!("{:?}", other.what))
    );
}

/// Believes answers as a host does; the first that is not believed ends it.
fn believe(commands: &[VmCommand], mut bytes: &[u8]) -> Result<Vec<VmReport>, Garbled> {
    let mut ledger = Ledger::default();
    for command in commands {
        assert!(ledger.note(command));
    }
    let mut reports = Vec::new();
    while let Some((body, size)) = split(bytes, max_answer(&Limits::default()))? {
        if let Believed::Report(report) = ledger.check(read_answer(body)?)? {
            reports.push(report);
        }
        bytes = &bytes[size..];
    }
    Ok(reports)
}

fn honest() -> (Vec<VmCommand>, Vec<VmReport>, Vec<u8>) {
    let commands = commands();
    let reports = answers(&written(&commands));
    let mut out = Output::default();
    for report in &reports {
        write_report(&mut out, report);
    }
    (commands, reports, out.0)
}

#[test]
fn what_a_child_does_is_what_the_host_believes() {
    let (commands, reports, bytes) = honest();
    let mut worker = Worker::new(VmPool::new(Arc::new(BytecodeCache::new()), 0));
    let here: Vec<VmReport> = commands
        .iter()
        .map(clone)
        .filter_map(|command| worker.handle(command, &mut Unwatched))
        .collect();
    let believed = believe(&commands, &bytes).unwrap();
    assert_eq!((here.len(), reports.len(), believed.len()), (7, 7, 7));
    for ((here, there), believed) in here.iter().zip(&reports).zip(&believed) {
        same(here, there);
        same(here, believed);
    }
    assert!(
        matches!(&believed[4].what, VmDid::Turned(turn) if matches!(&turn.end, TurnEnd::Failed(failure) if failure.cause.is_some()))
    );
    assert!(
        matches!(believed[5].what, VmDid::Replayed),
        "{:?}",
        believed[5]
    );
    assert!(matches!(
        &believed[6].what,
        VmDid::Diverged(BlockedReason::Diverged {
            seq: CallSeq(2),
            ..
        })
    ));
}

fn clone(command: &VmCommand) -> VmCommand {
    match command {
        VmCommand::Start {
            key,
            start,
            history,
        } => VmCommand::Start {
            key: *key,
            start: start.clone(),
            history: history.clone(),
        },
        VmCommand::Deliver { key, deliver } => VmCommand::Deliver {
            key: *key,
            deliver: deliver.clone(),
        },
        VmCommand::Drop { key } => VmCommand::Drop { key: *key },
    }
}

#[test]
fn a_program_crosses_once() {
    let once = written(&[started(1, None)]).len();
    let twice = written(&[started(1, None), started(2, None)]);
    assert!(twice.len() - once < 200, "{} and {once}", twice.len());
    assert_eq!(answers(&twice).len(), 2);
}

#[test]
fn whose_turn_comes_next_is_known_before_its_message_is_read() {
    let next = |command| {
        let bytes = written(&[command]);
        let body = split(&bytes, u64::MAX).unwrap().unwrap().0;
        assert_eq!((turn_of(&body[..0]), turn_of(&body[..1])), (None, None));
        turn_of(body)
    };
    assert_eq!(next(delivered(7, 1, value("1"))), Some(VmKey(7)));
    assert_eq!(next(VmCommand::Drop { key: VmKey(7) }), None);
}

#[test]
fn programs_that_were_forgotten_cross_again() {
    let (mut writer, mut out) = (CommandWriter::default(), Output::default());
    let mut start = start();
    for version in 0..40 {
        let program = Arc::make_mut(&mut start.program);
        program.version = TaskVersion::new(format!("v{}", version % 20));
        program.modules[0].source = format!("// {}", "x".repeat(2 << 20));
        writer.write(
            &mut out,
            &VmCommand::Start {
                key: VmKey(version),
                start: Box::new(start.clone()),
                history: None,
            },
        );
    }
    assert_eq!(answers(&out.0).len(), 40);
}

fn turned(turn: Turn) -> Answer {
    Answer::Turned(VmKey(1), 300_000, turn)
}

fn turn(made: Vec<Made>, end: TurnEnd) -> Turn {
    Turn {
        made,
        dropped: Vec::new(),
        logs: Vec::new(),
        end,
    }
}

fn call(service: &str, path: &str, args: &str) -> Made {
    Made::Call {
        service: service.into(),
        path: path.into(),
        args: Json::parse(args).unwrap(),
        policy: None,
    }
}

#[test]
fn lies_are_not_believed() {
    let small = Limits {
        calls: 2,
        open_calls: 1,
        payload_bytes: 20,
        json_depth: 2,
        log_lines: 1,
        log_line_bytes: 10,
        ..Limits::default()
    };
    let line = |text: &str| LogLine {
        level: LogLevel::Info,
        message: text.into(),
        data: None,
    };
    let waits = |made| turn(made, TurnEnd::Waiting);
    let one = || call("svc", "step", "[]");
    let with_policy = |text: &str| {
        let mut call = one();
        if let Made::Call { policy, .. } = &mut call {
            *policy = Some(Json::parse(text).unwrap());
        }
        call
    };
    let lies: Vec<(Answer, &str)> = vec![
        (turned(waits(vec![])), "it waits for nothing"),
        (
            turned(waits(vec![one(), one(), one()])),
            "it makes more calls than its limit",
        ),
        (
            turned(waits(vec![one(), one()])),
            "it has more open calls than its limit",
        ),
        (
            turned(waits(vec![call("wrappedsvc", "step", "[]")])),
            "a call by a name that is not the service's own",
        ),
        (
            turned(waits(vec![call("tasks", "execute", "[]")])),
            "a nested task as if it were a call",
        ),
        (
            turned(waits(vec![call("svc", "step", "{}")])),
            "arguments that are not an array",
        ),
        (
            turned(waits(vec![with_policy("{\"timeoutMs\":0}")])),
            "a policy of a call that is none",
        ),
        (
            turned(waits(vec![with_policy(&format!(
                "{{{}}}",
                " ".repeat(2_000)
            ))])),
            "a policy of a call that is none",
        ),
        (
            turned(waits(vec![call("svc", "step", "[\"123456789012345678\"]")])),
            "a payload passes its limit",
        ),
        (
            turned(waits(vec![call("svc", "step", "[[[[[]]]]]")])),
            "a payload passes its limit",
        ),
        (
            turned(waits(vec![Made::Task {
                name: String::new(),
                input: Json::null(),
            }])),
            "a nested task without a name",
        ),
        (
            turned(waits(vec![Made::Timer {
                path: "sleep",
                delay_ms: u64::MAX,
            }])),
            "a timer that is longer than one can be",
        ),
        (
            turned(Turn {
                dropped: vec![CallSeq(1), CallSeq(1)],
                ..waits(vec![one()])
            }),
            "it gives up a call that is not open",
        ),
        (
            turned(Turn {
                dropped: vec![CallSeq(2)],
                ..waits(vec![one()])
            }),
            "it gives up a call that is not open",
        ),
        (
            turned(Turn {
                logs: vec![line(""), line(""), line("")],
                ..waits(vec![one()])
            }),
            "it writes more lines, or longer ones, than its limit",
        ),
        (
            turned(Turn {
                logs: vec![line(&"x".repeat(300))],
                ..waits(vec![one()])
            }),
            "it writes more lines, or longer ones, than its limit",
        ),
        (
            turned(turn(
                vec![],
                TurnEnd::Completed(Some(Json::parse("\"1234567890123456789\"").unwrap())),
            )),
            "a payload passes its limit",
        ),
        (
            Answer::Turned(VmKey(2), 0, waits(vec![one()])),
            "it answers what was not asked",
        ),
        (
            Answer::Replayed(VmKey(1), 0),
            "it answers otherwise than it was asked",
        ),
        (
            Answer::ReplayedOne(VmKey(1)),
            "it answers otherwise than it was asked",
        ),
        (
            Answer::Fault("a fault is not a report".into()),
            "it answers what was not asked",
        ),
    ];
    for (lie, why) in lies {
        let mut ledger = Ledger::default();
        let mut start = start();
        start.limits = Arc::new(small.clone());
        assert!(ledger.note(&VmCommand::Start {
            key: VmKey(1),
            start: Box::new(start),
            history: None
        }));
        let shown = format!("{lie:?}");
        assert_eq!(ledger.check(lie).map(drop), Err(Garbled(why)), "{shown}");
    }
}

#[test]
fn an_ended_frame_says_nothing_more() {
    let mut ledger = Ledger::default();
    ledger.note(&started(1, None));
    ledger.note(&delivered(1, 1, value("1")));
    ledger.note(&delivered(1, 1, value("1")));
    let ends = || turned(turn(vec![], TurnEnd::Completed(None)));
    assert!(ledger.check(ends()).is_ok());
    let again = turned(turn(vec![], TurnEnd::Failed(Failure::new("Error", "over"))));
    assert!(ledger.check(again).is_ok(), "an honest child says so too");
    assert!(ledger.check(ends()).is_err());
}

#[test]
fn what_a_frame_is_said_to_take_counts_for_no_more_than_it_may_have() {
    let (said, may) = (usize::MAX, start().limits.memory_bytes);
    for (said, counts) in [(300_000, 300_000), (said, may)] {
        let mut ledger = Ledger::default();
        ledger.note(&started(1, None));
        let answer = Answer::Turned(VmKey(1), said, turn(vec![], TurnEnd::Completed(None)));
        match ledger.check(answer) {
            Ok(Believed::Report(report)) => assert_eq!(report.memory, Some(counts)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_replay_has_as_many_turns_as_were_recorded() {
    let mut ledger = Ledger::default();
    ledger.note(&started(1, Some(recorded("[0]"))));
    assert!(ledger.check(Answer::ReplayedOne(VmKey(1))).is_ok());
    assert!(ledger.check(Answer::ReplayedOne(VmKey(1))).is_err());
}

#[test]
fn a_vm_that_was_dropped_still_answers_and_is_forgotten_then() {
    let mut ledger = Ledger::default();
    ledger.note(&started(1, None));
    assert!(ledger.note(&VmCommand::Drop { key: VmKey(1) }));
    assert!(
        ledger
            .check(turned(turn(vec![call("svc", "a", "[]")], TurnEnd::Waiting)))
            .is_ok()
    );
    assert!(ledger.clear().is_empty());
    assert!(!ledger.note(&delivered(1, 1, value("1"))), "it is not here");
    assert!(!ledger.note(&VmCommand::Drop { key: VmKey(1) }));
}

#[test]
fn an_answer_that_was_cut_anywhere_waits_for_the_rest_or_is_refused() {
    let (commands, reports, bytes) = honest();
    for end in 0..bytes.len() {
        let believed = believe(&commands, &bytes[..end]).unwrap();
        assert!(believed.len() < reports.len());
    }
    // The same, with a length that says it is whole.
    for end in LENGTH..200 {
        let mut short = ((end - LENGTH) as u64).to_le_bytes().to_vec();
        short.extend_from_slice(&bytes[LENGTH..end]);
        let whole = split(&bytes, u64::MAX).unwrap().unwrap().1;
        assert_eq!(believe(&commands, &short).is_ok(), end == whole, "{end}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever is changed in what a child says, the host neither panics nor believes anything that breaks its own rules.
    #[test]
    fn changed_bytes_never_break_the_host(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in any::<prop::sample::Index>(), insert: bool) {
        thread_local! {
            static HONEST: (Vec<VmCommand>, Vec<VmReport>, Vec<u8>) = honest();
        }
        HONEST.with(|(commands, _, bytes)| {
            let mut bytes = bytes.clone();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if insert {
                let at = cut.index(bytes.len());
                bytes.insert(at, 0);
            }
            if let Ok(reports) = believe(commands, &bytes) {
                prop_assert!(reports.len() <= 7);
                for report in reports {
                    if let VmDid::Turned(turn) = report.what {
                        prop_assert!(turn.made.len() <= 7);
                        for made in turn.made {
                            if let Made::Call { args, .. } = made {
                                prop_assert!(Json::parse(args.text()).is_ok());
                            }
                        }
                    }
                }
            }
            Ok(())
        })?;
    }
}
