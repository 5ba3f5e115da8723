//! What a service says while a call is under way: lines for the run's log.
//!
//! Not the task's own lines: those leave with the turn that wrote them. Lines of a service are written as they come, so
//! that a person can follow a long call; a call that is made again after a crash says its lines again.
//! Invariants: a service never waits for the log · lines stay in order · what is waiting to be written is bounded.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tasker_adaptor::{Json, LogLevel, LogLine};
use tokio::sync::Notify;

/// Lines of one call, at most; one more says that further ones are dropped.
const MAX_LINES: usize = 10_000;
/// Bytes that wait to be written, at most; lines that come meanwhile are counted and dropped.
const MAX_WAITING_BYTES: usize = 4 << 20;
/// Bytes of one line's text; a longer one is cut. Data that is longer is left out.
const MAX_LINE_BYTES: usize = 16 << 10;

/// The log of one call. Cheap to clone; all clones are the same log.
#[derive(Clone, Default)]
pub(crate) struct CallLog {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<LogLine>,
    waiting_bytes: usize,
    /// Lines taken in so far.
    lines: usize,
    /// Lines that came while too much was waiting.
    dropped: usize,
    closed: bool,
}

impl fmt::Debug for CallLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallLog").finish_non_exhaustive()
    }
}

impl CallLog {
    /// Takes a line in, within the limits.
    pub(crate) fn add(&self, level: LogLevel, message: String, data: Option<Json>) {
        let mut state = self.lock();
        if state.closed || state.lines > MAX_LINES {
            return;
        }
        state.lines += 1;
        if state.lines > MAX_LINES {
            state.push(warning(format!(
                "further lines of this call are dropped: a service may write {MAX_LINES} a call"
            )));
        } else if state.waiting_bytes > MAX_WAITING_BYTES {
            state.dropped += 1;
        } else {
            state.push(LogLine {
                level,
                message: cut(message),
                data: data.filter(|data| data.text().len() <= MAX_LINE_BYTES),
            });
        }
        drop(state);
        self.inner.changed.notify_one();
    }

    /// Takes out what is waiting, without waiting for more.
    pub(crate) fn take(&self) -> Vec<LogLine> {
        let mut state = self.lock();
        state.waiting_bytes = 0;
        let mut lines: Vec<LogLine> = state.waiting.drain(..).collect();
        let dropped = std::mem::take(&mut state.dropped);
        if dropped > 0 {
            lines.push(warning(format!(
                "{dropped} lines of this call are missing here: they came faster than storage took them"
            )));
        }
        lines
    }

    /// The next lines; `None` when the log is closed and all are taken out. One reader.
    #[cfg(feature = "quickjs")]
    pub(crate) async fn next(&self) -> Option<Vec<LogLine>> {
        loop {
            let changed = self.inner.changed.notified();
            let closed = self.lock().closed;
            let lines = self.take();
            if !lines.is_empty() {
                return Some(lines);
            }
            if closed {
                return None;
            }
            changed.await;
        }
    }

    /// Whether nothing waits to be written.
    #[cfg(feature = "quickjs")]
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().waiting.is_empty()
    }

    /// The call ended: nothing is taken in any more.
    #[cfg(feature = "quickjs")]
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.inner.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole at every point where a holder could panic.
        let state = self.inner.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, line: LogLine) {
        let data = line.data.as_ref().map_or(0, |data| data.text().len());
        self.waiting_bytes += line.message.len() + data;
        self.waiting.push_back(line);
    }
}

fn warning(message: String) -> LogLine {
    LogLine {
        level: LogLevel::Warn,
        message,
        data: None,
    }
}

fn cut(mut message: String) -> String {
    if message.len() > MAX_LINE_BYTES {
        let whole = message.len();
        let end = (0..=MAX_LINE_BYTES).rev();
        let end = end.into_iter().find(|end| message.is_char_boundary(*end));
        message.truncate(end.unwrap_or(0));
        let _ = write!(message, "… [cut: the line has {whole} bytes]");
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(log: &CallLog, text: impl Into<String>) {
        log.add(LogLevel::Info, text.into(), None);
    }

    #[test]
    fn lines_come_out_in_order_and_once() {
        let log = CallLog::default();
        say(&log, "a");
        log.clone()
            .add(LogLevel::Warn, "b".to_owned(), Some(Json::null()));
        let lines = log.take();
        let texts: Vec<&str> = lines.iter().map(|line| &*line.message).collect();
        assert_eq!(texts, ["a", "b"]);
        assert_eq!(lines[1].data, Some(Json::null()));
        assert!(log.take().is_empty());
    }

    #[test]
    fn what_a_service_can_write_is_bounded() {
        let log = CallLog::default();
        say(&log, "é".repeat(MAX_LINE_BYTES));
        let line = log.take().remove(0);
        assert!(line.message.len() < MAX_LINE_BYTES + 64 && line.message.contains("cut"));
        for _ in 0..MAX_LINES * 2 {
            say(&log, "x".repeat(1_000));
        }
        let lines = log.take();
        let bytes: usize = lines.iter().map(|line| line.message.len()).sum();
        assert!(bytes < MAX_WAITING_BYTES + 2 * MAX_LINE_BYTES, "{bytes}");
        assert!(
            lines
                .iter()
                .any(|line| line.message.contains("further lines"))
        );
        assert!(lines.last().unwrap().message.contains("missing"));
        say(&log, "y");
        assert!(log.take().is_empty());
    }

    #[cfg(feature = "quickjs")]
    #[tokio::test]
    async fn a_reader_gets_all_lines_and_then_the_end() {
        let log = CallLog::default();
        let writer = async {
            for text in ["a", "b", "c"] {
                say(&log, text);
                tokio::task::yield_now().await;
            }
            log.close();
            say(&log, "too late");
        };
        let reader = async {
            let mut texts = Vec::new();
            while let Some(lines) = log.next().await {
                texts.extend(lines.into_iter().map(|line| line.message));
            }
            texts
        };
        let ((), texts) = tokio::join!(writer, reader);
        assert_eq!(texts, ["a", "b", "c"]);
    }
}
