//! The allocator of one runtime: it counts, refuses and can give everything back at once.
//!
//! Blocks come from the system, or lie in one piece of memory that is copied whole ([`super::template`]) and goes as a whole.
//!
//! QuickJS puts small blocks into arenas of about 4 KiB and gives an arena back with its last block. Where a value is the only one of its
//! size, a loop that makes it anew gives an arena back and takes it again each time: a few are kept, and taken again for next to nothing.
//! Laying it out anew is left, a write to each of its places: an arena that comes and goes in a turn is held after it
//! ([`Heap::take_churned`]).
#![expect(
    unsafe_code,
    reason = "memory that C code takes and gives back, with the argument at each block"
)]

use std::alloc::Layout;
use std::cell::{Cell, OnceCell};
use std::ffi::c_void;
use std::ptr;
use std::sync::OnceLock;

use super::arena;
use super::template::Piece;

/// Header of each block, in a ring through `Heap::ring`, so that all blocks can be freed without asking QuickJS, which needs blocks
/// to be aligned to 8 bytes: its own within an arena are.
#[repr(C)]
struct Block {
    prev: *mut Block,
    next: *mut Block,
    size: usize,
}

pub(super) const HEADER: usize = size_of::<Block>();
const ALIGN: usize = align_of::<Block>();

/// The largest arena of QuickJS (`JS_ARENA_SIZE`), and what the smallest one surely has, in bytes.
const ARENA: usize = 4_096;
const SMALLEST_ARENA: usize = 3_500;

/// Blocks for arenas that are kept.
const SPARES: u32 = 4;

/// Arenas that a heap takes together which has so many bytes, more than twice a realm: below 64 KiB, from which on glibc looks through
/// what it has free when a block is given back.
const TOGETHER: u8 = 15;
const GROWN: usize = 512 << 10;

/// Arenas that are held in all.
const HELD: u32 = 8;
/// What a heap must have room for that holds one, in bytes, or shapes ([`super::shapes`]): holding them must not be what a frame fails of.
pub(super) const HELD_ROOM: usize = 256 << 10;

/// What taking a kept block counts for, as a share of one from the system: QuickJS writes the heads of an arena's places.
const SPARE_COUNTS: usize = 16;

/// The allocator of one runtime.
pub(super) struct Heap {
    ring: Cell<*mut Block>,
    pub(super) used: Cell<usize>,
    pub(super) limit: Cell<usize>,
    pub(super) refused: Cell<bool>,
    /// Blocks for arenas that were given back: not in the ring, chained by `next`, and how many.
    spare: Cell<*mut Block>,
    spares: Cell<u32>,
    /// Bytes of a place of the arena that was taken again last, once it was given back; 0: none. And how many were told of.
    churned: Cell<usize>,
    churns: Cell<u32>,
    /// Arenas that were taken from the system, as far as [`Heap::make_room`] counts.
    taken: Cell<u8>,
    /// It grew by [`TOGETHER`] arenas since [`Heap::has_grown`] was last asked.
    grown: Cell<bool>,
    /// In which blocks lie that are not in the ring.
    piece: OnceCell<Piece>,
}

/// What is done when the system has no more memory for a heap that may have it. Nothing: the frame ends as if its own limit were
/// passed. A process that only turns VMs ends itself instead, for the frame is not to blame.
static OUT_OF_MEMORY: OnceLock<fn() -> !> = OnceLock::new();

/// Ends the process by `end` when the system has no more memory.
#[cfg(feature = "process-wall")]
pub(crate) fn when_out_of_memory(end: fn() -> !) {
    // Whoever comes second meant the same.
    let _ = OUT_OF_MEMORY.set(end);
}

fn system_refuses() {
    if let Some(end) = OUT_OF_MEMORY.get() {
        end();
    }
}

impl Heap {
    pub(super) fn new() -> Self {
        Self {
            ring: Cell::new(ptr::null_mut()),
            used: Cell::new(0),
            limit: Cell::new(usize::MAX),
            refused: Cell::new(false),
            spare: Cell::new(ptr::null_mut()),
            spares: Cell::new(0),
            churned: Cell::new(0),
            churns: Cell::new(0),
            taken: Cell::new(0),
            grown: Cell::new(false),
            piece: OnceCell::new(),
        }
    }

