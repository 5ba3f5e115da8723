//! From JSDoc to schemas, and what schemas are good for.

use proptest::prelude::*;
use tasker_adaptor::Json;
use tasker_core::service::{MethodDescription, ServiceDescription};
use tasker_core::task::{Schema, prepare, type_declarations};
use tasker_core::{Limits, TaskOptions, TaskSource};

fn schema(text: &str) -> Schema {
    let task = prepare(
        TaskSource::file("the-task.js", text),
        &TaskOptions::default(),
        &Limits::default(),
    )
    .unwrap_or_else(|error| panic!("{text}\n{error}"));
    assert_eq!(
        Schema::from_json(&task.new_task.schema),
        task.schema,
        "{text}"
    );
    task.schema
}

fn value(json: &Json) -> serde_json::Value {
    json.to().expect("a schema is JSON")
}

/// The text on many lines, with members in the order written.
fn pretty(json: &Json) -> String {
    let (mut out, mut depth, mut quoted, mut escaped) = (String::new(), 0_usize, false, false);
    let newline = |out: &mut String, depth: usize| out.extend(["\n", &"  ".repeat(depth)]);
    for c in json.text().chars() {
        if !quoted && matches!(c, '}' | ']') {
            depth -= 1;
            newline(&mut out, depth);
        }
        out.push(c);
        if quoted {
            quoted = c != '"' || escaped;
            escaped = c == '\\' && !escaped;
            continue;
        }
        match c {
            '"' => quoted = true,
            '{' | '[' => {
                depth += 1;
                newline(&mut out, depth);
            }
            ',' => newline(&mut out, depth),
            ':' => out.push(' '),
            _ => {}
        }
    }
    out
}

const HELLO: &str = "/**
 * Greets somebody.
 * @task helloWorld
 * @param {object} input - The input parameters
 * @param {string} input.name - Name to greet
 * @returns {string} message - The greeting
 * @returns {string} [meta.at] - When
 * @throws {Error} When the name is empty
 */
module.exports = async function execute(input, context) {};";

#[test]
fn a_task_in_three_formats() {
    let schema = schema(HELLO);
    insta::assert_snapshot!("json", pretty(&schema.json()));
    insta::assert_snapshot!("openapi", pretty(&schema.openapi()));
    insta::assert_snapshot!("openai", pretty(&schema.openai()));
    insta::assert_snapshot!("input", pretty(&schema.input_schema()));
}

#[test]
fn the_two_tasks_of_the_readme() {
    for name in ["gapi-list-domains-with-nested", "module-diagnostic"] {
        let path = format!("{}/../examples/tasks/{name}.js", env!("CARGO_MANIFEST_DIR"));
        let schema = schema(&std::fs::read_to_string(path).unwrap());
        assert_eq!(schema.name, name);
        insta::assert_snapshot!(name, pretty(&schema.json()));
    }
}

#[test]
fn the_description_tag_is_the_description() {
    let one =
        schema("/**\n * @task t\n * @description List all domains\n */ module.exports = () => 1");
    assert_eq!(one.description, "List all domains");
    let free = schema("/** Lists.\n *\n * More. */ module.exports = () => 1");
    assert_eq!(free.description, "Lists.\n\nMore.");
}

#[test]
fn defaults_of_every_literal_keep_their_parameter() {
    let schema = schema(
        r#"/**
         * @param {object} input
         * @param {number} [input.max=3] - Most
         * @param {string} [input.model="gpt-4o"] - Model
         * @param {string} [input.greeting="good day - friend"] - With blanks
         * @param {number} [input.temperature=0.7]
         * @param {string[]} [input.list=[]]
         * @param {object} [input.options={deep: [1, null]}]
         * @param {boolean} [input.flag=true]
         * @param {?string} [input.none=null]
         * @param {number} [input.now=Date.now()]
         */ module.exports = (input) => 1"#,
    );
    insta::assert_snapshot!("defaults", pretty(&schema.input_schema()));
}

#[test]
fn names_nest_through_objects_and_arrays() {
    let schema = schema(
        "/**
         * @param {Array<object>} input.messages Messages without a dash
         * @param {'user'|'assistant'} input.messages.0.role
         * @param {string} input.messages[].text - Text
         * @param {Array<string>} input.tags
         * @param {Object<string, number>} input.weights
         * @param {(string|number)} input.id
         * @param {Date} [input.since]
         * @param {{a: string, b?: integer}} input.pair
         */ export default async function run(input, { tools }) {}",
    );
    insta::assert_snapshot!("nested", pretty(&schema.json()));
}

#[test]
fn a_destructured_input_is_one_input() {
    let text = "/**
         * @param {string} query - What to look for
         * @param {number} [max=10] - Most
         * @param {object} context
         */ module.exports = async function({ query, max = 7, extra = [1], needed }, { tools }) {}";
    let schema = schema(text);
    assert_eq!(
        value(&schema.json())["parameters"],
        serde_json::json!({
            "type": "object",
            "properties": { "input": { "type": "object",
                "properties": {
                    "query": { "type": "string", "description": "What to look for" },
                    "max": { "type": "number", "description": "Most", "default": 10 },
                    "extra": { "default": [1] },
                    "needed": {},
                },
                "required": ["query", "needed"] } },
            "required": ["input"],
        })
    );
}

#[test]
fn prose_after_returns_is_a_description() {
    let schema = schema("/** @returns {Object} Domain information */ module.exports = () => 1");
    assert_eq!(
        value(&schema.json())["returns"],
        serde_json::json!({ "type": "object", "description": "Domain information" })
    );
    let schema = self::schema(
        "/** @returns {Promise<{ok: boolean}>} whether it worked */ module.exports = () => 1",
    );
    assert_eq!(
        value(&schema.json())["returns"]["properties"]["ok"]["type"],
        "boolean"
    );
}

