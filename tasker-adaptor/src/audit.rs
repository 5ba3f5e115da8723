//! The invariants of PROTOCOL (d), as SQL that SQLite and Postgres both run.

use std::fmt;

/// One invariant: a query that returns the ids of rows which break it, and none when all is well.
#[derive(Clone, Copy, Debug)]
pub struct AuditQuery {
    /// `I1` … `I14`.
    pub name: &'static str,
    /// What holds, as a sentence.
    pub claim: &'static str,
    /// One column (an id) for each row that breaks it.
    pub sql: &'static str,
}

/// A row that breaks an invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// `I1` … `I14`.
    pub invariant: &'static str,
    /// What should hold.
    pub claim: &'static str,
    /// The row.
    pub id: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: not so for {}: {}",
            self.invariant, self.id, self.claim
        )
    }
}

/// The invariants. A folded run's rows go in bounded batches, so that `I1` and `I2` do not hold for what is left of them.
/// `I8` may be broken for one lease length plus one scan after a worker died.
pub const AUDIT: &[AuditQuery] = &[
    AuditQuery {
        name: "I1",
        claim: "seq and delivery order of each frame are gapless and unique, until its run is folded",
        sql: r"SELECT parent_id FROM stack_runs WHERE parent_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM task_runs r WHERE r.id=stack_runs.task_run_id AND r.folded_at IS NOT NULL) GROUP BY parent_id HAVING COUNT(*)<>MAX(seq) OR COUNT(DISTINCT seq)<>COUNT(*) OR COUNT(delivered_order)<>COALESCE(MAX(delivered_order),0) OR COUNT(DISTINCT delivered_order)<>COUNT(delivered_order)",
    },
    AuditQuery {
        name: "I2",
        claim: "a frame's counters agree with its children, until its run is folded",
        sql: r"SELECT f.id FROM stack_runs f WHERE f.kind='frame' AND NOT EXISTS (SELECT 1 FROM task_runs r WHERE r.id=f.task_run_id AND r.folded_at IS NOT NULL) AND (f.made_count<>(SELECT COUNT(*) FROM stack_runs c WHERE c.parent_id=f.id) OR f.delivered_count<>(SELECT COUNT(c.delivered_order) FROM stack_runs c WHERE c.parent_id=f.id))",
    },
    AuditQuery {
        name: "I3",
        claim: "only settled children are delivered, and settled ones have an outcome",
        sql: r"SELECT id FROM stack_runs WHERE (delivered_order IS NOT NULL AND status NOT IN ('completed','failed','cancelled')) OR (status IN ('completed','failed') AND outcome IS NULL)",
    },
    AuditQuery {
        name: "I4",
        claim: "no frame is suspended with an unread child",
        sql: r"SELECT f.id FROM stack_runs f WHERE f.status='suspended_waiting_child' AND EXISTS (SELECT 1 FROM stack_runs c WHERE c.parent_id=f.id AND c.status IN ('completed','failed') AND c.delivered_order IS NULL)",
    },
    AuditQuery {
        name: "I5",
        claim: "no frame is suspended on nothing",
        sql: r"SELECT f.id FROM stack_runs f WHERE f.status='suspended_waiting_child' AND NOT EXISTS (SELECT 1 FROM stack_runs c WHERE c.parent_id=f.id AND c.status IN ('pending','processing','suspended_waiting_child','pending_resume','blocked'))",
    },
    AuditQuery {
        name: "I6",
        claim: "no frame was woken, or is being loaded, for nothing",
        sql: r"SELECT f.id FROM stack_runs f WHERE f.status IN ('pending_resume','processing') AND f.turn>0 AND NOT EXISTS (SELECT 1 FROM stack_runs c WHERE c.parent_id=f.id AND c.status IN ('completed','failed') AND c.delivered_order IS NULL)",
    },
    AuditQuery {
        name: "I7",
        claim: "what is processing has an owner, and what may not have one has none",
        sql: r"SELECT id FROM stack_runs WHERE (status='processing' AND owner IS NULL) OR (owner IS NOT NULL AND status IN ('pending','completed','failed','cancelled','blocked'))",
    },
    AuditQuery {
        name: "I8",
        claim: "every owner is a live worker",
        sql: r"SELECT s.id FROM stack_runs s LEFT JOIN workers w ON w.id=s.owner AND w.state='live' WHERE s.owner IS NOT NULL AND w.id IS NULL",
    },
    AuditQuery {
        name: "I9",
        claim: "an ended run has no open rows other than detached ones",
        sql: r"SELECT s.id FROM stack_runs s JOIN task_runs r ON r.id=s.task_run_id WHERE s.status IN ('pending','processing','suspended_waiting_child','pending_resume','blocked') AND r.status IN ('completed','failed','cancelled') AND (r.status='cancelled' OR s.parent_id IS NULL OR (s.kind IN ('timer','signal') AND EXISTS (SELECT 1 FROM stack_runs p WHERE p.id=s.parent_id AND p.status IN ('completed','failed','cancelled'))))",
    },
    AuditQuery {
        name: "I10",
        claim: "the root frame and its run agree",
        sql: r"SELECT r.id FROM task_runs r JOIN stack_runs f ON f.task_run_id=r.id AND f.parent_id IS NULL WHERE (f.status IN ('completed','failed','cancelled') OR r.status IN ('completed','failed','cancelled')) AND f.status<>r.status",
    },
    AuditQuery {
        name: "I11",
        claim: "no row without its run or parent, no open run without rows, no open row in a folded run",
        sql: r"SELECT s.id FROM stack_runs s LEFT JOIN task_runs r ON r.id=s.task_run_id LEFT JOIN stack_runs p ON p.id=s.parent_id WHERE r.id IS NULL OR (s.parent_id IS NOT NULL AND p.id IS NULL AND r.folded_at IS NULL)",
    },
    AuditQuery {
        name: "I11",
        claim: "no row without its run or parent, no open run without rows, no open row in a folded run",
        sql: r"SELECT r.id FROM task_runs r WHERE r.status NOT IN ('completed','failed','cancelled') AND NOT EXISTS (SELECT 1 FROM stack_runs s WHERE s.task_run_id=r.id)",
    },
    AuditQuery {
        name: "I11",
        claim: "no row without its run or parent, no open run without rows, no open row in a folded run",
        sql: r"SELECT s.id FROM stack_runs s JOIN task_runs r ON r.id=s.task_run_id WHERE r.folded_at IS NOT NULL AND s.status IN ('pending','processing','suspended_waiting_child','pending_resume','blocked')",
    },
    AuditQuery {
        name: "I12",
        claim: "a blocked run has a blocked row, and the other way round",
        sql: r"SELECT r.id FROM task_runs r WHERE r.status NOT IN ('completed','failed','cancelled') AND (r.status='blocked')<>EXISTS (SELECT 1 FROM stack_runs s WHERE s.task_run_id=r.id AND s.status='blocked')",
    },
    AuditQuery {
        name: "I13",
        claim: "no signal lies beside an open wait of its name, and a signal meets one wait",
        sql: r"SELECT g.id FROM signals g JOIN stack_runs s ON s.task_run_id=g.task_run_id AND s.kind='signal' AND s.path=g.name AND s.status='pending' WHERE g.consumed_by IS NULL",
    },
    AuditQuery {
        name: "I13",
        claim: "no signal lies beside an open wait of its name, and a signal meets one wait",
        sql: r"SELECT consumed_by FROM signals WHERE consumed_by IS NOT NULL GROUP BY consumed_by HAVING COUNT(*)>1",
    },
    AuditQuery {
        name: "I14",
        claim: "nothing was made before its frame's first turn or delivered in a turn that is not there",
        sql: r"SELECT c.id FROM stack_runs c JOIN stack_runs f ON f.id=c.parent_id WHERE f.turn=0 OR c.delivered_turn>f.turn",
    },
];
