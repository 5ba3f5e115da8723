//! All that speaks C: a safe surface over `rquickjs::qjs`. Here is the runtime; `context` and `value` are what is done in it,
//! `callbacks` what QuickJS calls, `allocator` and `heap` its memory; `template` copies runtimes.
//!
//! What it is: one runtime with one context ([`Runtime`]), values that cannot outlive it ([`Value`]), one static C function
//! through which JavaScript reaches a [`Host`], an allocator that counts, refuses and can give everything back at once.
//! What it is not: it knows nothing of tasks, calls or limits beyond "a [`Trip`] happened".
//!
//! Invariants on which every `unsafe` block here and in these files rests:
//! - **A.** `Shared` never moves and is freed last; `rt` and `ctx` live exactly as long as it. A [`Ctx`] or [`Value`] borrows it.
//! - **B.** A runtime is used by the thread that made it: `Runtime`, `Ctx` and `Value` are neither `Send` nor `Sync`.
//! - **C.** A [`Value`] owns one reference count of a value of its own runtime; every entry asserts that the runtimes agree.
//! - **D.** No reference into `Shared` is held across a call into QuickJS other than shared ones; all its state is in cells.
//! - **E.** Nothing unwinds into C: callbacks catch panics.
//! - **F.** All memory of the runtime comes from [`Heap`]. Dropping frees the blocks and never runs `JS_FreeRuntime`, whose
//!   assertions may abort the process after an out-of-memory. QuickJS keeps no state elsewhere once `Atomics` is out of reach.
//! - **G.** One thing is done to a runtime by another thread: [`Stopper::stop`] sets its stack limit, under a lock that `drop`
//!   takes before anything is freed.
#![expect(
    unsafe_code,
    reason = "QuickJS is C; here it is called, with the argument at each block"
)]

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rquickjs::qjs;

mod allocator;
mod arena;
mod callbacks;
mod context;
mod heap;
mod hot_lines;
mod keys;
mod shapes;
mod template;
mod value;

use allocator::{js_calloc, js_free, js_malloc, js_realloc, js_usable_size, shared_of};
pub(super) use callbacks::Args;
use callbacks::{js_load, js_normalize, js_rejection};
pub(super) use context::Ctx;
use heap::Heap;
#[cfg(feature = "process-wall")]
pub(crate) use heap::when_out_of_memory;
use keys::KnownKeys;
use shapes::HeldShapes;
pub(super) use shapes::KeyOrder;
pub(super) use template::{Plan, Template};
pub(super) use value::{Key, Value};

/// A pending JavaScript exception: it waits in the context, [`Ctx::exception`] takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Thrown;

/// What ended a runtime for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trip {
    Memory,
    Ticks,
    Interrupted,
    /// The host's own limits.
    Host(crate::limits::Limit),
}

/// What stands behind the bridge. Called re-entrantly: implementations keep their state in cells and hold no borrow while they call back.
pub(super) trait Host {
    /// Bridge function number `op` was called.
    fn call<'r>(&self, ctx: Ctx<'r>, op: i32, args: &Args<'r>) -> Result<Value<'r>, Thrown>;
    /// The name under which `name`, imported by `base`, is loaded.
    fn resolve(&self, base: &str, name: &str) -> Result<String, String>;
    /// The module of a resolved name.
    fn module<'r>(&self, ctx: Ctx<'r>, name: &str) -> Result<ModuleSource<'r>, ModuleError>;
    /// A promise was rejected without a handler, or a handler came later.
    fn rejection<'r>(&self, ctx: Ctx<'r>, promise: &Value<'r>, reason: &Value<'r>, handled: bool);
}

/// A module as the loader makes it.
pub(super) enum ModuleSource<'r> {
    /// Of an ES module.
    Bytecode(Arc<[u8]>),
    /// What a CommonJS module exported: becomes the default export, its members named exports.
    Exports(Value<'r>),
}

/// Why there is no module.
pub(super) enum ModuleError {
    /// A message for the task.
    Missing(String),
    /// An exception is pending.
    Thrown,
}

/// Type of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Undefined,
    Null,
    Bool(bool),
    Int(i32),
    Float(f64),
    String,
    Symbol,
    BigInt,
    Object,
    /// Internal values that escape on out-of-memory paths.
    Other,
}

/// What running one job did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Job {
    None,
    Ran,
    /// It threw; the exception is pending.
    Threw,
}