#[test]
fn the_comment_of_the_task_is_used_and_not_the_one_of_a_helper() {
    let helper_first = "/** Reads one header. @param {string} header */
        function getHeaderValue(header) {}
        /** The task itself. */
        module.exports = async function({ a }) {}";
    let schema = schema(helper_first);
    assert_eq!(schema.name, "the-task");
    assert_eq!(schema.description, "The task itself.");
    let named = self::schema(
        "/** A helper. */ function a() {}\n/** The task. */ async function b(input) {}\nmodule.exports = b;",
    );
    assert_eq!(named.description, "The task.");
    let tagged = self::schema(
        "/** @task x\n * @description Right */\nconst y = 1;\n/** Wrong. */ module.exports = () => y",
    );
    assert_eq!(tagged.description, "Right");
}

#[test]
fn types_that_are_not_known_give_a_warning() {
    let task = prepare(
        TaskSource::file(
            "a.js",
            "/** @param {Customer} input */ module.exports = (input) => input",
        ),
        &TaskOptions::default(),
        &Limits::default(),
    )
    .unwrap();
    assert_eq!(
        task.warnings,
        ["the type Customer is not known here and counts as any"]
    );
    assert_eq!(task.schema.input_schema().text(), "{}");
}

#[test]
fn an_input_is_checked_against_what_the_task_documents() {
    let schema = schema(
        "/**
         * @param {object} input
         * @param {string} input.query
         * @param {integer} [input.max=3]
         * @param {'a'|'b'} [input.mode]
         * @param {Array<{role: string}>} [input.messages]
         * @param {Record<string, number>} [input.weights]
         * @param {string|number|null} [input.id]
         * @param {Date} [input.since]
         */ module.exports = (input) => input",
    );
    let faults = |text: &str| match schema.validate(&Json::parse(text).unwrap()) {
        Ok(()) => Vec::new(),
        Err(faults) => faults,
    };
    for good in [
        r#"{"query":"x"}"#,
        r#"{"query":"\ud800","extra":1e999}"#,
        r#"{"query":"x","max":3.0,"mode":"b","messages":[{"role":"u"}],"weights":{"a":1},"id":null,"since":"2026-01-31T10:00:00Z"}"#,
        r#"{"query":"x","max":null,"since":"2026-01-31"}"#,
    ] {
        assert_eq!(faults(good), Vec::<String>::new(), "{good}");
    }
    for (bad, fault) in [
        ("3", "input: expected an object, found 3"),
        ("{}", "input.query: is missing, expected text"),
        (r#"{"query":3}"#, "input.query: expected text, found 3"),
        (
            r#"{"query":"x","max":3.5}"#,
            "input.max: expected a whole number, found 3.5",
        ),
        (
            r#"{"query":"x","mode":"c"}"#,
            r#"input.mode: expected one of "a", "b", found "c""#,
        ),
        (
            r#"{"query":"x","messages":[{"role":"u"},{"role":1}]}"#,
            "input.messages[1].role: expected text, found 1",
        ),
        (
            r#"{"query":"x","weights":{"a":"1"}}"#,
            r#"input.weights.a: expected a number, found "1""#,
        ),
        (
            r#"{"query":"x","id":[]}"#,
            "input.id: expected text or a number or null, found []",
        ),
        (
            r#"{"query":"x","since":"soon"}"#,
            r#"input.since: expected a date as ISO text, found "soon""#,
        ),
    ] {
        assert_eq!(faults(bad), [fault], "{bad}");
    }
}

#[test]
fn editors_get_types_of_services_and_tasks() {
    let number = Json::parse(
        r#"{"type":"object","properties":{"id":{"type":"integer"}},"required":["id"]}"#,
    )
    .unwrap();
    let services = [
        ServiceDescription::new("orders")
            .describe("Orders of the shop")
            .method(
                MethodDescription::new("find")
                    .describe("Finds one")
                    .arg(number.clone())
                    .result(number),
            )
            .method(MethodDescription::new("admin.users.list")),
        ServiceDescription::new("supabase").fluent(),
    ];
    insta::assert_snapshot!("types", type_declarations(&services, &[schema(HELLO)]));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = prepare(TaskSource::file("a.js", text), &TaskOptions::default(), &Limits::default());
    }

    #[test]
    fn no_comment_panics_or_is_refused(
        lines in proptest::collection::vec(
            prop_oneof![
                "@(param|returns|throws|task|description) ?\\{?[a-z<>|\\[\\]{}().,?*=\"' ]{0,30}\\}? ?\\[?[a-z.0-9=\"'\\[\\]{}]{0,20}\\]? ?-? [a-z ]{0,10}",
                "[ -~]{0,60}",
            ],
            0..8,
        )
    ) {
        // What is left out of a text can leave the same behind: `**//` without `*/` is `*/`.
        let comment = lines.join("\n * ").replace("*/", "* /").replace("@task", "@tusk");
        let text = format!("/**\n * {comment}\n */\nmodule.exports = async function (input) {{}};");
        let task = prepare(TaskSource::file("a.js", text), &TaskOptions::default(), &Limits::default());
        let task = task.map_err(|error| TestCaseError::fail(error.to_string()))?;
        // What was read can be stored and read back.
        prop_assert_eq!(Schema::from_json(&task.new_task.schema).json(), task.schema.json());
        let _ = task.schema.openapi();
        let _ = task.schema.validate(&Json::null());
        let _ = type_declarations(&[], &[task.schema]);
    }
}
