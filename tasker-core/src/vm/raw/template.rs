//! A realm copied whole: the memory of a runtime in which the prelude has run and no task code, and where its pointers are.
//!
//! The runtime that is copied was built in one piece of memory. Each word of it that points into the piece, or at the runtime's
//! [`Shared`], is noted. A copy is a `memcpy` and an addition a pointer; building a realm takes some twenty times as long.
//!
//! Why a copy works as the original does:
//! - QuickJS keeps all its state in memory of its allocator (invariant F). Pointers out of it lead to functions and constants of this
//!   process, and to `Shared`.
//! - Pointers are whole, aligned words, with at most their low two bits used. What else looks like one is what lay there before. A byte or two in the low end of such a word may be in use (`JSShape::is_hashed` is). Pieces are
//!   aligned to 64 KiB, so these stay as they are. A number of JavaScript that looks like one would be below 1e-300.
//! - What depends on an address: shapes are found by a hash of their prototype's address. An old hash is never found and a shape is
//!   made anew; removal uses the hash that was stored. `Map` and `Set` hash objects and symbols by address: the prelude has none as keys.
//!
//! Tests free copies by QuickJS, which walks all that there is, and look at two originals word by word.
//!
//! An image holds code addresses: it never leaves the process and is never accepted from outside.
#![expect(
    unsafe_code,
    reason = "it makes a runtime of QuickJS out of plain memory, with the argument at each block"
)]

use std::alloc::Layout;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rquickjs::qjs;

use super::heap::Heap;
use super::{Host, Runtime, Shared, Stopper};

/// What a realm may take when it is built, in bytes.
const ROOM: usize = 1 << 20;

/// What addresses of the original and of a copy have in common.
const ALIGN: usize = 64 << 10;

/// Pieces that are kept for the next copies.
const SPARE: usize = 32;

/// See the module.
#[derive(Debug)]
pub(in crate::vm) struct Template {
    /// Pointers are offsets here.
    words: Box<[u64]>,
    /// Which words are pointers into the piece.
    pointers: Box<[u32]>,
    /// Which words point at the `Shared`.
    to_shared: Box<[u32]>,
    runtime: u64,
    context: u64,
    kept: Box<[Option<KeptValue>]>,
    /// What the heap counts for these blocks.
    used: usize,
    spare: Mutex<Vec<Memory>>,
}

/// A kept value that is counted.
#[derive(Clone, Copy, Debug)]
struct KeptValue {
    tag: i32,
    offset: u64,
}

impl Template {
    /// The image of a runtime of [`Runtime::to_copy`] that was not armed yet. `None` where it cannot be had: pointers are not of 64 bits,
    /// the piece was too small, or a value is kept that is not counted.
    pub(in crate::vm) fn of(runtime: &Runtime) -> Option<Self> {
        let shared = runtime.shared();
        let piece = shared.heap.piece()?;
        if size_of::<usize>() != 8 || shared.armed.get() || piece.overflowed.get() {
            return None;
        }
        // SAFETY: the runtime is live and on its thread (A, B).
        unsafe { qjs::JS_RunGC(shared.rt.get()) };
        let base = piece.memory.start.as_ptr() as u64;
        let len = piece.used.get() as u64;
        let offset = |word: u64| word.checked_sub(base).filter(|offset| *offset <= len);
        let own = runtime.shared.as_ptr() as u64;
        let (mut pointers, mut to_shared) = (Vec::new(), Vec::new());
        // SAFETY: the piece was zeroed when it was made, so all of it is written; nothing writes while it is read.
        let words =
            unsafe { std::slice::from_raw_parts(piece.memory.start.as_ptr(), len as usize / 8) };
        let words = words.iter().zip(0u32..).map(|(word, at)| {
            if *word == own {
                to_shared.push(at);
                0
            } else if let Some(offset) = offset(*word) {
                pointers.push(at);
                offset
            } else {
                *word
            }
        });
        let words = words.collect();
        let kept = shared.kept.borrow();
        let kept = kept.iter().map(|value| match value {
            None => Some(None),
            Some(value) => {
                // SAFETY: a live value; only a counted one, whose tag is negative, has a pointer.
                let (tag, pointer) = unsafe {
                    let tag = qjs::JS_VALUE_GET_TAG(*value);
                    (tag, (tag < 0).then(|| qjs::JS_VALUE_GET_PTR(*value)))
                };
                let offset = offset(pointer? as u64)?;
                Some(Some(KeptValue { tag, offset }))
            }
        });
        let kept = kept.collect::<Option<_>>()?;
        Some(Self {
            words,
            pointers: pointers.into(),
            to_shared: to_shared.into(),
            runtime: offset(shared.rt.get() as u64)?,
            context: offset(runtime.ctx.as_ptr() as u64)?,
            kept,
            used: shared.heap.used.get(),
            spare: Mutex::default(),
        })
    }

