//! Numbers of rows that this writer wrote or claimed lately, by their ids: a row is found by its number without a walk through an index of ids.
//!
//! What it is not: the truth. A transaction that was rolled back leaves its numbers here, a deleted row too, and a number may come to name
//! another row. Whoever looks a row up by a number from here compares its id as well, and looks by id where that finds nothing.
//! Bounded: an id has one place, which the next one of the same place takes over.

use tasker_adaptor::StackRunId;

/// Frames under way and calls in flight of one engine are fewer. A power of two.
const PLACES: usize = 8_192;

/// The numbers.
pub(crate) struct Numbers(Box<[(StackRunId, i64)]>);

impl Default for Numbers {
    fn default() -> Self {
        let nobody = StackRunId::from_uuid(uuid::Uuid::nil());
        Self(vec![(nobody, 0); PLACES].into_boxed_slice())
    }
}

impl Numbers {
    /// The number that the row had when it was last seen.
    pub(crate) fn of(&self, id: StackRunId) -> Option<i64> {
        let (known, no) = self.0[place(id)];
        (known == id).then_some(no)
    }

    /// The row was seen under this number.
    pub(crate) fn note(&mut self, id: StackRunId, no: i64) {
        self.0[place(id)] = (id, no);
    }
}

/// Ids of one moment differ in their random bits, those of a test perhaps in few of them.
fn place(id: StackRunId) -> usize {
    let (high, low) = id.as_uuid().as_u64_pair();
    let mixed = (high ^ low).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as usize % PLACES
}

#[cfg(test)]
mod tests {
    use tasker_adaptor::Timestamp;

    use super::*;

    #[test]
    fn an_id_has_the_number_that_was_noted_last_or_none() {
        let mut numbers = Numbers::default();
        let id = |random| StackRunId::from_parts(Timestamp::from_millis(7), random);
        assert_eq!(numbers.of(id(1)), None);
        numbers.note(id(1), 5);
        numbers.note(id(1), 6);
        assert_eq!(numbers.of(id(1)), Some(6));
        for random in 2..100_000 {
            numbers.note(id(random), 7);
        }
        assert_eq!(numbers.of(id(1)), None, "its place was taken over");
        assert_eq!(numbers.of(id(99_999)), Some(7));
    }
}
