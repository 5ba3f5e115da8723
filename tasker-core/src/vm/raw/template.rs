//! A realm copied whole: the memory of a runtime in which the prelude has run and no task code, and where its pointers are.
//!
//! The runtime that is copied was built in one piece of memory. Each word of it that points into the piece, or at the runtime's
//! [`Shared`], is noted. A copy is a `memcpy` and an addition a pointer; building a realm takes some twenty times as long.
//!
//! It is built twice. The first time says which blocks stay and which are given back on the way; the second time only those that stay
//! are in the piece, one at the other, and of each arena little more than what is used of it ([`super::arena`]). Both take the same
//! blocks in the same order, for nothing that they do depends on an address.
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

use super::arena::Arena;
use super::heap::{self, HEADER, Heap};
use super::hot_lines::{self, LINE};
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
    /// Cache lines that turns touch, by their numbers; none where they are not known.
    hot: &'static [u16],
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
        if size_of::<usize>() != 8 || shared.armed.get() {
            return None;
        }
        runtime.collect_garbage();
        shared.heap.cut_last();
        if shared.heap.has_blocks_outside() {
            return None;
        }
        let Piece::Original { memory, used, .. } = shared.heap.piece()? else {
            return None;
        };
        let base = memory.start.as_ptr() as u64;
        let len = used.get() as u64;
        let offset = |word: u64| word.checked_sub(base).filter(|offset| *offset <= len);
        let own = runtime.shared.as_ptr() as u64;
        let (mut pointers, mut to_shared) = (Vec::new(), Vec::new());
        // SAFETY: the piece was zeroed when it was made, so all of it is written; nothing writes while it is read.
        let words = unsafe { std::slice::from_raw_parts(memory.start.as_ptr(), len as usize / 8) };
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
        let words: Box<[u64]> = words.collect();
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
            hot: hot_lines::of(hot_lines::layout(&words)),
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
        let piece = Piece::Copy {
            memory,
            template: Arc::clone(self),
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
pub(super) struct Memory {
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

/// The blocks of a realm that stay when it is built, by their numbers in the order in which they are taken.
/// An arena has so many places.
pub(in crate::vm) struct Plan(BTreeMap<u32, Option<u16>>);

/// The piece of memory of a runtime.
pub(super) enum Piece {
    /// There is none yet: a runtime is built to see which of its blocks stay.
    Rehearsal {
        taken: Cell<u32>,
        /// Numbers of the blocks that are there now, by address.
        live: RefCell<BTreeMap<usize, u32>>,
    },
    /// In which a runtime is built. Blocks that do not stay are of the system.
    Original {
        memory: Memory,
        /// Bytes from the start that are blocks.
        used: Cell<usize>,
        taken: Cell<u32>,
        plan: Plan,
        /// The arena that was taken last, and how many places it is to have.
        uncut: Cell<Option<(NonNull<[u8]>, u16)>>,
    },
    /// Its memory goes back to the template.
    Copy {
        memory: Memory,
        template: Arc<Template>,
    },
}

impl Piece {
    pub(super) fn rehearsal() -> Self {
        Self::Rehearsal {
            taken: Cell::default(),
            live: RefCell::default(),
        }
    }

    /// Room to build a realm in, so many bytes from its start.
    pub(super) fn room(plan: Plan, skip: usize) -> Option<Self> {
        Some(Self::Original {
            memory: Memory::new(ROOM, true)?,
            used: Cell::new(skip),
            taken: Cell::default(),
            plan,
            uncut: Cell::default(),
        })
    }

    /// The number of the next block, while a realm is built.
    pub(super) fn number(&self) -> Option<u32> {
        let (Self::Rehearsal { taken, .. } | Self::Original { taken, .. }) = self else {
            return None;
        };
        Some(taken.replace(taken.get() + 1))
    }

    /// Whether a realm is being built.
    pub(super) const fn is_being_built(&self) -> bool {
        !matches!(self, Self::Copy { .. })
    }

    /// Zeroed room, aligned to 8 bytes, for a block that stays.
    pub(super) fn take(&self, number: u32, size: usize) -> Option<NonNull<u8>> {
        let Self::Original {
            memory,
            used,
            plan,
            uncut,
            ..
        } = self
        else {
            return None;
        };
        let places = plan.0.get(&number)?;
        let start = used.get();
        let end = start + size.next_multiple_of(8);
        if end > memory.layout.size() {
            return None;
        }
        used.set(end);
        // SAFETY: within the memory, which was zeroed and of which this part is nobody's.
        let (room, block) = unsafe {
            let room = memory.start.cast::<u8>().add(start);
            (room, room.add(HEADER))
        };
        let block = NonNull::slice_from_raw_parts(block, size - HEADER);
        uncut.set(places.map(|places| (block, places)));
        Some(room)
    }

    /// Shortens the arena that was taken last, if it is to be: what is in its memory then, and the size. QuickJS has laid it out by now,
    /// and nothing lies behind it yet.
    pub(super) fn cut_last(&self) -> Option<(NonNull<c_void>, usize)> {
        let Self::Original { used, uncut, .. } = self else {
            return None;
        };
        let (mut block, places) = uncut.take()?;
        // SAFETY: a live block, which QuickJS wrote whole; it does nothing meanwhile.
        let bytes = unsafe { block.as_mut() };
        let old = bytes.len();
        let new = Arena::of(bytes)?.cut(places)?;
        bytes[new..].fill(0);
        used.set(used.get() - old.next_multiple_of(8) + new.next_multiple_of(8));
        Some((block.cast(), new))
    }

    /// Block `number` is here.
    pub(super) fn note(&self, number: u32, block: *const u8) {
        if let Self::Rehearsal { live, .. } = self {
            live.borrow_mut().insert(block.expose_provenance(), number);
        }
    }

    /// The block is given back.
    pub(super) fn forget(&self, block: *const u8) {
        if let Self::Rehearsal { live, .. } = self {
            live.borrow_mut().remove(&(block as usize));
        }
    }

    /// Has what a turn touches of a copy brought into the processor's caches, without waiting for it.
    pub(super) fn prefetch(&self) {
        let Self::Copy { memory, template } = self else {
            return;
        };
        let start = memory.start.as_ptr().cast_const().cast::<u8>();
        for line in template.hot {
            prefetch(start.wrapping_add(usize::from(*line) * LINE));
        }
    }

    /// Whether this address is in it.
    pub(super) fn has(&self, address: *const u8) -> bool {
        let (Self::Original { memory, .. } | Self::Copy { memory, .. }) = self else {
            return false;
        };
        let start = memory.start.as_ptr().cast_const().cast::<u8>();
        (start..start.wrapping_add(memory.layout.size())).contains(&address)
    }
}

/// One cache line, on processors of which [`hot_lines`] knows.
fn prefetch(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which reads nothing that the program sees and faults at no address; each such processor has it.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

impl Drop for Piece {
    fn drop(&mut self) {
        // The runtime, which alone used it, is gone (F).
        if let Self::Copy { memory, template } = self {
            let mut spare = template.spare();
            if spare.len() < SPARE {
                spare.push(std::mem::replace(memory, Memory::EMPTY));
            }
        }
    }
}

impl Runtime {
    /// Which blocks of this runtime, which is of [`Runtime::to_rehearse`], stay; `None` of another one.
    pub(in crate::vm) fn plan(&self) -> Option<Plan> {
        self.collect_garbage();
        let Piece::Rehearsal { live, .. } = self.shared().heap.piece()? else {
            return None;
        };
        let live = live.borrow();
        let plan = live.iter().map(|(address, number)| {
            let block = ptr::with_exposed_provenance_mut::<u8>(*address);
            // SAFETY: a live block of this runtime, which does nothing meanwhile; it was zeroed when it was taken, so all of it is written.
            let bytes = unsafe {
                let size = heap::usable_size(block.cast_const().cast());
                std::slice::from_raw_parts_mut(block, size)
            };
            let arena = heap::is_arena(bytes.len()).then(|| Arena::of(bytes));
            (*number, arena.flatten().and_then(|arena| arena.wanted()))
        });
        Some(Plan(plan.collect()))
    }

    fn collect_garbage(&self) {
        // SAFETY: the runtime is live and on its thread (A, B).
        unsafe { qjs::JS_RunGC(self.shared().rt.get()) };
    }
}

#[cfg(test)]
impl Runtime {
    /// Whether a block in a place of so many bytes takes an arena from the heap; given back unless it stays.
    pub(in crate::vm) fn takes_an_arena(&self, place: usize, stays: bool) -> bool {
        let (heap, rt) = (&self.shared().heap, self.shared().rt.get());
        let before = heap.used.get();
        // SAFETY: the runtime is live; the block is given back at once or goes with the heap.
        unsafe {
            let block = qjs::js_malloc_rt(rt, (place - super::arena::PLACE_HEADER) as qjs::size_t);
            let took = heap.used.get() > before;
            if !stays {
                qjs::js_free_rt(rt, block);
            }
            took
        }
    }

    /// How many shapes there are: of objects, and those that are held.
    pub(in crate::vm) fn shapes(&self) -> i64 {
        // SAFETY: the runtime is live and on its thread (A, B); numbers are written, for all of which zero is a value.
        unsafe {
            let mut usage = std::mem::zeroed::<qjs::JSMemoryUsage>();
            qjs::JS_ComputeMemoryUsage(self.shared().rt.get(), &raw mut usage);
            usage.shape_count
        }
    }

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