    /// A runtime as the one that the image was taken of, with this host. `None` when the machine has no memory for it.
    pub(in crate::vm) fn copy(self: &Arc<Self>, host: Rc<dyn Host>) -> Option<Runtime> {
        let spare = self.spare().pop();
        let memory = match spare {
            Some(memory) => memory,
            None => Memory::new(self.words.len() * 8, false)?,
        };
        let start = memory.start.as_ptr();
        let base = start.expose_provenance() as u64;
        let mut shared = Box::new(Shared::new(Heap::new(), host, Stopper::default()));
        let own = (&raw mut *shared).expose_provenance() as u64;
        // SAFETY: the memory has room for the words, is aligned for them and nobody's; the positions are of the image.
        unsafe {
            ptr::copy_nonoverlapping(self.words.as_ptr(), start, self.words.len());
            for at in &self.pointers {
                *start.add(*at as usize) += base;
            }
            for at in &self.to_shared {
                *start.add(*at as usize) = own;
            }
        }
        let at = |offset: u64| ptr::with_exposed_provenance_mut::<c_void>((base + offset) as usize);
        let kept = self.kept.iter().map(|value| {
            // A counted value is its tag and its pointer.
            value.map(|KeptValue { tag, offset }| qjs::JS_MKPTR(tag, at(offset)))
        });
        shared.kept.replace(kept.collect());
        shared.rt.set(at(self.runtime).cast());
        shared.stopper.attach(Some(shared.rt.get()));
        let piece = Piece {
            used: Cell::new(memory.layout.size()),
            memory,
            gaps: RefCell::default(),
            overflowed: Cell::new(false),
            template: Some(Arc::clone(self)),
        };
        shared.heap = Heap::within(piece, self.used);
        let ctx = NonNull::new(at(self.context).cast())?;
        Some(Runtime {
            ctx,
            shared: NonNull::from(Box::leak(shared)),
        })
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Memory>> {
        // Pushes and pops leave it whole.
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory of the system, aligned to [`ALIGN`].
#[derive(Debug)]
struct Memory {
    start: NonNull<u64>,
    layout: Layout,
}

// SAFETY: it is owned, and plain bytes while no runtime is in it.
unsafe impl Send for Memory {}

impl Memory {
    /// None of it.
    const EMPTY: Self = Self {
        start: NonNull::dangling(),
        layout: Layout::new::<()>(),
    };

    fn new(size: usize, zeroed: bool) -> Option<Self> {
        let layout = Layout::from_size_align(size.max(1), ALIGN).ok()?;
        // SAFETY: the size is not zero.
        let start = unsafe {
            if zeroed {
                std::alloc::alloc_zeroed(layout)
            } else {
                std::alloc::alloc(layout)
            }
        };
        let start = NonNull::new(start.cast())?;
        Some(Self { start, layout })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.layout.size() > 0 {
            // SAFETY: allocated with this layout, freed once.
            unsafe { std::alloc::dealloc(self.start.as_ptr().cast(), self.layout) };
        }
    }
}

/// The piece of memory in which a runtime was built, or of which it is a copy.
pub(super) struct Piece {
    memory: Memory,
    /// Bytes from the start that blocks have or had.
    used: Cell<usize>,
    /// Gaps that blocks have left, by offset: their sizes. A copy notes none.
    gaps: RefCell<BTreeMap<usize, usize>>,
    /// A block had no room.
    overflowed: Cell<bool>,
    /// Whose copy it is; its memory goes back there.
    template: Option<Arc<Template>>,
}

impl Piece {
    /// Room to build a realm in.
    pub(super) fn room() -> Option<Self> {
        Some(Self {
            memory: Memory::new(ROOM, true)?,
            used: Cell::new(0),
            gaps: RefCell::default(),
            overflowed: Cell::new(false),
            template: None,
        })
    }

    /// Zeroed room for a block, aligned to 16 bytes. A copy has none.
    pub(super) fn take(&self, size: usize) -> Option<NonNull<u8>> {
        if self.template.is_some() {
            return None;
        }
        let size = size.next_multiple_of(16);
        let gap = {
            let mut gaps = self.gaps.borrow_mut();
            let smallest = gaps.iter().filter(|(_, room)| **room >= size);
            let smallest = smallest.min_by_key(|(_, room)| **room);
            let smallest = smallest.map(|(start, room)| (*start, *room));
            if let Some((start, room)) = smallest {
                gaps.remove(&start);
                if room > size {
                    gaps.insert(start + size, room - size);
                }
            }
            smallest.map(|(start, _)| start)
        };
        let start = gap.unwrap_or(self.used.get());
        let end = start + size;
        if end > self.memory.layout.size() {
            self.overflowed.set(true);
            return None;
        }
        self.used.set(end.max(self.used.get()));
        // SAFETY: within the memory, and nobody's.
        unsafe {
            let room = self.memory.start.cast::<u8>().add(start);
            room.write_bytes(0, size);
            Some(room)
        }
    }

    /// A block is not used any more.
    pub(super) fn give_back(&self, block: *const u8, size: usize) {
        if self.template.is_some() {
            return;
        }
        let mut gaps = self.gaps.borrow_mut();
        let mut start = block as usize - self.memory.start.as_ptr() as usize;
        let mut size = size.next_multiple_of(16);
        if let Some((before, room)) = gaps
            .range(..start)
            .next_back()
            .map(|(at, room)| (*at, *room))
            && before + room == start
        {
            gaps.remove(&before);
            (start, size) = (before, room + size);
        }
        if let Some(room) = gaps.remove(&(start + size)) {
            size += room;
        }
        gaps.insert(start, size);
    }

    /// Whether this address is in it.
    pub(super) fn has(&self, address: *const u8) -> bool {
        let start = self.memory.start.as_ptr().cast_const().cast::<u8>();
        (start..start.wrapping_add(self.memory.layout.size())).contains(&address)
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        // The runtime, which alone used it, is gone (F).
        if let Some(template) = self.template.take() {
            let mut spare = template.spare();
            if spare.len() < SPARE {
                spare.push(std::mem::replace(&mut self.memory, Memory::EMPTY));
            }
        }
    }
}

#[cfg(test)]
impl Runtime {
    /// Frees everything as QuickJS does it, which walks all that there is; the bytes that are left.
    pub(in crate::vm) fn free_by_quickjs(self) -> usize {
        let shared = self.shared();
        for value in shared.kept.take().into_iter().flatten() {
            // SAFETY: the table's count.
            unsafe { qjs::JS_FreeValue(self.ctx.as_ptr(), value) };
        }
        shared.stopper.attach(None);
        // SAFETY: live until here and not used after.
        unsafe {
            qjs::JS_FreeContext(self.ctx.as_ptr());
            qjs::JS_FreeRuntime(shared.rt.get());
        }
        shared.heap.used.get()
    }
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
