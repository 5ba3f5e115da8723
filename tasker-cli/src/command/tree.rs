//! The call tree of a run as lines for people. Pure.

use std::collections::HashMap;

use tasker_core::{StackKind, StackRunId, StackStatus, Timestamp, Trace, TraceNode};

/// Lines of a live view, at most: a terminal is not higher.
const LIVE_LINES: usize = 20;
/// Characters of a time bar.
const BAR: i64 = 30;
const SPINNER: [char; 8] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧'];

/// What a node does, for people: `gapi.admin.directory.domains.list`.
pub(super) fn name(node: &TraceNode) -> String {
    match node.kind {
        StackKind::Frame if node.service == "task" => node.path.clone(),
        StackKind::Frame => format!("tasks.execute {}", node.path),
        StackKind::Timer => node.path.clone(),
        StackKind::Signal => format!("signal {}", node.path),
        StackKind::Call => format!("{}.{}", node.service, node.path),
    }
}

/// Every node with its depth, in the order made.
pub(super) fn walk(trace: &Trace) -> Vec<(usize, &TraceNode)> {
    fn down<'t>(node: &'t TraceNode, depth: usize, out: &mut Vec<(usize, &'t TraceNode)>) {
        out.push((depth, node));
        for child in &node.children {
            down(child, depth + 1, out);
        }
    }
    let mut out = Vec::new();
    if let Some(root) = &trace.root {
        // The depth of the tree is bounded by the limit on nested tasks.
        down(root, 0, &mut out);
    }
    out
}

/// Milliseconds as people read them.
pub(super) fn millis(millis: i64) -> String {
    match millis {
        ..1_000 => format!("{millis} ms"),
        1_000..60_000 => format!("{:.1} s", millis as f64 / 1_000.0),
        _ => format!("{} min {} s", millis / 60_000, millis % 60_000 / 1_000),
    }
}

/// The run as it is now: a line about it, then its tree, the newest nodes where there are too many.
pub(super) fn live(trace: &Trace, now: Timestamp, frame: usize) -> Vec<String> {
    let nodes = walk(trace);
    let calls = nodes
        .iter()
        .filter(|(_, node)| node.kind == StackKind::Call)
        .count();
    let settled = nodes
        .iter()
        .filter(|(_, node)| node.status.is_terminal())
        .count();
    let end = trace.ended_at.unwrap_or(now);
    let spinner = if trace.status.is_terminal() {
        ' '
    } else {
        SPINNER[frame % SPINNER.len()]
    };
    let mut lines = vec![format!(
        "{spinner} {} {} {}: {}, {calls} calls, {settled}/{} settled",
        trace.run,
        trace.task,
        trace.status,
        millis(end.millis_since(trace.created_at).max(0)),
        nodes.len()
    )];
    let hidden = nodes.len().saturating_sub(LIVE_LINES);
    if hidden > 0 {
        lines.push(format!("  … {hidden} more"));
    }
    for (depth, node) in nodes.into_iter().skip(hidden) {
        let took = node
            .settled_at
            .unwrap_or(now)
            .millis_since(node.created_at)
            .max(0);
        lines.push(format!(
            "  {} {}{}  {}",
            mark(node.status),
            "  ".repeat(depth),
            name(node),
            millis(took)
        ));
    }
    lines
}

const fn mark(status: StackStatus) -> char {
    match status {
        StackStatus::Completed => '✓',
        StackStatus::Failed => '✗',
        StackStatus::Cancelled => '-',
        StackStatus::Blocked => '!',
        _ => '·',
    }
}

/// What changed since the last look, as lines for a pipe.
#[derive(Default)]
pub(super) struct Progress {
    seen: HashMap<StackRunId, bool>,
    status: Option<String>,
}

impl Progress {
    /// Lines about what began, settled or was blocked since the last look.
    pub(super) fn news(&mut self, trace: &Trace) -> Vec<String> {
        let mut lines = Vec::new();
        for (_, node) in walk(trace) {
            let over = node.status.is_terminal();
            if self.seen.insert(node.id, over) == Some(over) {
                continue;
            }
            lines.push(match node.settled_at {
                Some(settled) => format!(
                    "{}  {:9}  {}  {}",
                    settled,
                    node.status.as_str(),
                    name(node),
                    millis(settled.millis_since(node.created_at).max(0))
                ),
                None => format!("{}  {:9}  {}", node.created_at, "began", name(node)),
            });
        }
        let status = trace.status.as_str();
        if self.status.as_deref() != Some(status) {
            lines.push(format!("run {} is {status}", trace.run));
            self.status = Some(status.to_owned());
        }
        lines
    }
}

/// The whole tree with a bar for each node: where in the run's time it lay.
pub(super) fn bars(trace: &Trace, now: Timestamp) -> Vec<String> {
    let begin = trace.created_at;
    let end = trace.ended_at.unwrap_or(now);
    let span = end.millis_since(begin).max(1);
    let place = |time: Timestamp| (time.millis_since(begin).clamp(0, span) * BAR / span).min(BAR);
    let nodes = walk(trace);
    let width = nodes
        .iter()
        .map(|(depth, node)| depth * 2 + name(node).chars().count())
        .max()
        .unwrap_or(0);
    let mut lines = vec![format!(
        "{} {} {} in {}",
        trace.run,
        trace.task,
        trace.status,
        millis(end.millis_since(begin).max(0))
    )];
    for (depth, node) in nodes {
        let until = node.settled_at.unwrap_or(now);
        let (from, to) = (place(node.created_at), place(until));
        let bar: String = (0..BAR)
            .map(|at| {
                if at >= from && at < to.max(from + 1).min(BAR) || (at == BAR - 1 && from == BAR) {
                    '█'
                } else {
                    '░'
                }
            })
            .collect();
        let label = format!("{}{}", "  ".repeat(depth), name(node));
        let pad = " ".repeat(width - label.chars().count());
        let took = millis(until.millis_since(node.created_at).max(0));
        let tries = if node.attempts > 1 {
            format!("  attempt {}", node.attempts)
        } else {
            String::new()
        };
        let failure = node
            .failure
            .as_ref()
            .map(|failure| format!("  {failure}"))
            .unwrap_or_default();
        lines.push(format!(
            "{} {label}{pad}  {bar}  {took}{tries}{failure}",
            mark(node.status)
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_well() {
        assert_eq!(
            [millis(7), millis(1_500), millis(61_000)],
            ["7 ms", "1.5 s", "1 min 1 s"]
        );
    }
}