/// What QuickJS answers when it has no memory for an atom.
const NO_ATOM: qjs::JSAtom = qjs::JS_ATOM_NULL as qjs::JSAtom;

struct Shared {
    heap: Heap,
    rt: Cell<*mut qjs::JSRuntime>,
    trip: Cell<Option<Trip>>,
    /// At how many bytes QuickJS looks for garbage next, as this set it; 0: not yet.
    collects_at: Cell<usize>,
    /// Limits apply; off while a realm is prepared.
    armed: Cell<bool>,
    ticks: Cell<u64>,
    tick_debt: Cell<usize>,
    grants: Cell<u32>,
    tick_limit: Cell<u64>,
    stopper: Stopper,
    host: Rc<dyn Host>,
    kept: RefCell<Vec<Option<qjs::JSValue>>>,
    free_slots: RefCell<Vec<u32>>,
    scratch: RefCell<Vec<u8>>,
    /// Atom of `toJSON`, which every object that is written is asked for; kept for good once it was needed.
    to_json: Cell<qjs::JSAtom>,
    /// Keys of the objects that were read last.
    known_keys: RefCell<KnownKeys>,
    /// Shapes of objects that came again.
    shapes: RefCell<HeldShapes>,
}

impl Shared {
    fn new(heap: Heap, host: Rc<dyn Host>, stopper: Stopper) -> Self {
        Self {
            heap,
            rt: Cell::new(ptr::null_mut()),
            trip: Cell::new(None),
            collects_at: Cell::new(0),
            armed: Cell::new(false),
            ticks: Cell::new(0),
            tick_debt: Cell::new(0),
            grants: Cell::new(0),
            tick_limit: Cell::new(u64::MAX),
            stopper,
            host,
            kept: RefCell::default(),
            free_slots: RefCell::default(),
            scratch: RefCell::default(),
            to_json: Cell::new(NO_ATOM),
            known_keys: RefCell::default(),
            shapes: RefCell::default(),
        }
    }
}

/// One QuickJS runtime with one context.
pub(super) struct Runtime {
    ctx: NonNull<qjs::JSContext>,
    /// Of `Box::into_raw`: QuickJS holds the same pointer, so no `Box` may claim it alone.
    shared: NonNull<Shared>,
}

/// A value that outlives the borrow of a [`Ctx`]: a place in its runtime. Given back by [`Ctx::release`], or with the runtime.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Kept(u32);

impl Kept {
    /// The same place in a copy of its runtime.
    pub(super) const fn in_copy(&self) -> Self {
        Self(self.0)
    }
}

impl Runtime {
    /// A runtime with the intrinsics that tasks get; `None` when the machine has no memory for it.
    pub(super) fn new(host: Rc<dyn Host>) -> Option<Self> {
        Self::with_stopper(host, Stopper::default())
    }

    /// [`Runtime::new`], ended by this stopper, which is for one runtime at a time.
    pub(super) fn with_stopper(host: Rc<dyn Host>, stopper: Stopper) -> Option<Self> {
        Self::in_heap(Heap::new(), host, stopper)
    }

    /// A runtime that is built to see which of its blocks stay: for [`Runtime::plan`].
    pub(super) fn to_rehearse(host: Rc<dyn Host>) -> Option<Self> {
        let heap = Heap::within(template::Piece::rehearsal(), 0);
        Self::in_heap(heap, host, Stopper::default())
    }

    /// A runtime for [`Template::of`], so many bytes from the start of its memory. The plan is of one with which the same was done.
    pub(super) fn to_copy(host: Rc<dyn Host>, plan: Plan, skip: usize) -> Option<Self> {
        let heap = Heap::within(template::Piece::room(plan, skip)?, 0);
        Self::in_heap(heap, host, Stopper::default())
    }

