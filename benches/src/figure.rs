//! A figure, as people and programs read it.

use std::fmt;

use serde::Serialize;

/// Something measured beside its floor.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// Name.
    pub figure: &'static str,
    /// What was measured.
    pub value: f64,
    /// Of value and floor.
    pub unit: &'static str,
    /// The same work without an engine.
    pub floor: f64,
    /// Value by floor.
    pub ratio: f64,
    /// What the ratio (or, where it says so, the value) should be; `floor_suspect` where the floor is none.
    pub goal: String,
    /// Whether it is.
    pub holds: bool,
    /// What else was seen.
    #[serde(skip)]
    pub notes: String,
}

/// Turns a commit at which a floor of storage has to show that it is one.
pub const BATCH_OF_FLOOR: usize = 256;

/// The middle one of what rounds measured; 0 of none.
pub fn median(mut seen: Vec<f64>) -> f64 {
    seen.sort_by(f64::total_cmp);
    seen.get(seen.len() / 2).copied().unwrap_or_default()
}

/// What a figure should be.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// At least this share of the floor; more is better.
    AtLeast(f64, &'static str),
    /// At most this multiple of the floor; less is better.
    AtMost(f64, &'static str),
    /// A value below this.
    Below(f64, &'static str),
}

impl Figure {
    /// A figure with its verdict.
    pub fn new(
        figure: &'static str,
        (value, unit): (f64, &'static str),
        floor: f64,
        goal: Goal,
        notes: String,
    ) -> Self {
        let ratio = if floor == 0.0 { 0.0 } else { value / floor };
        let (goal, holds) = match goal {
            Goal::AtLeast(least, words) => (words, ratio >= least),
            Goal::AtMost(most, words) => (words, ratio <= most),
            Goal::Below(most, words) => (words, value < most),
        };
        Self {
            figure,
            value,
            unit,
            floor,
            ratio,
            goal: goal.to_owned(),
            holds,
            notes,
        }
    }
}

impl Figure {
    /// A figure that could not be taken: it does not hold.
    pub fn absent(figure: &'static str, unit: &'static str, why: String) -> Self {
        let never = Goal::AtLeast(f64::INFINITY, "to be taken at all");
        Self::new(figure, (0.0, unit), 0.0, never, why)
    }

    /// Does not hold, whatever its ratio, when its floor made `seen` steps a second at [`BATCH_OF_FLOOR`] turns a commit and not
    /// `expected`: half of what the bare driver was seen to do on a machine of this kind.
    #[must_use]
    pub fn unless_suspect(mut self, seen: f64, expected: f64) -> Self {
        if seen < expected {
            self.holds = false;
            self.goal.push_str(" (floor_suspect)");
        }
        self.also(&format!(
            "the floor at {BATCH_OF_FLOOR} turns a commit: {seen:.0} steps/s, {expected:.0} expected"
        ))
    }

    /// Does not hold unless this does as well.
    #[must_use]
    pub fn only_if(mut self, holds: bool, what: &str) -> Self {
        self.holds &= holds;
        self.also(what)
    }

    fn also(mut self, note: &str) -> Self {
        if !self.notes.is_empty() {
            self.notes.push_str("; ");
        }
        self.notes.push_str(note);
        self
    }

    /// Does not hold when it took more processor time a step, in microseconds.
    #[must_use]
    pub fn with_cpu(self, seen: f64, most: f64) -> Self {
        self.only_if(seen <= most, &format!("at most {most:.0} us CPU a step"))
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let floor = if self.floor == 0.0 {
            "no floor".to_owned()
        } else {
            format!("floor {:.1}, ratio {:.2}", self.floor, self.ratio)
        };
        write!(
            f,
            "{:16} {:12.1} {:10} {floor}; goal {}: {}",
            self.figure,
            self.value,
            self.unit,
            self.goal,
            if self.holds { "holds" } else { "MISSED" },
        )?;
        if !self.notes.is_empty() {
            write!(f, "\n{:16} {}", "", self.notes)?;
        }
        Ok(())
    }
}
