//! A task driven by hand: suspended as bytes, resumed from them.

mod vm_support;

use std::sync::Arc;

use tasker_core::adaptor::{CallSeq, Json, Outcome, TaskVersion, Timestamp};
use tasker_core::execution::{
    Execution, ExecutionError, ExecutionOptions, Pending, PendingCall, ResumeOptions, Step,
};
use tasker_core::task::Program;
use vm_support::{json, program};

const SOURCE: &str = "module.exports = async (input, { tools, sleep, signal }) => { console.log('begun'); const id = crypto.randomUUID(); const a = await tools.db.get(input, id); await sleep(50); const [s, t] = await Promise.all([signal('go'), tools.tasks.execute('child', { a })]); return { a, s, t, id, now: Date.now() }; };";

fn options(key: Option<[u8; 32]>) -> ExecutionOptions {
    ExecutionOptions {
        time: Timestamp::from_millis(1_000),
        seed: [3; 32],
        key,
        ..ExecutionOptions::default()
    }
}

fn begin(program: &Arc<Program>, key: Option<[u8; 32]>) -> (Vec<PendingCall>, Vec<u8>) {
    suspended(Execution::start(program, json("7"), options(key)).unwrap())
}

fn suspended(step: Step) -> (Vec<PendingCall>, Vec<u8>) {
    match step {
        Step::Suspended { calls, state, .. } => (calls, state),
        other => panic!("{other:?}"),
    }
}

fn resume(
    program: &Arc<Program>,
    state: &[u8],
    answers: &[(u32, &str)],
    time: i64,
) -> Result<Step, ExecutionError> {
    let answers = answers
        .iter()
        .map(|(seq, text)| (CallSeq(*seq), Outcome::Completed(Some(json(text)))))
        .collect();
    let options = ResumeOptions {
        time: Timestamp::from_millis(time),
        key: None,
    };
    Execution::resume(program, state, answers, &options)
}

#[test]
fn a_task_goes_on_from_its_bytes() {
    let program = Arc::new(program(SOURCE));
    let (calls, state) = begin(&program, None);
    let Pending::Call {
        service,
        path,
        args,
    } = &calls[0].what
    else {
        panic!("{calls:?}")
    };
    assert_eq!((service.as_str(), path.as_str()), ("db", "get"));
    let id: (i32, String) = args.to().unwrap();
    let (calls, state) =
        suspended(resume(&program, &state, &[(1, r#"{"x":1.0}"#)], 2_000).unwrap());
    assert_eq!(
        calls,
        [PendingCall {
            seq: CallSeq(2),
            what: Pending::Timer {
                due: Timestamp::from_millis(2_050)
            }
        }]
    );
    let (calls, state) = suspended(resume(&program, &state, &[(2, "null")], 3_000).unwrap());
    assert_eq!(
        calls.iter().map(|call| call.seq.0).collect::<Vec<_>>(),
        [3, 4]
    );
    assert_eq!(
        calls[1].what,
        Pending::Task {
            name: "child".into(),
            input: json(r#"{"a":{"x":1}}"#)
        }
    );
    // The same bytes resume as often as one likes, in either order.
    let (_, later) = suspended(resume(&program, &state, &[(4, "\"t\"")], 4_000).unwrap());
    let one = resume(&program, &later, &[(3, "\"s\"")], 5_000).unwrap();
    let Step::Completed {
        value: Some(value),
        logs,
    } = one
    else {
        panic!("{one:?}")
    };
    assert_eq!(
        value.text(),
        format!(
            r#"{{"a":{{"x":1}},"s":"s","t":"t","id":"{}","now":5000}}"#,
            id.1
        )
    );
    assert!(logs.is_empty(), "lines are not written again");
    let both = resume(&program, &state, &[(3, "\"s\""), (4, "\"t\"")], 1).unwrap();
    assert!(
        matches!(both, Step::Completed { value: Some(value), .. } if value.text().ends_with("\"now\":3000}")),
        "time does not go back"
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let program = Arc::new(program(SOURCE));
    let (_, state) = begin(&program, None);
    assert!(matches!(
        resume(&program, &state, &[(2, "1")], 0),
        Err(ExecutionError::NotOpen(CallSeq(2)))
    ));
    assert!(matches!(
        resume(&program, &state, &[(1, "1"), (1, "1")], 0),
        Err(ExecutionError::NotOpen(CallSeq(1)))
    ));
    assert!(matches!(
        resume(&program, b"{}", &[], 0),
        Err(ExecutionError::Unreadable(_))
    ));
    assert!(matches!(
        resume(&program, &state[..state.len() - 3], &[], 0),
        Err(ExecutionError::Unreadable(_))
    ));
    let other = Arc::new(Program {
        version: TaskVersion::new("v2"),
        ..Program::clone(&program)
    });
    assert!(matches!(
        resume(&other, &state, &[], 0),
        Err(ExecutionError::OtherProgram { .. })
    ));
    let (_, state) = suspended(resume(&program, &state, &[(1, "1")], 0).unwrap());
    let changed = Arc::new(vm_support::program(
        &SOURCE.replace("sleep(50)", "sleep(60)"),
    ));
    let error = resume(&changed, &state, &[(2, "null")], 0).unwrap_err();
    assert!(matches!(&error, ExecutionError::Diverged(_)), "{error}");
    assert!(
        error
            .to_string()
            .contains("recorded timer.sleep50, attempted timer.sleep60"),
        "{error}"
    );
    let shorter = Arc::new(vm_support::program(
        "module.exports = async (input, { tools }) => tools.db.get(input, crypto.randomUUID());",
    ));
    assert!(matches!(
        resume(&shorter, &state, &[(2, "null")], 0),
        Err(ExecutionError::Diverged(_))
    ));
}

#[test]
fn a_signed_state_that_was_changed_is_refused() {
    let program = Arc::new(program(SOURCE));
    let key = Some([9; 32]);
    let (_, state) = begin(&program, key);
    let with = |state: &[u8], key| {
        let answer = Outcome::Completed(Some(Json::null()));
        let options = ResumeOptions {
            time: Timestamp::from_millis(1),
            key,
        };
        Execution::resume(&program, state, vec![(CallSeq(1), answer)], &options)
    };
    assert!(with(&state, key).is_ok());
    assert!(matches!(
        with(&state, None),
        Err(ExecutionError::WrongKeyUse("signed"))
    ));
    assert!(matches!(
        with(&state, Some([8; 32])),
        Err(ExecutionError::Tampered)
    ));
    for at in [30, state.len() / 2, state.len() - 2] {
        let mut changed = state.clone();
        changed[at] ^= 1;
        assert!(with(&changed, key).is_err(), "byte {at}");
    }
    let (_, unsigned) = begin(&program, None);
    assert!(matches!(
        with(&unsigned, key),
        Err(ExecutionError::WrongKeyUse("not signed"))
    ));
}
