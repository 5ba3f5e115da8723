//! The allocator that a runtime of QuickJS is given: it counts the work behind each block, and ends the runtime where it may go no
//! further. The blocks are of [`super::heap`]. Its invariants are those of [`super`].
#![expect(
    unsafe_code,
    reason = "QuickJS is C; here it is called, with the argument at each block"
)]

use std::ffi::c_void;
use std::ptr::{self, NonNull};

use rquickjs::qjs;

use super::heap::{self, Heap};
use super::{Shared, Trip};

/// # Safety
/// `opaque` is the `Shared` that was given to `JS_NewRuntime2` (invariant A).
pub(super) unsafe fn shared_of<'a>(opaque: *mut c_void) -> &'a Shared {
    // SAFETY: the caller's promise.
    unsafe { &*opaque.cast::<Shared>() }
}

/// Bytes asked of the machine that count as one tick: native operations on large values never ask the interrupt handler, but
/// nearly all of them allocate, so a loop of them ends too. Counted, not timed, for replay.
const BYTES_A_TICK: usize = 256 << 10;

/// What the native operation under way may still take when a runtime has to end, in bytes. Some operations of QuickJS do not survive that
/// their second allocation fails (`Function.prototype.bind` frees what it has not made yet, and the process ends); the largest is that
/// of `bind`, of 65,535 arguments and so 1 MiB. No other operation begins: the stack limit of 1 sees to that.
const RESERVE_BYTES: usize = 2 << 20;

impl Shared {
    /// Counts the work behind an allocation, makes it, and ends the runtime where it may go no further.
    fn allocate(&self, size: usize, make: impl Fn(&Heap) -> *mut c_void) -> *mut c_void {
        self.count(size);
        let memory = make(&self.heap);
        if self.heap.has_grown() {
            self.collect_later();
        }
        let is_new = self.heap.refused.get() && self.trip.get().is_none() && self.armed.get();
        if !memory.is_null() || !is_new {
            return memory;
        }
        // The rest of the run is only unwinding, so that nothing can go on or swallow it.
        self.set_trip(Trip::Memory);
        make(&self.heap)
    }

    /// Lets a heap that grows grow to three times what the last collection left, up to a quarter of its limit.
    ///
    /// QuickJS looks for garbage whenever a heap has grown by a half: in one that grows to 15 MB and keeps all, eight times, which
    /// together is three times all that is in it, and was a third of the time in which a fan makes 10,000 calls. Above that quarter it
    /// goes on as it does: garbage must not be what a frame fails of that makes one large value.
    fn collect_later(&self) {
        let Some(rt) = NonNull::new(self.rt.get()) else {
            return;
        };
        // SAFETY: `rt` is live (A); the function reads one word of it.
        let collects_at = unsafe { qjs::JS_GetGCThreshold(rt.as_ptr()) } as usize;
        if collects_at == self.collects_at.get() {
            return;
        }
        // QuickJS has collected since: half as much again as was left.
        let later = (self.heap.limit.get() / 4)
            .min(collects_at.saturating_mul(2))
            .max(collects_at);
        self.collects_at.set(later);
        // SAFETY: `rt` is live (A); the function writes one word of it, which QuickJS reads when it begins to make an object, before it takes
        // memory, and writes after a collection: what is written within one is lost, and written at the next growth.
        unsafe { qjs::JS_SetGCThreshold(rt.as_ptr(), later as qjs::size_t) };
    }

    fn count(&self, size: usize) {
        let room = self.heap.limit.get().saturating_sub(self.heap.used.get());
        if !self.armed.get() || self.trip.get().is_some() || size > room {
            // The heap decides alone: while a realm is made, after a trip, and what it refuses is no work.
            return;
        }
        let debt = self.tick_debt.get().saturating_add(self.heap.work_of(size));
        self.tick_debt.set(debt % BYTES_A_TICK);
        let ticks = self
            .ticks
            .get()
            .saturating_add((debt / BYTES_A_TICK) as u64);
        self.ticks.set(ticks);
        if self.stopper.is_set() {
            self.set_trip(Trip::Interrupted);
        } else if ticks > self.tick_limit.get() {
            self.set_trip(Trip::Ticks);
        }
    }

    pub(super) fn set_trip(&self, trip: Trip) {
        if self.trip.get().is_none() {
            self.trip.set(Some(trip));
        }
        self.heap.limit.set(self.heap.used.get() + RESERVE_BYTES);
        if let Some(rt) = NonNull::new(self.rt.get()) {
            // SAFETY: `rt` is live (A); the function writes two words of it and may be called from anywhere on its thread.
            unsafe { qjs::JS_SetMaxStackSize(rt.as_ptr(), 1) };
        }
    }
}

pub(super) unsafe extern "C" fn js_malloc(opaque: *mut c_void, size: qjs::size_t) -> *mut c_void {
    // SAFETY: QuickJS passes the opaque of JS_NewRuntime2.
    let shared = unsafe { shared_of(opaque) };
    shared.allocate(size as usize, |heap| heap.alloc(size as usize, false))
}

pub(super) unsafe extern "C" fn js_calloc(
    opaque: *mut c_void,
    count: qjs::size_t,
    size: qjs::size_t,
) -> *mut c_void {
    // SAFETY: as in `js_malloc`.
    let shared = unsafe { shared_of(opaque) };
    let Some(total) = (count as usize).checked_mul(size as usize) else {
        return ptr::null_mut();
    };
    shared.allocate(total, |heap| heap.alloc(total, true))
}

pub(super) unsafe extern "C" fn js_free(opaque: *mut c_void, memory: *mut c_void) {
    // SAFETY: as in `js_malloc`; QuickJS frees what it got from this heap, once.
    unsafe { shared_of(opaque).heap.free(memory) }
}

pub(super) unsafe extern "C" fn js_realloc(
    opaque: *mut c_void,
    memory: *mut c_void,
    size: qjs::size_t,
) -> *mut c_void {
    // SAFETY: as in `js_free`.
    let shared = unsafe { shared_of(opaque) };
    if size == 0 {
        // SAFETY: the same.
        unsafe { shared.heap.free(memory) };
        return ptr::null_mut();
    }
    // SAFETY: the same; a block that could not be made larger is as it was.
    shared.allocate(size as usize, |heap| unsafe {
        heap.realloc(memory, size as usize)
    })
}

pub(super) unsafe extern "C" fn js_usable_size(memory: *const c_void) -> qjs::size_t {
    if memory.is_null() {
        return 0;
    }
    // SAFETY: QuickJS asks for blocks of this heap only.
    unsafe { heap::usable_size(memory) as qjs::size_t }
}