    /// A heap that begins with this piece, whose blocks count as `used` bytes.
    pub(super) fn within(piece: Piece, used: usize) -> Self {
        let heap = Self::new();
        heap.used.set(used);
        // A new heap has none.
        let _ = heap.piece.set(piece);
        heap
    }

    pub(super) fn piece(&self) -> Option<&Piece> {
        self.piece.get()
    }

    /// Whether the block lies in the piece, where it stays.
    fn is_in_piece(&self, block: *mut Block) -> bool {
        self.piece()
            .is_some_and(|piece| piece.has(block.cast_const().cast()))
    }

    /// Whether there are blocks that are not in the piece.
    pub(super) fn has_blocks_outside(&self) -> bool {
        !self.ring.get().is_null()
    }

    fn layout(size: usize) -> Option<Layout> {
        Layout::from_size_align(size.checked_add(HEADER)?, ALIGN).ok()
    }

    fn admits(&self, more: usize) -> bool {
        let fits = self
            .used
            .get()
            .checked_add(more)
            .is_some_and(|sum| sum <= self.limit.get());
        if !fits {
            self.refused.set(true);
        }
        fits
    }

    #[expect(
        clippy::cast_ptr_alignment,
        reason = "the layout asks for the alignment of a block"
    )]
    pub(super) fn alloc(&self, size: usize, zeroed: bool) -> *mut c_void {
        let Some(layout) = Self::layout(size).filter(|layout| self.admits(layout.size())) else {
            return ptr::null_mut();
        };
        self.cut_last();
        let number = self.piece().and_then(Piece::number);
        if let Some(room) = self
            .piece()
            .and_then(|piece| piece.take(number?, layout.size()))
        {
            let block = room.as_ptr().cast::<Block>();
            self.used.set(self.used.get() + layout.size());
            // SAFETY: room for the block, aligned for it and nobody's.
            unsafe {
                (*block).size = layout.size();
                return block.add(1).cast();
            }
        }
        let memory = self.alloc_outside(size, layout, zeroed);
        if let (Some(piece), Some(number)) = (self.piece(), number) {
            piece.note(number, memory.cast_const().cast());
        }
        memory
    }

    #[expect(
        clippy::cast_ptr_alignment,
        reason = "the layout asks for the alignment of a block"
    )]
    fn alloc_outside(&self, size: usize, layout: Layout, zeroed: bool) -> *mut c_void {
        if let Some(block) = self.take_spare(size) {
            // SAFETY: it has room for an arena, and is nobody's.
            unsafe {
                let memory = block.add(1).cast::<c_void>();
                if zeroed {
                    memory.write_bytes(0, size);
                }
                self.used.set(self.used.get() + (*block).size);
                self.link(block);
                return memory;
            }
        }
        let is_building = self.piece().is_some_and(Piece::is_being_built);
        let zeroed = zeroed || is_building;
        // All for arenas are of one size, so that each can be any.
        let layout = if is_arena(size) && !is_building {
            self.make_room();
            Self::layout(ARENA).unwrap_or(layout)
        } else {
            layout
        };
        // SAFETY: the layout's size is at least HEADER, so not zero. The block is written before it is linked.
        unsafe {
            let block = if zeroed {
                std::alloc::alloc_zeroed(layout)
            } else {
                std::alloc::alloc(layout)
            }
            .cast::<Block>();
            if block.is_null() {
                system_refuses();
                self.refused.set(true);
                return ptr::null_mut();
            }
            self.used.set(self.used.get() + layout.size());
            (*block).size = layout.size();
            self.link(block);
            let memory = block.add(1);
            if is_arena(size) {
                // For `take_spare`.
                memory.byte_add(arena::PLACES).cast::<u16>().write(0);
            }
            memory.cast()
        }
    }

    /// Before an arena is taken from the system: a heap that grows asks for room for [`TOGETHER`] at once.
    ///
    /// glibc makes the memory of a thread larger by one block each time, which is a system call for each arena. A block as large as many,
    /// taken and given back at once, stays with its end, and arenas come out of it.
    fn make_room(&self) {
        if self.used.get() < GROWN {
            return;
        }
        let taken = self.taken.get();
        self.taken.set((taken + 1) % TOGETHER);
        if taken > 0 {
            return;
        }
        self.grown.set(true);
        let Some(layout) = Self::layout((ARENA + 2 * HEADER) * usize::from(TOGETHER)) else {
            return;
        };
        // SAFETY: the size is not zero; a block that there is is given back with its layout. It is nobody's and never written.
        unsafe {
            // Otherwise the compiler would leave out both.
            let room = std::hint::black_box(std::alloc::alloc(layout));
            if !room.is_null() {
                std::alloc::dealloc(room, layout);
            }
        }
    }

    /// Whether a heap of at least [`GROWN`] bytes grew by [`TOGETHER`] arenas since this was last asked.
    pub(super) fn has_grown(&self) -> bool {
        self.grown.replace(false)
    }

    /// Shortens the arena that was taken last, if the piece wants that.
    pub(super) fn cut_last(&self) {
        let Some((memory, size)) = self.piece().and_then(Piece::cut_last) else {
            return;
        };
        // SAFETY: a live block of the piece.
        unsafe {
            let block = memory.as_ptr().cast::<Block>().sub(1);
            let old = std::mem::replace(&mut (*block).size, HEADER + size);
            self.used.set(self.used.get() - old + HEADER + size);
        }
    }

    /// # Safety
    /// `block` is a live block of this heap that is not in the ring.
    unsafe fn link(&self, block: *mut Block) {
        let head = self.ring.get();
        // SAFETY: the caller's promise for `block`; `head` is null or a live block of the ring, as is all that it points to.
        unsafe {
            (*block).prev = ptr::null_mut();
            (*block).next = head;
            if !head.is_null() {
                (*head).prev = block;
            }
        }
        self.ring.set(block);
    }

    /// # Safety
    /// `block` is in the ring.
    unsafe fn unlink(&self, block: *mut Block) {
        // SAFETY: blocks in the ring and their neighbours are live.
        unsafe {
            let (prev, next) = ((*block).prev, (*block).next);
            if prev.is_null() {
                self.ring.set(next);
            } else {
                (*prev).next = next;
            }
            if !next.is_null() {
                (*next).prev = prev;
            }
        }
    }

    /// # Safety
    /// `memory` is null or was given by this heap and not freed.
    pub(super) unsafe fn free(&self, memory: *mut c_void) {
        if memory.is_null() {
            return;
        }
        // SAFETY: by the caller's promise there is a header in front, whose size is the layout's; it is in the ring if it is not in the piece.
        unsafe {
            let block = memory.cast::<Block>().sub(1);
            let size = (*block).size;
            self.used.set(self.used.get() - size);
            if let Some(piece) = self.piece() {
                piece.forget(memory.cast_const().cast());
            }
            if self.is_in_piece(block) {
                return;
            }
            self.unlink(block);
            if size == ARENA + HEADER && self.spares.get() < SPARES {
                (*block).next = self.spare.replace(block);
                self.spares.set(self.spares.get() + 1);
                return;
            }
            std::alloc::dealloc(block.cast(), Layout::from_size_align_unchecked(size, ALIGN));
        }
    }

    fn take_spare(&self, size: usize) -> Option<*mut Block> {
        let block = self.spare.get();
        if block.is_null() || !is_arena(size) {
            return None;
        }
        // SAFETY: kept blocks are live and nobody's, and have room for an arena. The two bytes were written when it was taken from the
        // system; what QuickJS had there since was an arena's number of places or anything else, of which nothing but a size becomes.
        unsafe {
            self.spare.set((*block).next);
            let places = block.add(1).byte_add(arena::PLACES).cast::<u16>().read();
            self.churned.set(arena::place_of(places, size).unwrap_or(0));
        }
        self.spares.set(self.spares.get() - 1);
        Some(block)
    }

    /// An arena was given back and taken again since this was asked last: what a block takes that lies in such a one. It stays as long as
    /// the block is there. Asked between two turns.
    pub(super) fn take_churned(&self) -> Option<usize> {
        let place = self.churned.take();
        if place == 0 || !self.has_room_to_hold() || self.churns.get() == HELD {
            return None;
        }
        self.churns.set(self.churns.get() + 1);
        Some(place - arena::PLACE_HEADER)
    }

    /// Whether there is room for what is held only because it saves work.
    pub(super) fn has_room_to_hold(&self) -> bool {
        self.limit.get().saturating_sub(self.used.get()) >= HELD_ROOM
    }

    /// What an allocation of this size counts for as work, in bytes.
    pub(super) fn work_of(&self, size: usize) -> usize {
        if self.spares.get() > 0 && is_arena(size) {
            size / SPARE_COUNTS
        } else {
            size
        }
    }

    /// # Safety
    /// As [`Heap::free`].
    #[expect(
        clippy::cast_ptr_alignment,
        reason = "the layout asks for the alignment of a block"
    )]
    pub(super) unsafe fn realloc(&self, memory: *mut c_void, size: usize) -> *mut c_void {
        if memory.is_null() {
            return self.alloc(size, false);
        }
        if size == 0 {
            // SAFETY: passed on.
            unsafe { self.free(memory) };
            return ptr::null_mut();
        }
        // SAFETY: as in `free`; the block is out of the ring while it may move, and linked again in either case.
        unsafe {
            let block = memory.cast::<Block>().sub(1);
            let old = (*block).size;
            // What grows to the size that is kept for arenas was none, and is not to be kept as one.
            let room = if size == ARENA { size + ALIGN } else { size };
            let Some(layout) = Self::layout(room)
                .filter(|layout| layout.size() <= old || self.admits(layout.size() - old))
            else {
                return ptr::null_mut();
            };
            if self.is_in_piece(block) || self.piece().is_some_and(Piece::is_being_built) {
                // It cannot grow where it is, or has to get a number. Only the difference was asked for above, so the old one is given
                // back first.
                self.used.set(self.used.get() - old);
                let moved = self.alloc(size, false);
                self.used.set(self.used.get() + old);
                if !moved.is_null() {
                    let kept = size.min(old - HEADER);
                    ptr::copy_nonoverlapping(memory.cast::<u8>(), moved.cast::<u8>(), kept);
                    self.free(memory);
                }
                return moved;
            }
            self.unlink(block);
            let moved = std::alloc::realloc(
                block.cast(),
                Layout::from_size_align_unchecked(old, ALIGN),
                layout.size(),
            )
            .cast::<Block>();
            if moved.is_null() {
                system_refuses();
                self.refused.set(true);
                self.link(block);
                return ptr::null_mut();
            }
            self.used.set(self.used.get() - old + layout.size());
            (*moved).size = layout.size();
            self.link(moved);
            moved.add(1).cast()
        }
    }

    /// Gives every block back to the system; the piece goes when the heap is dropped.
    pub(super) fn free_all(&self) {
        for first in [&self.ring, &self.spare] {
            let mut block = first.replace(ptr::null_mut());
            while !block.is_null() {
                // SAFETY: every block of the ring and every kept one is live and freed once, for it was taken out; `next` is read before.
                unsafe {
                    let next = (*block).next;
                    let size = (*block).size;
                    std::alloc::dealloc(
                        block.cast(),
                        Layout::from_size_align_unchecked(size, ALIGN),
                    );
                    block = next;
                }
            }
        }
        self.spares.set(0);
        self.used.set(0);
    }
}

pub(super) fn is_arena(size: usize) -> bool {
    (SMALLEST_ARENA..=ARENA).contains(&size)
}

/// # Safety
/// `memory` was given by a heap and not freed.
pub(super) unsafe fn usable_size(memory: *const c_void) -> usize {
    // SAFETY: by the caller's promise a header is in front.
    unsafe { (*memory.cast::<Block>().sub(1)).size - HEADER }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Also beyond [`GROWN`], from where on room is made for several.
    #[test]
    fn a_heap_that_grows_counts_each_arena() {
        const COUNT: usize = 2 * GROWN / ARENA;
        let heap = Heap::new();
        heap.limit.set(COUNT * (ARENA + HEADER));
        let mut taken = Vec::new();
        for count in 1..=COUNT {
            taken.push(heap.alloc(ARENA, false));
            assert_eq!(heap.used.get(), count * (ARENA + HEADER));
        }
        assert!(!heap.refused.get() && taken.iter().all(|memory| !memory.is_null()));
        assert!(heap.alloc(ARENA, false).is_null() && heap.refused.get());
        for memory in taken {
            // SAFETY: given by this heap, once.
            unsafe { heap.free(memory) };
        }
        assert_eq!(heap.used.get(), 0);
        heap.free_all();
    }
}
