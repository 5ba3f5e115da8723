//! What publishing accepts and refuses.

use tasker_adaptor::{TaskFunction, Timestamp};
use tasker_core::task::{ModuleFormat, PreparedTask, Program, prepare};
use tasker_core::{Limits, TaskError, TaskOptions, TaskSource};

fn publish(source: TaskSource) -> Result<PreparedTask, TaskError> {
    prepare(source, &TaskOptions::default(), &Limits::default())
}

fn publish_text(text: &str) -> Result<PreparedTask, TaskError> {
    publish(TaskSource::file("some-task.js", text))
}

fn accepted(text: &str) -> PreparedTask {
    publish_text(text).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

fn refused(text: &str) -> String {
    publish_text(text).expect_err(text).to_string()
}

fn stored(task: &PreparedTask) -> TaskFunction {
    let new = task.new_task.clone();
    TaskFunction {
        name: new.name,
        version: new.version,
        source: new.source,
        modules: new.modules,
        schema: new.schema,
        options: new.options,
        created_at: Timestamp::from_millis(0),
        published_at: Timestamp::from_millis(0),
    }
}

#[test]
fn every_task_form_is_accepted() {
    use ModuleFormat::{CommonJs, EsModule};
    for (text, format, bare) in [
        (
            "module.exports = async function execute(input, context) {}",
            CommonJs,
            None,
        ),
        (
            "module.exports = async function execute(input, { tools }) {}",
            CommonJs,
            None,
        ),
        (
            "module.exports = async function({a, b = 3}) { return a + b }",
            CommonJs,
            None,
        ),
        (
            "module.exports = async function() { return await tools.database.list() }",
            CommonJs,
            None,
        ),
        (
            "async function run(input) {}\nmodule.exports = run;",
            CommonJs,
            None,
        ),
        (
            "function run() {}\nglobalThis.taskResult = 1;\nmodule.exports = run",
            CommonJs,
            None,
        ),
        ("module.exports = (input) => input;", CommonJs, None),
        ("module.exports = { answer: 42 };", CommonJs, None),
        ("module.exports = exports = function f() {}", CommonJs, None),
        ("exports.default = async (input) => input;", CommonJs, None),
        (
            "exports.runTask = async function (input, tools) {}",
            CommonJs,
            None,
        ),
        ("Object.assign(exports, { run() {} })", CommonJs, None),
        (
            "export default async function name(input) {}",
            EsModule,
            None,
        ),
        ("export default async (input) => input", EsModule, None),
        ("export default 42", EsModule, None),
        (
            "export async function runTask(input, tools) {}",
            EsModule,
            None,
        ),
        (
            "export const config = {}; export async function some_task(input) {}",
            EsModule,
            None,
        ),
        (
            "const run = async (i) => i; export { run as default };",
            EsModule,
            None,
        ),
        ("async function name(input) {}", CommonJs, Some("name")),
        (
            "const name = async (input) => input",
            CommonJs,
            Some("name"),
        ),
        (
            "function helper() {}\nasync function someTask(input) {}",
            CommonJs,
            Some("someTask"),
        ),
        (
            "function helper() {}\n/** @task x */\nfunction other(input) {}",
            CommonJs,
            Some("other"),
        ),
        (
            "function helper() {}\nasync function only(input) {}",
            CommonJs,
            Some("only"),
        ),
        (
            "function helper() {}\nfunction execute(input) {}",
            CommonJs,
            Some("execute"),
        ),
        (
            "with ({}) {} function sloppy() { return 010 }",
            CommonJs,
            Some("sloppy"),
        ),
        ("\u{feff}module.exports = 1", CommonJs, None),
    ] {
        let task = accepted(text);
        assert_eq!(task.program.entry.format, format, "{text}");
        assert_eq!(task.program.bare_function.as_deref(), bare, "{text}");
        assert_eq!(
            Program::from_function(&stored(&task)).unwrap(),
            task.program,
            "{text}"
        );
    }
}

#[test]
fn a_text_without_anything_to_run_is_refused_with_advice() {
    for (text, reason) in [
        ("", "no function and exports nothing"),
        ("1 + 1", "no function and exports nothing"),
        (
            "function a() {} function b() {}",
            "several functions (a, b)",
        ),
        (
            "export const a = 1, b = 2;",
            "exports a, b and none of them is a function",
        ),
    ] {
        let message = refused(text);
        assert!(message.contains(reason), "{message}");
        assert!(
            message.starts_with("some-task.js: ") && message.contains("module.exports = "),
            "{message}"
        );
    }
}

#[test]
fn a_text_that_does_not_parse_is_refused_with_its_place() {
    for (text, line, column) in [
        ("module.exports = function( {", 1, 29),
        ("const a = 1;\nconst b = = 2;", 2, 11),
        (
            "export default function () {\n  let a = 1;\n  let a = 2;\n}",
            2,
            7,
        ),
        ("/* ö */ let ö = ;", 1, 17),
        ("import x from './x.js'\nlet = = 1", 2, 7),
        ("interface A {}", 1, 10),
    ] {
        match publish_text(text) {
            Err(TaskError::Syntax {
                file,
                line: l,
                column: c,
                message,
            }) => {
                assert_eq!(
                    (file.as_str(), l, c),
                    ("some-task.js", line, column),
                    "{text}\n{message}"
                );
                assert!(message.contains(&format!("> {line} | ")), "{message}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn a_syntax_error_shows_the_lines_around_it() {
    insta::assert_snapshot!(refused("const a = 1;\nconst b = = 2;\nmodule.exports = a;"));
}

#[test]
fn the_name_comes_from_the_publisher_then_the_tag_then_the_file_then_the_function() {
    let text = "/** @task tagged - more */ module.exports = async function inner() {}";
    let name = |source| publish(source).unwrap().new_task.name.to_string();
    assert_eq!(
        name(TaskSource::file("x/file.js", text).named("given")),
        "given"
    );
    assert_eq!(name(TaskSource::file("x/file.js", text)), "tagged");
    assert_eq!(
        name(TaskSource::file("x/file.js", "module.exports = 1")),
        "file"
    );
    assert_eq!(name(TaskSource::text("async function inner() {}")), "inner");
    let error = publish(TaskSource::text("module.exports = () => 1")).unwrap_err();
    assert!(matches!(error, TaskError::BadName { .. }), "{error}");
    let error = publish(TaskSource::file("bad name.js", "module.exports = 1")).unwrap_err();
    assert!(
        error.to_string().contains("the file name of bad name.js"),
        "{error}"
    );
}

#[test]
fn the_version_depends_on_everything_that_decides_a_run_and_on_nothing_else() {
    let base = || {
        TaskSource::file("a.js", "module.exports = require('./b')")
            .module("b.js", "module.exports = 1")
    };
    let version = |source: TaskSource, options: &TaskOptions| {
        prepare(source, options, &Limits::default())
            .unwrap()
            .new_task
            .version
    };
    let plain = TaskOptions::default();
    let first = version(base(), &plain);
    assert_eq!(first.as_str().len(), 64);
    assert_eq!(first, version(base(), &plain));
    let two = |one: &str, other: &str| {
        TaskSource::file("a.js", "module.exports = 1")
            .module(one, "1;")
            .module(other, "1;")
    };
    assert_eq!(
        version(two("b.js", "c.js"), &plain),
        version(two("c.js", "b.js"), &plain)
    );
    for changed in [
        version(base().named("z"), &plain),
        version(base(), &TaskOptions::default().grant("keystore")),
        version(base().module("c.js", "1;"), &plain),
        version(
            TaskSource {
                path: "x/a.js".into(),
                ..base()
            }
            .module("x/b.js", "1;"),
            &plain,
        ),
        version(
            TaskSource {
                source: base().source + " ",
                ..base()
            },
            &plain,
        ),
    ] {
        assert_ne!(first, changed);
    }
}

#[test]
fn a_known_task_keeps_its_version_for_ever() {
    let task =
        publish(TaskSource::file("hello.js", "module.exports = 1").module("x.js", "1;")).unwrap();
    insta::assert_snapshot!(task.new_task.version.to_string());
}

#[test]
fn imports_lead_to_modules_of_the_task() {
    let task = publish(
        TaskSource::file("user/list.js", "import a from '../shared/a.js';\nimport './b.js';\nexport { c } from '../lib';\nexport default async () => (await import('../data.json')).default")
            .module("shared/a.js", "import '../user/list.js'; export default 1")
            .module("user/b.js", "export {}")
            .module("lib/index.js", "exports.c = require('./d')")
            .module("lib/d.cjs", "module.exports = 1")
            .module("data.json", "{\"x\": 1}"),
    )
    .unwrap();
    let program = &task.program;
    let to = |from: &str, specifier: &str| {
        program
            .resolve(from, specifier)
            .map(|module| module.path.as_str())
    };
    assert_eq!(to("user/list.js", "../shared/a.js"), Some("shared/a.js"));
    assert_eq!(to("shared/a.js", "../user/list"), Some("user/list.js"));
    assert_eq!(to("user/list.js", "../lib"), Some("lib/index.js"));
    assert_eq!(to("lib/index.js", "./d"), Some("lib/d.cjs"));
    assert_eq!(to("lib/index.js", "tasks"), None);
    let data = program.resolve("user/list.js", "../data.json").unwrap();
    assert_eq!(data.source, "module.exports = {\"x\": 1};\n");
    assert_eq!(
        Program::from_function(&stored(&task)).unwrap(),
        task.program
    );
}

#[test]
fn imports_that_lead_nowhere_name_file_and_line() {
    for (text, expected) in [
        (
            "\nconst x = require('./gone'); module.exports = x",
            "some-task.js:2: cannot find \"./gone\"; looked for gone, gone.js",
        ),
        (
            "import x from '../up.js'; export default x",
            "some-task.js:1: \"../up.js\" leads out of the folder",
        ),
        (
            "import fs from 'node:fs'; export default fs",
            "some-task.js:1: cannot import \"node:fs\"",
        ),
        (
            "module.exports = require('tasks')",
            "some-task.js:1: cannot import \"tasks\"",
        ),
    ] {
        let message = refused(text);
        assert!(message.contains(expected), "{message}");
    }
    let task = accepted(
        "let t; try { t = require('tasks') } catch { t = null }\nmodule.exports = () => import('./later.js')",
    );
    assert_eq!(task.warnings.len(), 2, "{:?}", task.warnings);
    assert!(
        task.warnings[0].contains("\"tasks\""),
        "{:?}",
        task.warnings
    );
    let error = publish(
        TaskSource::file("a.js", "module.exports = require('./b')")
            .module("b.js", "\n\nlet let = 1"),
    )
    .unwrap_err();
    assert!(error.to_string().starts_with("b.js:3:"), "{error}");
}

#[test]
fn too_much_source_is_refused() {
    let limits = Limits {
        source_bytes: 40,
        ..Limits::default()
    };
    let source =
        TaskSource::file("a.js", "module.exports = 1").module("b.js", "module.exports = 2222222");
    let error = prepare(source, &TaskOptions::default(), &limits)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("42 bytes")
            && error.contains("limit of 40")
            && error.contains("Limits::source_bytes"),
        "{error}"
    );
}

#[test]
fn no_text_overflows_the_stack() {
    for unit in [
        "(",
        "[",
        "{",
        "!",
        "a=>",
        "a=",
        "a?b:",
        "a**",
        "a+",
        "a.",
        "`${",
        "new ",
        "await ",
        "if(a)",
        "if(a){",
        "for(;;)",
        "if(a){}else ",
        "a:",
        "x={a:",
        "x=function(){",
        "async()=>{await(",
        "class A extends ",
        "f()`${",
    ] {
        // Below the limit the parser must manage; above it is not asked.
        for times in [1_000, 2_000, 4_000, 100_000] {
            let _ = publish_text(&unit.repeat(times));
            let _ = publish_text(&format!("module.exports = {}", unit.repeat(times)));
        }
        let deep = "(".repeat(100_000);
        assert!(matches!(
            publish_text(&deep),
            Err(TaskError::TooDeep { .. })
        ));
    }
    let balanced = |times: usize| {
        format!(
            "module.exports = {}1{};",
            "[".repeat(times),
            "]".repeat(times)
        )
    };
    accepted(&balanced(2_000));
    assert!(refused(&balanced(6_000)).contains("nest too deeply"));
    let chain = format!("module.exports = () => {}1;", "1+".repeat(4_000));
    accepted(&chain);
    let type_text = format!(
        "/** @param {{{}string{}}} input */ module.exports = (input) => 1",
        "Array<".repeat(4_000),
        ">".repeat(4_000)
    );
    accepted(&type_text);
    let default = format!(
        "/** @param {{*}} [input={}{}] */ module.exports = (input) => 1",
        "[".repeat(4_000),
        "]".repeat(4_000)
    );
    accepted(&default);
    let names = format!(
        "/** @param {{*}} input{} */ module.exports = (input) => 1",
        ".a".repeat(50_000)
    );
    accepted(&names);
}
