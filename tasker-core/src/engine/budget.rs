//! The memory budget over all VMs of an engine: what they take, and whether one more turn fits.
//!
//! What a VM takes is known after its turn, so a turn that is under way counts for what such turns lately came to: the most, forgotten
//! by and by. Before any VM was built that is the limit of a frame.

/// What a VM takes at least, in bytes: a realm and a small task.
const SMALLEST: usize = 256 << 10;
/// An expectation that was too high comes down by one part in so many with each turn.
const FORGET: usize = 8;

/// What is done with a VM in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// It is built; with a history, its turns are run again.
    Build,
    /// One more turn.
    Turn,
}

/// The budget, and what is taken of it. Pure.
#[derive(Debug)]
pub(super) struct Budget {
    bytes: usize,
    /// What all VMs take, as each said it last.
    taken: usize,
    /// VMs that are there or being built.
    vms: usize,
    build: Expected,
    turn: Expected,
}

/// What one kind of work is expected to take, in bytes, and how much of it is under way.
#[derive(Debug)]
struct Expected {
    bytes: usize,
    under_way: usize,
}

impl Budget {
    pub(super) fn new(bytes: usize, frame_bytes: usize) -> Self {
        let expected = |bytes| Expected {
            bytes,
            under_way: 0,
        };
        Self {
            bytes,
            taken: 0,
            vms: 0,
            build: expected(frame_bytes.max(SMALLEST)),
            turn: expected(0),
        }
    }

    fn of(&mut self, work: Work) -> &mut Expected {
        match work {
            Work::Build => &mut self.build,
            Work::Turn => &mut self.turn,
        }
    }

    pub(super) fn begins(&mut self, work: Work) {
        self.of(work).under_way += 1;
        self.vms += usize::from(work == Work::Build);
    }

    /// It is over, or nobody wants to know any more.
    pub(super) fn ends(&mut self, work: Work) {
        self.of(work).under_way -= 1;
    }

    /// A VM that took `before` says what it takes now.
    pub(super) fn said(&mut self, work: Work, before: usize, now: usize) {
        self.taken = self.taken - before + now;
        let came_to = match work {
            Work::Build => now.max(SMALLEST),
            Work::Turn => now.saturating_sub(before),
        };
        let expected = &mut self.of(work).bytes;
        let less = expected.saturating_sub(came_to).div_ceil(FORGET);
        *expected = came_to.max(*expected - less);
    }

    /// A VM is gone.
    pub(super) fn gone(&mut self, bytes: usize) {
        self.taken -= bytes;
        self.vms -= 1;
    }

    /// Whether more of this may begin now. However much it takes: a VM where there is none, and a turn while nothing else is done, for
    /// it may be what gives memory back.
    pub(super) fn fits(&self, work: Work) -> bool {
        let alone = match work {
            Work::Build => self.vms == 0,
            Work::Turn => self.build.under_way + self.turn.under_way == 0,
        };
        let (builds, turns) = match work {
            Work::Build => (1, 0),
            Work::Turn => (0, 1),
        };
        alone || self.with(builds, turns) <= self.bytes
    }

    /// What must be given back so that so much more can begin, in bytes.
    pub(super) fn lack(&self, builds: usize, turns: usize) -> usize {
        self.with(builds, turns).saturating_sub(self.bytes)
    }

    /// How many more VMs can be built when `builds` of them are, and `back` bytes were given back.
    pub(super) fn room(&self, builds: usize, back: usize) -> usize {
        (self.bytes.saturating_add(back)).saturating_sub(self.with(builds, 0)) / self.build.bytes
    }

    /// What is taken when what is under way and so much more is over.
    fn with(&self, builds: usize, turns: usize) -> usize {
        let of = |expected: &Expected, more| {
            let count: usize = expected.under_way + more;
            expected.bytes.saturating_mul(count)
        };
        self.taken
            .saturating_add(of(&self.build, builds))
            .saturating_add(of(&self.turn, turns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn built(budget: &mut Budget, bytes: usize) {
        budget.begins(Work::Build);
        budget.ends(Work::Build);
        budget.said(Work::Build, 0, bytes);
    }

    #[test]
    fn a_vm_that_is_being_built_counts_for_what_others_came_to() {
        let mut budget = Budget::new(100 * MIB, 64 * MIB);
        assert!(budget.fits(Work::Build));
        budget.begins(Work::Build);
        assert!(
            !budget.fits(Work::Build),
            "each may come to the limit of a frame"
        );
        budget.ends(Work::Build);
        budget.said(Work::Build, 0, MIB);
        for _ in 0..200 {
            built(&mut budget, MIB);
            budget.gone(MIB);
        }
        for _ in 0..49 {
            built(&mut budget, MIB);
        }
        assert!(budget.fits(Work::Build));
        assert_eq!((budget.room(0, 0), budget.room(20, 10 * MIB)), (50, 40));
        // One that takes much is remembered, and forgotten.
        built(&mut budget, 30 * MIB);
        assert!(!budget.fits(Work::Build));
        assert_eq!((budget.lack(1, 0), budget.lack(2, 5)), (10 * MIB, 40 * MIB));
        budget.gone(30 * MIB);
        assert_eq!(budget.room(0, 0), 1);
        for _ in 0..200 {
            built(&mut budget, 0);
        }
        assert_eq!(budget.room(0, 0), 50 * MIB / SMALLEST);
    }

    #[test]
    fn a_turn_counts_for_what_turns_added() {
        let mut budget = Budget::new(10 * MIB, MIB);
        built(&mut budget, 9 * MIB);
        budget.said(Work::Turn, 9 * MIB, 10 * MIB);
        budget.begins(Work::Turn);
        assert!(!budget.fits(Work::Turn), "it would add one more");
        budget.ends(Work::Turn);
        assert!(budget.fits(Work::Turn), "nothing else is done");
        budget.said(Work::Turn, 10 * MIB, 2 * MIB);
        budget.begins(Work::Turn);
        assert!(budget.fits(Work::Turn));
    }

    #[test]
    fn a_vm_above_the_budget_is_alone() {
        let mut budget = Budget::new(MIB, MIB);
        built(&mut budget, 5 * MIB);
        assert!(!budget.fits(Work::Build) && budget.fits(Work::Turn));
        budget.gone(5 * MIB);
        assert!(budget.fits(Work::Build));
    }
}