    fn in_heap(heap: Heap, host: Rc<dyn Host>, stopper: Stopper) -> Option<Self> {
        let owned = Box::new(Shared::new(heap, host, stopper));
        let functions = qjs::JSMallocFunctions {
            js_calloc: Some(js_calloc),
            js_malloc: Some(js_malloc),
            js_free: Some(js_free),
            js_realloc: Some(js_realloc),
            js_malloc_usable_size: Some(js_usable_size),
        };
        let pointer = NonNull::from(Box::leak(owned));
        let opaque = pointer.as_ptr().cast::<c_void>();
        // SAFETY: leaked just now; nothing frees it before `give_up` or `drop`.
        let shared = unsafe { pointer.as_ref() };
        let give_up = || {
            shared.stopper.attach(None);
            shared.heap.free_all();
            // SAFETY: the pointer of the leaked box; this is the last use on every path that comes here.
            drop(unsafe { Box::from_raw(pointer.as_ptr()) });
        };
        // SAFETY: `functions` is copied; `opaque` is boxed and outlives the runtime (A). A null result is handled at each step;
        // what was allocated so far goes with the heap.
        unsafe {
            let rt = qjs::JS_NewRuntime2(&raw const functions, opaque);
            if rt.is_null() {
                give_up();
                return None;
            }
            shared.rt.set(rt);
            shared.stopper.attach(Some(rt));
            qjs::JS_SetRuntimeOpaque(rt, opaque);
            let ctx = qjs::JS_NewContextRaw(rt);
            if ctx.is_null() {
                give_up();
                return None;
            }
            // No WeakRef and no performance: they let a task see the garbage collector and the clock.
            let bad = qjs::JS_AddIntrinsicBaseObjects(ctx) != 0
                || qjs::JS_AddIntrinsicDate(ctx) != 0
                || qjs::JS_AddIntrinsicEval(ctx) != 0
                || qjs::JS_AddIntrinsicRegExp(ctx) != 0
                || qjs::JS_AddIntrinsicJSON(ctx) != 0
                || qjs::JS_AddIntrinsicProxy(ctx) != 0
                || qjs::JS_AddIntrinsicMapSet(ctx) != 0
                || qjs::JS_AddIntrinsicTypedArrays(ctx) != 0
                || qjs::JS_AddIntrinsicPromise(ctx) != 0
                || qjs::JS_AddIntrinsicAToB(ctx) != 0;
            let Some(ctx) = NonNull::new(ctx).filter(|_| !bad) else {
                give_up();
                return None;
            };
            qjs::JS_SetContextOpaque(ctx.as_ptr(), opaque);
            qjs::JS_SetInterruptHandler(rt, Some(js_interrupt), opaque);
            qjs::JS_SetHostPromiseRejectionTracker(rt, Some(js_rejection), opaque);
            qjs::JS_SetModuleLoaderFunc(rt, Some(js_normalize), Some(js_load), opaque);
            Some(Self {
                ctx,
                shared: pointer,
            })
        }
    }

    /// Has what a turn touches brought into the processor's caches, without waiting for it.
    pub(super) fn prefetch(&self) {
        if let Some(piece) = self.shared().heap.piece() {
            piece.prefetch();
        }
    }

    fn shared(&self) -> &Shared {
        // SAFETY: live until `drop` (A); only shared references to it exist (D).
        unsafe { self.shared.as_ref() }
    }

    /// Enters the runtime from this place of this thread's stack.
    pub(super) fn enter(&self) -> Ctx<'_> {
        // SAFETY: `rt` is live (A) and this is its thread (B). A tripped runtime keeps its stack limit of 1.
        unsafe { qjs::JS_UpdateStackTop(self.shared().rt.get()) };
        Ctx {
            raw: self.ctx,
            shared: self.shared(),
        }
    }

    /// Sets the limits and arms them.
    pub(super) fn arm(&self, memory_bytes: usize, stack_bytes: usize) {
        self.shared().heap.limit.set(memory_bytes);
        self.shared().heap.refused.set(false);
        self.shared().armed.set(true);
        // SAFETY: `rt` is live (A). 0 would mean "no limit", 16 MiB is the most that any thread of ours offers.
        unsafe {
            qjs::JS_SetMaxStackSize(
                self.shared().rt.get(),
                stack_bytes.clamp(1, 16 << 20) as qjs::size_t,
            );
        };
        if self.shared().stopper.is_set() {
            // Stopped before it began: the limit set just now came after.
            self.shared().set_trip(Trip::Interrupted);
        }
    }

    /// A new turn: its tick budget.
    pub(super) fn set_tick_limit(&self, limit: u64) {
        self.shared().ticks.set(0);
        self.shared().tick_debt.set(0);
        self.shared().tick_limit.set(limit);
    }

    /// What ended this runtime, if anything did. Being stopped counts from the moment on at which another thread did it: the error
    /// by which the task's code then ends is none of its own.
    pub(super) fn tripped(&self) -> Option<Trip> {
        let shared = self.shared();
        if shared.trip.get().is_none() && shared.stopper.is_set() {
            shared.set_trip(Trip::Interrupted);
        }
        shared.trip.get()
    }

    /// After a turn: an arena that came and went in it stays from now on.
    pub(super) fn hold_arenas(&self) {
        let shared = self.shared();
        if let Some(size) = shared.heap.take_churned()
            && shared.trip.get().is_none()
        {
            // SAFETY: `rt` is live (A). The block is never used and goes with the heap.
            unsafe { qjs::js_malloc_rt(shared.rt.get(), size as qjs::size_t) };
        }
    }

    /// Bytes taken from the machine.
    pub(super) fn memory_bytes(&self) -> usize {
        self.shared().heap.used.get()
    }

    /// By which another thread ends this runtime.
    pub(super) fn stopper(&self) -> Stopper {
        self.shared().stopper.clone()
    }
}

