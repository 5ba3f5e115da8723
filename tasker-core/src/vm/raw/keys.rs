//! The keys of the objects that a runtime read last, each with the one that followed it: answers of one service have the same keys in
//! the same order, and so have the elements of an array. QuickJS finds a key by its text, in a table that is seldom in a cache.
//!
//! What it is not: it knows atoms as numbers only; who uses it holds a count of each that it knows.

use rquickjs::qjs::JSAtom;

/// Keys that are known at one time.
const MOST: usize = 32;

/// Longer keys are not learned, in bytes: with its text an entry is half a cache line.
const LONGEST: usize = 25;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct KnownKeys {
    entries: Vec<Entry>,
    /// The one that was asked for last.
    last: u8,
}

#[derive(Debug)]
struct Entry {
    atom: JSAtom,
    text: [u8; LONGEST],
    len: u8,
    /// The one that followed it when it was asked for last.
    next: u8,
}

impl Entry {
    fn is(&self, name: &str) -> bool {
        &self.text[..usize::from(self.len)] == name.as_bytes()
    }
}

impl KnownKeys {
    /// The key of this name, if it follows the last one as it did before.
    pub(super) fn expected(&mut self, name: &str) -> Option<JSAtom> {
        let next = self.entries.get(usize::from(self.last))?.next;
        let entry = self.entries.get(usize::from(next))?;
        entry.is(name).then(|| {
            self.last = next;
            entry.atom
        })
    }

    /// This key follows the last one, from now on. Whether it is new here, and the caller holds a count of it for this; the counts of
    /// those that make room for it are given to `forget`.
    pub(super) fn learn(&mut self, name: &str, atom: JSAtom, forget: impl Fn(JSAtom)) -> bool {
        if name.len() > LONGEST {
            return false;
        }
        let known = self.entries.iter().position(|entry| entry.atom == atom);
        if known.is_none() && self.entries.len() == MOST {
            self.entries.drain(..).for_each(|entry| forget(entry.atom));
        }
        let at = known.unwrap_or(self.entries.len());
        if known.is_none() {
            let mut text = [0; LONGEST];
            text[..name.len()].copy_from_slice(name.as_bytes());
            self.entries.push(Entry {
                atom,
                text,
                len: name.len() as u8,
                // As good a guess as any: one object's keys over and over.
                next: 0,
            });
        }
        let at = at as u8;
        if let Some(last) = self.entries.get_mut(usize::from(self.last)) {
            last.next = at;
        }
        self.last = at;
        known.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks for keys as a reader does; how many were expected.
    fn asked(known: &mut KnownKeys, names: &str) -> usize {
        names
            .split(' ')
            .filter(|name| {
                let expected = known.expected(name);
                let atom = name.bytes().map(JSAtom::from).sum();
                assert!(expected.is_none_or(|expected| expected == atom), "{name}");
                if expected.is_none() {
                    known.learn(name, atom, |_| ());
                }
                expected.is_some()
            })
            .count()
    }

    #[test]
    fn keys_in_the_order_of_the_last_time_are_expected() {
        let mut known = KnownKeys::default();
        assert_eq!(asked(&mut known, "a b c"), 0);
        assert_eq!(asked(&mut known, "a b c a b c"), 6);
        // Others come between: they are learned, and the order is found again.
        assert_eq!(asked(&mut known, "a b x"), 2);
        assert_eq!(asked(&mut known, "a b x a b x"), 6);
        assert_eq!(known.entries.len(), 4);
    }

    #[test]
    fn counts_are_given_back_when_there_are_too_many() {
        let (mut known, mut held) = (KnownKeys::default(), std::collections::BTreeSet::new());
        assert!(!known.learn(&"k".repeat(LONGEST + 1), 1, |_| ()));
        for atom in 0..1_000 {
            let name = format!("key{atom}");
            let freed = std::cell::RefCell::default();
            let forget = |atom| std::cell::RefCell::<Vec<_>>::borrow_mut(&freed).push(atom);
            assert!(known.learn(&name, atom, forget), "it is new");
            assert!(held.insert(atom));
            for atom in freed.into_inner() {
                assert!(held.remove(&atom), "{atom} was given back twice");
            }
            assert!(!known.learn(&name, atom, |_| panic!("it is known")));
            let has: std::collections::BTreeSet<_> =
                known.entries.iter().map(|entry| entry.atom).collect();
            assert_eq!(has, held);
            assert!(held.len() <= MOST);
        }
    }
}
