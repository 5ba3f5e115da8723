//! Tokens: what an answer says of them, told to whoever keeps a budget.
//!
//! Each answer that names its usage is told in three places: in the answer itself (as the provider wrote it), as a line
//! of the run's log whose data is `{"usage": …}`, and as a `tracing` event of target `tasker::usage`. A host sums the
//! lines of a run, or the events by their `run_id`. Nothing is added to a request to learn it: a stream says it only
//! when the task asked with `stream_options: {include_usage: true}`.

use serde::{Deserialize, Serialize};
use tasker_core::service::ServiceCall;
use tasker_core::{Json, LogLevel};

/// Tokens of one answer, under the names of both APIs.
#[derive(Debug, Deserialize)]
struct Tokens {
    #[serde(rename = "input_tokens", alias = "prompt_tokens", default)]
    input: u64,
    #[serde(rename = "output_tokens", alias = "completion_tokens", default)]
    output: u64,
    #[serde(rename = "total_tokens", default)]
    total: Option<u64>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    model: String,
    #[serde(default)]
    usage: Option<Tokens>,
}

/// The data of the log line.
#[derive(Serialize)]
struct Line<'a> {
    usage: Usage<'a>,
}

#[derive(Serialize)]
struct Usage<'a> {
    service: &'a str,
    method: &'a str,
    model: &'a str,
    input_tokens: u64,
    output_tokens: u64,
    total_tokens: u64,
}

/// Tells what the answer of this call used.
pub(super) fn report(call: &ServiceCall, answer: &Json, streamed: bool) {
    let Ok(answer) = answer.to::<Answer>() else {
        return;
    };
    let method = call.method();
    let Some(tokens) = answer.usage else {
        if streamed {
            let text = format!(
                "{}.{method}: the stream did not say how many tokens it used; ask with stream_options: {{include_usage: true}}",
                call.service
            );
            call.log(LogLevel::Warn, text, None);
        }
        return;
    };
    let (input_tokens, output_tokens) = (tokens.input, tokens.output);
    let total_tokens = tokens
        .total
        .unwrap_or_else(|| input_tokens.saturating_add(output_tokens));
    let run_id = call.task_run.map(|run| run.to_string()).unwrap_or_default();
    tracing::info!(
        target: "tasker::usage",
        run_id,
        task = %call.task,
        service = &*call.service,
        method,
        model = answer.model,
        input_tokens,
        output_tokens,
        total_tokens,
        "tokens used"
    );
    let line = Line {
        usage: Usage {
            service: &call.service,
            method: &method,
            model: &answer.model,
            input_tokens,
            output_tokens,
            total_tokens,
        },
    };
    let text = format!("{}.{method} used {total_tokens} tokens", call.service);
    call.log(LogLevel::Info, text, Json::from(&line).ok());
}
