//! Streams gathered into the answer that the same request gives without `stream: true`. Pure.

use serde_json::{Map, Value, json};
use tasker_core::Json;

/// The data of each server-sent event, in order; comments and the closing `[DONE]` are left out.
pub(super) fn events(text: &str) -> impl Iterator<Item = String> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let blocks: Vec<String> = text.split("\n\n").map(str::to_owned).collect();
    blocks.into_iter().filter_map(|block| {
        let lines = block.lines().filter_map(|line| line.strip_prefix("data:"));
        let data: Vec<&str> = lines
            .map(|line| line.strip_prefix(' ').unwrap_or(line))
            .collect();
        let data = data.join("\n");
        (!data.is_empty() && data != "[DONE]").then_some(data)
    })
}

/// For methods that do not stream.
pub(super) fn none(_: &str) -> Result<Json, String> {
    Err("this method does not stream; leave stream out".to_owned())
}

/// A chat completion from its chunks.
pub(super) fn chat(text: &str) -> Result<Json, String> {
    let mut whole = Map::new();
    let mut choices: Vec<Value> = Vec::new();
    let mut chunks = 0;
    for data in events(text) {
        let Ok(Value::Object(chunk)) = serde_json::from_str(&data) else {
            return Err("the stream holds an event that is no JSON object".to_owned());
        };
        failed(&chunk)?;
        chunks += 1;
        for (name, value) in chunk {
            match (name.as_str(), value) {
                ("choices", Value::Array(deltas)) => {
                    for delta in deltas {
                        add_choice(&mut choices, delta);
                    }
                }
                ("object", _) | (_, Value::Null) => {}
                (_, value) => {
                    whole.insert(name, value);
                }
            }
        }
    }
    let ended = |choice: &Value| !choice["finish_reason"].is_null();
    if chunks == 0 || !choices.iter().all(ended) {
        return Err("the stream ended before the answer did".to_owned());
    }
    whole.insert("object".to_owned(), json!("chat.completion"));
    whole.insert("choices".to_owned(), Value::Array(choices));
    Json::from(&whole).map_err(|error| error.to_string())
}

/// A response from its last event, which holds the whole of it.
pub(super) fn response(text: &str) -> Result<Json, String> {
    #[derive(serde::Deserialize)]
    struct Event {
        r#type: String,
        response: Option<Json>,
        message: Option<String>,
    }
    for data in events(text) {
        let event: Event = serde_json::from_str(&data)
            .map_err(|error| format!("the stream holds an event that cannot be read: {error}"))?;
        match (event.r#type.as_str(), event.response) {
            ("response.completed" | "response.incomplete" | "response.failed", Some(whole)) => {
                return Ok(whole);
            }
            ("error", _) => {
                let message = event.message.unwrap_or_default();
                return Err(format!("the stream ended with an error: {message}"));
            }
            _ => {}
        }
    }
    Err("the stream ended before the response did".to_owned())
}

fn failed(chunk: &Map<String, Value>) -> Result<(), String> {
    match chunk.get("error") {
        None | Some(Value::Null) => Ok(()),
        Some(error) => {
            let message = error["message"].as_str();
            let message = message.map_or_else(|| error.to_string(), str::to_owned);
            Err(format!("the stream ended with an error: {message}"))
        }
    }
}

fn add_choice(choices: &mut Vec<Value>, delta: Value) {
    let index = delta["index"].as_u64().unwrap_or(0);
    let known = choices.iter().position(|choice| choice["index"] == index);
    let place = known.unwrap_or_else(|| {
        choices.push(json!({
            "index": index,
            "message": {"role": "assistant", "content": null, "refusal": null},
            "logprobs": null,
            "finish_reason": null,
        }));
        choices.sort_by_key(|choice| choice["index"].as_u64());
        let found = choices.iter().position(|choice| choice["index"] == index);
        found.unwrap_or(0)
    });
    let Some(choice) = choices[place].as_object_mut() else {
        return;
    };
    let Value::Object(delta) = delta else { return };
    for (name, value) in delta {
        match name.as_str() {
            "index" => {}
            "delta" => add(choice.entry("message").or_insert(Value::Null), value),
            "logprobs" => add(choice.entry("logprobs").or_insert(Value::Null), value),
            _ if value.is_null() => {}
            _ => {
                choice.insert(name, value);
            }
        }
    }
}

