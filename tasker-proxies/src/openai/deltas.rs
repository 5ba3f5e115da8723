//! The text of a stream while it comes, for the run's log. What the answer is gathered from is the whole stream, in
//! `stream.rs`; a mistake here can only be seen in the log.

use serde::Deserialize;

use super::stream::events;

/// Takes a stream in piece by piece and gives the text that each piece adds.
#[derive(Default)]
pub(super) struct Deltas {
    /// What came after the last whole event.
    rest: Vec<u8>,
}

/// Text that an event adds, and to which of the answers that were asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Delta {
    pub(super) index: u64,
    pub(super) text: String,
}

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    choices: Vec<Choice>,
    /// Of the responses API.
    r#type: Option<String>,
    delta: Option<serde_json::Value>,
    #[serde(default)]
    output_index: u64,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: u64,
    delta: Option<Message>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
    refusal: Option<String>,
}

impl Deltas {
    /// The text of the events that are whole with this piece; what belongs to one answer is joined.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Vec<Delta> {
        self.rest.extend_from_slice(piece);
        let Some(end) = last_boundary(&self.rest) else {
            return Vec::new();
        };
        let whole: Vec<u8> = self.rest.drain(..end).collect();
        let mut deltas: Vec<Delta> = Vec::new();
        for event in events(&String::from_utf8_lossy(&whole)) {
            let Ok(event) = serde_json::from_str::<Event>(&event) else {
                continue;
            };
            for (index, text) in event.texts() {
                match deltas.iter_mut().find(|known| known.index == index) {
                    Some(known) => known.text.push_str(&text),
                    None => deltas.push(Delta { index, text }),
                }
            }
        }
        deltas.retain(|delta| !delta.text.is_empty());
        deltas
    }
}

impl Event {
    fn texts(self) -> Vec<(u64, String)> {
        let kind = self.r#type.as_deref();
        if matches!(
            kind,
            Some("response.output_text.delta" | "response.refusal.delta")
        ) {
            let text = self.delta.as_ref().and_then(|delta| delta.as_str());
            let text = text.map(|text| (self.output_index, text.to_owned()));
            return text.into_iter().collect();
        }
        let choices = self.choices.into_iter();
        let texts = choices.filter_map(|choice| {
            let message = choice.delta?;
            Some((choice.index, message.content.or(message.refusal)?))
        });
        texts.collect()
    }
}

/// Where the last whole event ends: after its empty line.
fn last_boundary(bytes: &[u8]) -> Option<usize> {
    let ends = [&b"\n\n"[..], b"\r\n\r\n", b"\r\r"];
    let ends = ends.iter().filter_map(|end| {
        let at = bytes.windows(end.len()).rposition(|window| window == *end);
        at.map(|at| at + end.len())
    });
    ends.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_comes_out_with_the_event_that_completes_it_however_it_is_cut() {
        let stream = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hé\"}}]}\r\n\r\ndata: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"x\"}},{\"index\":0,\"delta\":{\"content\":\"l\"}}]}\r\n\r\ndata: {\"type\":\"response.output_text.delta\",\"output_index\":0,\"delta\":\"lo\"}\n\ndata: [DONE]\n\ndata: {\"cut";
        for size in 1..stream.len() {
            let mut deltas = Deltas::default();
            let (mut first, mut second) = (String::new(), String::new());
            for piece in stream.as_bytes().chunks(size) {
                for delta in deltas.feed(piece) {
                    let whole = if delta.index == 0 {
                        &mut first
                    } else {
                        &mut second
                    };
                    whole.push_str(&delta.text);
                }
            }
            assert_eq!((&*first, &*second), ("Héllo", "x"), "{size}");
        }
    }
}