/// Ends a runtime from another thread. Good for ever: of a runtime that is gone nothing is touched.
///
/// QuickJS asks whether to go on about every 10,000 steps of the interpreter, and a step may be a native operation on megabytes. It
/// looks at its stack limit at every call of a function, so a limit that nothing keeps within ends a loop of such operations
/// after the one that is under way. Nothing here ends that one.
#[derive(Clone, Debug, Default)]
pub struct Stopper {
    stop: Arc<AtomicBool>,
    runtime: Arc<Mutex<Option<RuntimePointer>>>,
}

#[derive(Debug)]
struct RuntimePointer(NonNull<qjs::JSRuntime>);

// SAFETY: the pointer is used by `Stopper::stop` alone, which says why that may be on another thread.
unsafe impl Send for RuntimePointer {}

impl Stopper {
    /// The turn under way ends with [`Limit::WallClock`](crate::limits::Limit::WallClock) as soon as QuickJS looks, and every later one at once.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(RuntimePointer(rt)) = &*runtime {
            // SAFETY: the runtime lives while the lock is held (G). The function writes two aligned machine words, `stack_size` and
            // `stack_limit`, and reads a third, `stack_top`, which its thread may read and write meanwhile. Each is read by itself,
            // and any mix of old and new values is a limit that QuickJS keeps within: the old one, or one above every stack pointer
            // of the turn. When the write is not seen, the poll sees the flag.
            unsafe { qjs::JS_SetMaxStackSize(rt.as_ptr(), 1) };
        }
    }

    fn is_set(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn attach(&self, rt: Option<*mut qjs::JSRuntime>) {
        let rt = rt.and_then(NonNull::new).map(RuntimePointer);
        *self.runtime.lock().unwrap_or_else(PoisonError::into_inner) = rt;
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // Invariant G, then F. No `Value` is alive, for each borrows `self`.
        self.shared().stopper.attach(None);
        self.shared().heap.free_all();
        // SAFETY: the pointer of `Box::leak`, used for the last time.
        drop(unsafe { Box::from_raw(self.shared.as_ptr()) });
    }
}

unsafe extern "C" fn js_interrupt(_rt: *mut qjs::JSRuntime, opaque: *mut c_void) -> c_int {
    // SAFETY: the opaque given at registration (A).
    let shared = unsafe { shared_of(opaque) };
    let ends = shared.tick();
    if ends {
        shared.grant();
    }
    c_int::from(ends)
}

/// What the error that ends execution may take, beyond what the heap holds, and how often it is granted.
const GRANT_BYTES: usize = 32 << 10;
const MAX_GRANTS: u32 = 256;

impl Shared {
    /// Lets QuickJS build the uncatchable error that follows a poll: without room for it, it throws a catchable `null`, and a loop
    /// around a `try` would never end. Bounded, so that what swallows the error gains no memory by it.
    fn grant(&self) {
        let grants = self.grants.get();
        if grants < MAX_GRANTS {
            self.grants.set(grants + 1);
            self.heap.limit.set(self.heap.used.get() + GRANT_BYTES);
        }
    }

    /// Counts one tick; whether execution has to end.
    fn tick(&self) -> bool {
        if self.trip.get().is_some() {
            return true;
        }
        let ticks = self.ticks.get() + 1;
        self.ticks.set(ticks);
        if self.stopper.is_set() {
            self.set_trip(Trip::Interrupted);
        } else if ticks > self.tick_limit.get() {
            self.set_trip(Trip::Ticks);
        }
        self.trip.get().is_some()
    }
}
