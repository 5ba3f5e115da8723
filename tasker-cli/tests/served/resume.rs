//! `/resume` by the id of a stack run: somebody else does the calls of a stored run.

use serde_json::json;

use crate::kit::Folder;
use crate::kit::server::Server;

const ASKS: &str = "/** @task asks */\nmodule.exports = async (input, { tools }) => {\n  const first = await tools.websearch.search({ query: input.q });\n  let second;\n  try { second = await tools.openai.models.list(); } catch (error) { second = error.type + ' ' + error.message; }\n  return { first, second };\n};\n";

#[tokio::test]
async fn a_stored_run_goes_on_with_answers_that_are_brought_to_it() {
    let folder = Folder::new();
    folder.write("tasks/asks.js", ASKS);
    folder.ok(&["publish", "--all"]);
    let services = [
        "--drive",
        "post",
        "--services",
        "deno-executor,simple-stack-processor,task-executor",
    ];
    let server = Server::start(&folder, &services, &[]);
    let id = folder.ok(&["run", "asks", "--input", r#"{"q":"x"}"#]);
    let root = folder.json(&["trace", &id])["root"]["id"].clone();
    let answer = json!({"stackRunId": root, "result": 1});
    let (status, said) = server.post("deno-executor", "/resume", &answer).await;
    assert!(
        status.as_u16() == 409 && said["errorDetails"]["code"] == "NOT_WAITING",
        "it has not asked yet: {said}"
    );

    // Its first turn: it asks and waits.
    server
        .post("simple-stack-processor", "/", &json!({"stackRunId": root}))
        .await;
    // By its frame: the first open call is meant.
    let (status, said) = server
        .post(
            "deno-executor",
            "/resume",
            &json!({"stackRunId": root, "result": {"hits": 1}}),
        )
        .await;
    let data = &said["data"];
    assert_eq!(
        (status.as_u16(), &data["status"], &data["taskRunId"]),
        (200, &json!("paused"), &json!(id)),
        "{said}"
    );
    assert_eq!(
        (
            &data["suspensionData"]["serviceName"],
            &data["suspensionData"]["methodName"]
        ),
        (&json!("openai"), &json!("models.list"))
    );
    let call = data["suspensionData"]["stackRunId"].clone();

    // By the call, in the earlier spelling, with a failure.
    let failed = json!({"stackRunIdToResume": call, "externalError": {"type": "NOT_FOUND_ERROR", "message": "gone"}});
    let (_, said) = server.post("deno-executor", "/resume", &failed).await;
    assert_eq!(
        (&said["data"]["status"], &said["data"]["result"]),
        (
            &json!("completed"),
            &json!({"first": {"hits": 1}, "second": "NOT_FOUND_ERROR gone"})
        ),
        "{said}"
    );
    assert_eq!(folder.json(&["status", &id])["status"], "completed");
    assert_eq!(folder.json(&["db", "check"])["violations"], json!([]));

    // A call is settled once.
    let (status, _) = server.post("deno-executor", "/resume", &failed).await;
    assert!([404, 409].contains(&status.as_u16()), "{status}");
    for (body, status) in [
        (json!({"stackRunId": 7, "result": 1}), 400),
        (json!({"stackRunId": "x", "result": 1}), 400),
        (json!({"stackRunId": call}), 400),
        (
            json!({"stackRunId": "018f0000-0000-7000-8000-000000000000", "result": 1}),
            404,
        ),
    ] {
        let (said_status, said) = server.post("deno-executor", "/resume", &body).await;
        assert_eq!(said_status.as_u16(), status, "{body}: {said}");
    }
}
