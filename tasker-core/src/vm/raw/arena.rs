//! The ends of QuickJS's arenas that nothing has used: an image of a realm leaves most of each out.
//!
//! QuickJS takes small blocks out of arenas of about 4 KiB, one kind of arena for each of 31 sizes, so a realm has some sixty arenas and
//! a fifth of its bytes are places that were never taken. How many places an arena has stands in the arena. Where there are fewer than
//! QuickJS made, it takes its next arena sooner; nothing else asks.
//!
//! What an arena looks like is read off QuickJS's sources (`JSArena`), and checked at each arena, place by place: one that looks
//! otherwise is left whole.

/// Bytes before the first place; where in them the number of places, of taken places, and the first free one stand, each two bytes.
const HEAD: usize = 40;
const TAKEN: usize = 34;
pub(super) const PLACES: usize = 36;
const FIRST_FREE: usize = 38;

/// Bytes of a place before what is in it.
pub(super) const PLACE_HEADER: usize = 8;

/// The end of the list of free places. A place begins with its own number when it is taken, with the next free one when it is free.
const NONE: u16 = u16::MAX;

/// What is left of an end, in bytes: frames begin to use what a realm has not used.
const LEFT: usize = 1_024;

/// Bytes of a place in an arena of `size` bytes that has so many, if there can be one.
pub(super) fn place_of(places: u16, size: usize) -> Option<usize> {
    let room = size.checked_sub(HEAD)?;
    let place = room.checked_div(usize::from(places))?;
    (place >= 16 && room.is_multiple_of(usize::from(places))).then_some(place)
}

/// An arena, as far as it matters here.
pub(super) struct Arena<'a> {
    bytes: &'a mut [u8],
    place: usize,
    places: u16,
}

impl<'a> Arena<'a> {
    /// `None` when it is none, or none of a kind that is known. Its places were zero when QuickJS got it.
    pub(super) fn of(bytes: &'a mut [u8]) -> Option<Self> {
        let mut arena = Self {
            place: 0,
            places: 0,
            bytes,
        };
        if arena.bytes.len() < HEAD {
            return None;
        }
        arena.places = arena.number(PLACES);
        arena.place = place_of(arena.places, arena.bytes.len())?;
        let mut free = vec![false; usize::from(arena.places)];
        let mut next = arena.number(FIRST_FREE);
        while next != NONE {
            let seen = free.get_mut(usize::from(next))?;
            if std::mem::replace(seen, true) {
                return None;
            }
            next = arena.number(arena.at(next));
        }
        let is_known = (0..arena.places)
            .all(|place| free[usize::from(place)] || arena.number(arena.at(place)) == place);
        let taken = free.iter().filter(|free| !**free).count();
        (is_known && taken == usize::from(arena.number(TAKEN))).then_some(arena)
    }

    /// So many places are to be kept, if some are not.
    pub(super) fn wanted(&self) -> Option<u16> {
        // The first three bytes of a place are written when an arena is made.
        let is_used = |place: &u16| {
            let at = self.at(*place);
            self.bytes[at + 3..at + self.place]
                .iter()
                .any(|byte| *byte != 0)
                || self.number(at) == *place
        };
        let used = (0..self.places)
            .rev()
            .find(is_used)
            .map_or(0, |last| last + 1);
        // At least one stays free: an arena without is in no list.
        let left = (LEFT / self.place).max(1);
        let wanted = used + u16::try_from(left).ok()?;
        (wanted < self.places).then_some(wanted)
    }

    /// Its size with so many places.
    pub(super) fn size(&self, places: u16) -> usize {
        HEAD + self.place * usize::from(places)
    }

    /// Shortens it to so many places; its size then. `None` when a place is taken that would go, or none would be free.
    pub(super) fn cut(mut self, places: u16) -> Option<usize> {
        let mut kept = Vec::new();
        let mut next = self.number(FIRST_FREE);
        while next != NONE {
            kept.push(next);
            next = self.number(self.at(next));
        }
        let gone = kept.iter().filter(|place| **place >= places).count();
        kept.retain(|place| *place < places);
        if kept.is_empty() || gone != usize::from(self.places.checked_sub(places)?) {
            return None;
        }
        let mut link = FIRST_FREE;
        for place in kept {
            self.set(link, place);
            link = self.at(place);
        }
        self.set(link, NONE);
        self.set(PLACES, places);
        Some(self.size(places))
    }

    fn at(&self, place: u16) -> usize {
        HEAD + self.place * usize::from(place)
    }

    fn number(&self, at: usize) -> u16 {
        u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    fn set(&mut self, at: usize, number: u16) {
        self.bytes[at..at + 2].copy_from_slice(&number.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An arena of 512-byte places, the first of which are taken; what was freed is at the head of the list.
    fn arena(taken: &[u16]) -> Vec<u8> {
        const PLACE: usize = 512;
        let mut bytes = vec![0; HEAD + 7 * PLACE];
        let mut set =
            |at: usize, number: u16| bytes[at..at + 2].copy_from_slice(&number.to_ne_bytes());
        set(PLACES, 7);
        set(TAKEN, taken.len() as u16);
        let mut link = FIRST_FREE;
        for place in 0..7 {
            let at = HEAD + PLACE * usize::from(place);
            if taken.contains(&place) {
                set(at, place);
            } else {
                set(link, place);
                link = at;
            }
        }
        set(link, NONE);
        bytes
    }

    #[test]
    fn the_end_of_an_arena_is_cut_and_a_kilobyte_is_left() {
        let mut bytes = arena(&[0, 2]);
        let mut whole = bytes.clone();
        let wanted = Arena::of(&mut bytes).unwrap().wanted();
        assert_eq!(wanted, Some(5));
        let size = Arena::of(&mut bytes).unwrap().cut(5).unwrap();
        assert_eq!(size, HEAD + 5 * 512);
        let cut = Arena::of(&mut bytes[..size]).unwrap();
        assert_eq!(cut.places, 5);
        assert_eq!(cut.wanted(), None);
        // What was used once is kept, and what is taken is never cut off.
        whole[HEAD + 5 * 512 + 100] = 1;
        assert_eq!(Arena::of(&mut whole).unwrap().wanted(), None);
        assert_eq!(Arena::of(&mut whole).unwrap().cut(2), None);
    }

    #[test]
    fn what_is_laid_out_otherwise_is_left_whole() {
        let damaged: [(usize, u16); 4] = [(PLACES, 9), (TAKEN, 3), (FIRST_FREE, 2), (HEAD, 1)];
        for (at, number) in damaged {
            let mut bytes = arena(&[0, 2]);
            bytes[at..at + 2].copy_from_slice(&number.to_ne_bytes());
            assert!(Arena::of(&mut bytes).is_none(), "{number} at {at}");
        }
        assert!(Arena::of(&mut [0; 4_000]).is_none());
        assert!(Arena::of(&mut []).is_none());
    }
}