/// Texts go on, lists grow (their members by `index` where they have one), objects merge, anything else is replaced.
fn add(whole: &mut Value, delta: Value) {
    match (whole, delta) {
        (_, Value::Null) => {}
        (Value::Object(whole), Value::Object(delta)) => {
            for (name, value) in delta {
                match whole.get_mut(&name) {
                    // These name something; they are not pieces of a text.
                    Some(known) if !matches!(name.as_str(), "role" | "id" | "type") => {
                        add(known, value);
                    }
                    Some(known) => {
                        if !value.is_null() {
                            *known = value;
                        }
                    }
                    None => {
                        let mut new = match &value {
                            Value::Array(_) => json!([]),
                            _ => Value::Null,
                        };
                        add(&mut new, value);
                        whole.insert(name, new);
                    }
                }
            }
        }
        (Value::String(whole), Value::String(delta)) => whole.push_str(&delta),
        (Value::Array(whole), Value::Array(delta)) => {
            for mut item in delta {
                let index = item.as_object_mut().and_then(|item| item.remove("index"));
                let place = index.and_then(|index| index.as_u64()).map(|i| i as usize);
                match place.filter(|place| *place < whole.len()) {
                    Some(place) => add(&mut whole[place], item),
                    None => whole.push(item),
                }
            }
        }
        (whole, delta) => *whole = delta,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sse(events: &[&str]) -> String {
        let mut text = String::from(": hello\n\n");
        for event in events {
            text = format!("{text}event: x\r\ndata: {event}\r\n\r\n");
        }
        text.push_str("data: [DONE]\n\n");
        text
    }

    #[test]
    fn chunks_become_the_completion() {
        let text = sse(&[
            r#"{"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#,
            r#"{"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"Hel"},"finish_reason":null}],"usage":null}"#,
            r#"{"id":"c1","created":1,"model":"m","choices":[{"index":1,"delta":{"content":"x"},"finish_reason":"stop"}]}"#,
            r#"{"id":"c1","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":null}]}"#,
            r#"{"id":"c1","created":1,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
            r#"{"id":"c1","created":1,"model":"m","choices":[],"usage":{"total_tokens":7}}"#,
        ]);
        let whole: Value = chat(&text).unwrap().to().unwrap();
        assert_eq!(
            whole,
            json!({
                "id": "c1", "object": "chat.completion", "created": 1, "model": "m",
                "choices": [
                    {"index": 0, "finish_reason": "stop", "logprobs": null,
                     "message": {"role": "assistant", "content": "Hello", "refusal": null}},
                    {"index": 1, "finish_reason": "stop", "logprobs": null,
                     "message": {"role": "assistant", "content": "x", "refusal": null}},
                ],
                "usage": {"total_tokens": 7},
            })
        );
    }

    #[test]
    fn pieces_of_tool_calls_are_put_together() {
        let text = sse(&[
            r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"t1","type":"function","function":{"name":"f","arguments":""}}]}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\""}}]}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"t2","type":"function","function":{"name":"g","arguments":"{}"}}]}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]},"finish_reason":"tool_calls"}]}"#,
        ]);
        let whole: Value = chat(&text).unwrap().to().unwrap();
        assert_eq!(
            whole["choices"][0]["message"]["tool_calls"],
            json!([
                {"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}},
                {"id": "t2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
            ])
        );
    }

    #[test]
    fn a_stream_that_breaks_off_or_fails_is_an_error() {
        let half =
            sse(&[r#"{"choices":[{"index":0,"delta":{"content":"H"},"finish_reason":null}]}"#]);
        assert!(chat(&half).unwrap_err().contains("ended before"));
        assert!(chat("").unwrap_err().contains("ended before"));
        assert!(chat(&sse(&["{"])).is_err());
        let error = chat(&sse(&[r#"{"error":{"message":"overloaded"}}"#])).unwrap_err();
        assert!(error.contains("overloaded"));
        assert!(response(&sse(&[r#"{"type":"response.created","response":{}}"#])).is_err());
        assert!(
            response(&sse(&[r#"{"type":"error","message":"no"}"#]))
                .unwrap_err()
                .contains("no")
        );
    }

    #[test]
    fn a_response_is_taken_from_its_last_event_as_written() {
        let text = sse(&[
            r#"{"type":"response.created","response":{"id":"r1"}}"#,
            r#"{"type":"response.output_text.delta","delta":"Hel"}"#,
            r#"{"type":"response.completed","response":{"id":"r1","b":1.0,"a":2}}"#,
        ]);
        assert_eq!(
            response(&text).unwrap().text(),
            r#"{"id":"r1","b":1.0,"a":2}"#
        );
    }
}
