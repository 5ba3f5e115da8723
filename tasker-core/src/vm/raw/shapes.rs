//! Shapes that stay: those of objects that come again and again, one at a time.
//!
//! QuickJS finds the shape of an object with one key more in a table, and makes it where there is none. A shape goes with its last
//! object, and in a task that awaits one call after the other the last answer is gone before the next one is read: each is made anew,
//! key by key, and so is the literal of the arguments. Where keys came twice in one order, an empty object, one of the first key, one of
//! the first two and so on are kept, as long as the frame is in memory.
//!
//! The two functions that settle a promise have shapes too, which come and go with each call that is awaited: they are held from a frame's
//! second promise on.
//!
//! What they take is memory of the frame, and bounded: [`HELD`] orders of [`KEYS`] keys take some 11 KB, for which a heap grows by five
//! or six arenas of 4 KB. A frame whose limit is near holds none.
//!
//! Invariants: they are of a frame, never of a realm that is copied · which ones there are follows from what was read and written, so that
//! a replay has the same ones · nothing of the task is asked or run when they are made.

use super::{Ctx, Kept, Key, Thrown, Value};

/// Orders that are held at one time, which is until the frame is gone.
const HELD: usize = 4;

/// Keys from the start of an order that are held.
const KEYS: usize = 8;

/// Orders that are remembered for having come once. More than are held: the answers and arguments of a loop may be many.
const SEEN: usize = 8;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct HeldShapes {
    seen: [KeyOrder; SEEN],
    /// Where the next one is noted.
    next: u8,
    held: [KeyOrder; HELD],
    count: u8,
    settling: Settling,
}

/// What is known of the functions that settle promises.
#[derive(Clone, Copy, Debug, Default)]
enum Settling {
    #[default]
    Unseen,
    SeenOnce,
    Held,
}

/// The keys of one object in their order, as one number. Two orders of one number are held once, and nothing else is wrong with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::vm) struct KeyOrder(u32);

impl KeyOrder {
    /// This key comes next.
    pub(in crate::vm) fn push(&mut self, key: &Key<'_>) {
        self.push_number(key.atom);
    }

    const fn push_number(&mut self, number: u32) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b1);
    }
}

impl HeldShapes {
    /// Whether the order came before and can be held.
    fn is_wanted(&mut self, order: KeyOrder) -> bool {
        if usize::from(self.count) == HELD || self.held.contains(&order) {
            return false;
        }
        if self.seen.contains(&order) {
            return true;
        }
        self.seen[usize::from(self.next)] = order;
        self.next = (self.next + 1) % SEEN as u8;
        false
    }

    /// The order is held from now on; whether it is the first one.
    fn hold(&mut self, order: KeyOrder) -> bool {
        let count = usize::from(self.count);
        if let Some(place) = self.held.get_mut(count) {
            *place = order;
            self.count += 1;
        }
        count == 0
    }
}

impl<'r> Ctx<'r> {
    /// An object with keys in this order was read or written: whether their shapes are to be held, by [`Ctx::hold_shapes`].
    pub(in crate::vm) fn wants_shapes(self, order: KeyOrder) -> bool {
        self.shared.shapes.borrow_mut().is_wanted(order) && self.may_hold()
    }

    /// Whether this is a frame with room for it.
    fn may_hold(self) -> bool {
        let shared = self.shared;
        shared.armed.get() && shared.trip.get().is_none() && shared.heap.has_room_to_hold()
    }

    /// Holds the shapes of these keys.
    pub(in crate::vm) fn hold_shapes(
        self,
        order: KeyOrder,
        keys: &[Key<'r>],
    ) -> Result<(), Thrown> {
        let is_first = self.shared.shapes.borrow_mut().hold(order);
        let keys = &keys[..keys.len().min(KEYS)];
        for count in usize::from(!is_first)..=keys.len() {
            let holder = self.object()?;
            for key in &keys[..count] {
                holder.define(key, self.undefined())?;
            }
            // Until the runtime goes.
            let Kept(_) = self.keep(holder);
        }
        Ok(())
    }

    /// A promise was made that this function resolves, which nothing else has seen yet: holds the shapes of such functions the second
    /// time.
    pub(super) fn note_settling(self, resolve: &Value<'r>) -> Result<(), Thrown> {
        let shapes = &self.shared.shapes;
        let settling = shapes.borrow().settling;
        match settling {
            Settling::Unseen => {
                shapes.borrow_mut().settling = Settling::SeenOnce;
                Ok(())
            }
            Settling::SeenOnce if self.may_hold() => {
                shapes.borrow_mut().settling = Settling::Held;
                self.hold_settling(resolve)
            }
            Settling::SeenOnce | Settling::Held => Ok(()),
        }
    }

    /// Objects that have the keys of a function which is not of the task, as QuickJS defines them: one of the first, one of both.
    fn hold_settling(self, function: &Value<'r>) -> Result<(), Thrown> {
        let keys = [Key::new(self, "length")?, Key::new(self, "name")?];
        for keys in [&keys[..1], &keys] {
            let holder = self.object_like(function)?;
            for key in keys {
                holder.define_constant(key, self.undefined())?;
            }
            let Kept(_) = self.keep(holder);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "shapes_tests.rs"]
mod tests;
