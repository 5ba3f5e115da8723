//! All that speaks C: a safe surface over `rquickjs::qjs`. `heap` is its memory, `template` copies runtimes.
//!
//! What it is: one runtime with one context ([`Runtime`]), values that cannot outlive it ([`Value`]), one static C function
//! through which JavaScript reaches a [`Host`], an allocator that counts, refuses and can give everything back at once.
//! What it is not: it knows nothing of tasks, calls or limits beyond "a [`Trip`] happened".
//!
//! Invariants on which every `unsafe` block below rests:
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
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rquickjs::qjs;

mod arena;
mod heap;
mod keys;
mod template;

use heap::Heap;
#[cfg(feature = "process-wall")]
pub(crate) use heap::when_out_of_memory;
use keys::KnownKeys;
pub(super) use template::{Plan, Template};

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

// ---------------------------------------------------------------------------------------------- memory

/// # Safety
/// `opaque` is the `Shared` that was given to `JS_NewRuntime2` (invariant A).
unsafe fn shared_of<'a>(opaque: *mut c_void) -> &'a Shared {
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
        let is_new = self.heap.refused.get() && self.trip.get().is_none() && self.armed.get();
        if !memory.is_null() || !is_new {
            return memory;
        }
        // The rest of the run is only unwinding, so that nothing can go on or swallow it.
        self.set_trip(Trip::Memory);
        make(&self.heap)
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

    fn set_trip(&self, trip: Trip) {
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

unsafe extern "C" fn js_malloc(opaque: *mut c_void, size: qjs::size_t) -> *mut c_void {
    // SAFETY: QuickJS passes the opaque of JS_NewRuntime2.
    let shared = unsafe { shared_of(opaque) };
    shared.allocate(size as usize, |heap| heap.alloc(size as usize, false))
}

unsafe extern "C" fn js_calloc(
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

unsafe extern "C" fn js_free(opaque: *mut c_void, memory: *mut c_void) {
    // SAFETY: as in `js_malloc`; QuickJS frees what it got from this heap, once.
    unsafe { shared_of(opaque).heap.free(memory) }
}

unsafe extern "C" fn js_realloc(
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

unsafe extern "C" fn js_usable_size(memory: *const c_void) -> qjs::size_t {
    if memory.is_null() {
        return 0;
    }
    // SAFETY: QuickJS asks for blocks of this heap only.
    unsafe { heap::usable_size(memory) as qjs::size_t }
}

// --------------------------------------------------------------------------------------------- runtime

/// What QuickJS answers when it has no memory for an atom.
const NO_ATOM: qjs::JSAtom = qjs::JS_ATOM_NULL as qjs::JSAtom;

struct Shared {
    heap: Heap,
    rt: Cell<*mut qjs::JSRuntime>,
    trip: Cell<Option<Trip>>,
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
}

impl Shared {
    fn new(heap: Heap, host: Rc<dyn Host>, stopper: Stopper) -> Self {
        Self {
            heap,
            rt: Cell::new(ptr::null_mut()),
            trip: Cell::new(None),
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

// --------------------------------------------------------------------------------------------- callbacks

/// Arguments of a bridge call.
pub(super) struct Args<'r> {
    ctx: Ctx<'r>,
    argv: *const qjs::JSValue,
    len: usize,
    /// The two values bound to a tool function.
    bound: *const qjs::JSValue,
}

impl<'r> Args<'r> {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Argument `n`; `undefined` when it was not given.
    pub(super) fn at(&self, n: usize) -> Value<'r> {
        if n < self.len {
            // SAFETY: QuickJS gives `len` live values that stay so during the callback, for which alone `Args` exists; duplicated, we own one count (C).
            unsafe {
                self.ctx
                    .own(qjs::JS_DupValue(self.ctx.raw.as_ptr(), *self.argv.add(n)))
            }
        } else {
            self.ctx.undefined()
        }
    }

    /// Value `n` (0 or 1) bound by [`Ctx::bound_function`].
    pub(super) fn bound(&self, n: usize) -> Value<'r> {
        if self.bound.is_null() || n > 1 {
            return self.ctx.undefined();
        }
        // SAFETY: `js_bound` passes the two values of the function object, live during the call.
        unsafe {
            self.ctx
                .own(qjs::JS_DupValue(self.ctx.raw.as_ptr(), *self.bound.add(n)))
        }
    }
}

/// # Safety
/// `ctx` is live, its opaque is its `Shared` (A).
unsafe fn ctx_of<'r>(ctx: *mut qjs::JSContext) -> Option<Ctx<'r>> {
    let raw = NonNull::new(ctx)?;
    // SAFETY: the caller's promise; contexts made inside (there is no way to make one) would have a null opaque.
    let shared = unsafe { NonNull::new(qjs::JS_GetContextOpaque(ctx).cast::<Shared>())?.as_ref() };
    Some(Ctx { raw, shared })
}

/// # Safety
/// As QuickJS calls a function: `ctx` live, `argc` values at `argv`; `bound` null or two values.
unsafe fn bridge(
    ctx: *mut qjs::JSContext,
    argc: c_int,
    argv: *const qjs::JSValue,
    op: c_int,
    bound: *const qjs::JSValue,
) -> qjs::JSValue {
    // SAFETY: the caller's promise.
    let Some(ctx) = (unsafe { ctx_of(ctx) }) else {
        return qjs::JS_UNDEFINED;
    };
    let args = Args {
        ctx,
        argv,
        len: usize::try_from(argc).unwrap_or(0),
        bound,
    };
    let answer = catch_unwind(AssertUnwindSafe(|| ctx.shared.host.call(ctx, op, &args)));
    match answer {
        Ok(Ok(value)) => value.into_raw(),
        Ok(Err(Thrown)) => qjs::JS_EXCEPTION,
        Err(_) => {
            ctx.throw_type("an internal error of the sandbox; see the host's log");
            qjs::JS_EXCEPTION
        }
    }
}

unsafe extern "C" fn js_bridge(
    ctx: *mut qjs::JSContext,
    _this: qjs::JSValue,
    argc: c_int,
    argv: *mut qjs::JSValue,
    op: c_int,
) -> qjs::JSValue {
    // SAFETY: QuickJS's own call.
    unsafe { bridge(ctx, argc, argv, op, ptr::null()) }
}

unsafe extern "C" fn js_bound(
    ctx: *mut qjs::JSContext,
    _this: qjs::JSValue,
    argc: c_int,
    argv: *mut qjs::JSValue,
    op: c_int,
    data: *mut qjs::JSValue,
) -> qjs::JSValue {
    // SAFETY: QuickJS's own call; `data` has the two values of `bound_function`.
    unsafe { bridge(ctx, argc, argv, op, data) }
}

unsafe extern "C" fn js_rejection(
    ctx: *mut qjs::JSContext,
    promise: qjs::JSValue,
    reason: qjs::JSValue,
    handled: bool,
    _opaque: *mut c_void,
) {
    // SAFETY: QuickJS's own call: both values are live; duplicated, we own a count of each (C).
    unsafe {
        if let Some(ctx) = ctx_of(ctx) {
            let promise = ctx.own(qjs::JS_DupValue(ctx.raw.as_ptr(), promise));
            let reason = ctx.own(qjs::JS_DupValue(ctx.raw.as_ptr(), reason));
            // A panic here would mean a lost log line, nothing else.
            let _ = catch_unwind(AssertUnwindSafe(|| {
                ctx.shared.host.rejection(ctx, &promise, &reason, handled);
            }));
        }
    }
}

/// # Safety
/// `text` is null or a C string that lives during the call.
unsafe fn text_of(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

unsafe extern "C" fn js_normalize(
    ctx: *mut qjs::JSContext,
    base: *const c_char,
    name: *const c_char,
    _opaque: *mut c_void,
) -> *mut c_char {
    // SAFETY: QuickJS's own call: live context, two C strings. The answer is allocated by `js_strndup`, as QuickJS frees it.
    unsafe {
        let Some(ctx) = ctx_of(ctx) else {
            return ptr::null_mut();
        };
        let (base, name) = (text_of(base), text_of(name));
        match catch_unwind(AssertUnwindSafe(|| ctx.shared.host.resolve(&base, &name))) {
            Ok(Ok(path)) => {
                qjs::js_strndup(ctx.raw.as_ptr(), path.as_ptr().cast(), path.len() as _)
            }
            Ok(Err(message)) => {
                ctx.throw_named("Error", &message);
                ptr::null_mut()
            }
            Err(_) => ptr::null_mut(),
        }
    }
}

unsafe extern "C" fn js_load(
    ctx: *mut qjs::JSContext,
    name: *const c_char,
    _opaque: *mut c_void,
) -> *mut qjs::JSModuleDef {
    // SAFETY: QuickJS's own call: live context, a C string.
    unsafe {
        let Some(ctx) = ctx_of(ctx) else {
            return ptr::null_mut();
        };
        let name = text_of(name);
        let source = catch_unwind(AssertUnwindSafe(|| ctx.shared.host.module(ctx, &name)));
        let made = match source {
            Ok(Ok(ModuleSource::Bytecode(code))) => ctx.read_module(&code),
            Ok(Ok(ModuleSource::Exports(exports))) => ctx.exports_module(&name, exports),
            Ok(Err(ModuleError::Missing(message))) => Err(ctx.throw_named("Error", &message)),
            Ok(Err(ModuleError::Thrown)) => Err(Thrown),
            Err(_) => Err(ctx.throw_type("an internal error of the sandbox")),
        };
        made.map_or(ptr::null_mut(), |module| module.0.as_ptr())
    }
}

unsafe extern "C" fn js_init_exports(
    ctx: *mut qjs::JSContext,
    module: *mut qjs::JSModuleDef,
) -> c_int {
    // SAFETY: QuickJS's own call for a module of `exports_module`, whose private value is the exports.
    unsafe {
        let Some(ctx) = ctx_of(ctx) else { return -1 };
        let exports = ctx.own(qjs::JS_GetModulePrivateValue(ctx.raw.as_ptr(), module));
        for name in exports.keys().unwrap_or_default() {
            let (Ok(text), Ok(value)) = (name.name(), exports.get_key(&name)) else {
                return -1;
            };
            if text == "default" {
                continue;
            }
            // An export that was added after linking is not known to the module; it is left out.
            if let Ok(text) = CString::new(text) {
                let _ = qjs::JS_SetModuleExport(
                    ctx.raw.as_ptr(),
                    module,
                    text.as_ptr(),
                    value.into_raw(),
                );
            }
        }
        qjs::JS_SetModuleExport(
            ctx.raw.as_ptr(),
            module,
            c"default".as_ptr(),
            exports.into_raw(),
        )
    }
}

// ----------------------------------------------------------------------------------------------- context

/// The context of a runtime, while it is borrowed.
#[derive(Clone, Copy)]
pub(super) struct Ctx<'r> {
    raw: NonNull<qjs::JSContext>,
    shared: &'r Shared,
}

/// A loaded ES module. Lives as long as the context.
#[derive(Clone, Copy)]
pub(super) struct Module(NonNull<qjs::JSModuleDef>);

impl<'r> Ctx<'r> {
    /// # Safety
    /// `raw` is a value of this runtime of which the caller gives one count away.
    unsafe fn own(self, raw: qjs::JSValue) -> Value<'r> {
        Value { raw, ctx: self }
    }

    /// # Safety
    /// As [`Ctx::own`]; `JS_EXCEPTION` means that an exception is pending.
    unsafe fn check(self, raw: qjs::JSValue) -> Result<Value<'r>, Thrown> {
        // SAFETY: reads the tag; then the caller's promise.
        unsafe {
            if qjs::JS_IsException(raw) {
                Err(Thrown)
            } else {
                Ok(self.own(raw))
            }
        }
    }

    fn assert_same(self, value: &Value<'_>) {
        assert!(
            ptr::eq(self.shared, value.ctx.shared),
            "a value was given to another runtime than its own"
        );
    }

    pub(super) fn undefined(self) -> Value<'r> {
        // SAFETY: not counted.
        unsafe { self.own(qjs::JS_UNDEFINED) }
    }

    pub(super) fn bool(self, value: bool) -> Value<'r> {
        // SAFETY: not counted.
        unsafe { self.own(if value { qjs::JS_TRUE } else { qjs::JS_FALSE }) }
    }

    pub(super) fn null(self) -> Value<'r> {
        // SAFETY: not counted.
        unsafe { self.own(qjs::JS_NULL) }
    }

    pub(super) fn int(self, value: i32) -> Value<'r> {
        // SAFETY: not counted.
        unsafe { self.own(qjs::JS_MKVAL(qjs::JS_TAG_INT, value)) }
    }

    pub(super) fn number(self, value: f64) -> Value<'r> {
        // SAFETY: not counted.
        unsafe { self.own(qjs::JS_NewFloat64(value)) }
    }

    pub(super) fn string(self, text: &str) -> Result<Value<'r>, Thrown> {
        // SAFETY: pointer and length of a live text.
        unsafe {
            self.check(qjs::JS_NewStringLen(
                self.raw.as_ptr(),
                text.as_ptr().cast(),
                text.len() as _,
            ))
        }
    }

    /// A `Uint8Array` with a copy of these bytes.
    pub(super) fn bytes(self, bytes: &[u8]) -> Result<Value<'r>, Thrown> {
        // SAFETY: pointer and length of live memory, which is copied.
        unsafe {
            self.check(qjs::JS_NewUint8ArrayCopy(
                self.raw.as_ptr(),
                bytes.as_ptr(),
                bytes.len() as _,
            ))
        }
    }

    /// The value of a JSON text. Members are defined, never set: setters of the task are not asked.
    pub(super) fn parse_json(self, text: &str) -> Result<Value<'r>, Thrown> {
        let mut scratch = self.shared.scratch.take();
        scratch.clear();
        scratch.extend_from_slice(text.as_bytes());
        scratch.push(0);
        // SAFETY: the text is followed by NUL, as JS_ParseJSON wants; the buffer is live and not shared (it was taken out).
        let value = unsafe {
            self.check(qjs::JS_ParseJSON(
                self.raw.as_ptr(),
                scratch.as_ptr().cast(),
                text.len() as _,
                c"<json>".as_ptr(),
            ))
        };
        if scratch.capacity() <= 1 << 20 {
            self.shared.scratch.replace(scratch);
        }
        value
    }

    /// An array of these values.
    pub(super) fn array(self, values: Vec<Value<'r>>) -> Result<Value<'r>, Thrown> {
        // SAFETY: a new array takes no setter of the task; each value's count is given away.
        unsafe {
            let array = self.check(qjs::JS_NewArray(self.raw.as_ptr()))?;
            for (index, value) in values.into_iter().enumerate() {
                self.assert_same(&value);
                if qjs::JS_DefinePropertyValueUint32(
                    self.raw.as_ptr(),
                    array.raw,
                    index as u32,
                    value.into_raw(),
                    qjs::JS_PROP_C_W_E as c_int,
                ) < 0
                {
                    return Err(Thrown);
                }
            }
            Ok(array)
        }
    }

    /// An empty object.
    pub(super) fn object(self) -> Result<Value<'r>, Thrown> {
        // SAFETY: a live context.
        unsafe { self.check(qjs::JS_NewObject(self.raw.as_ptr())) }
    }

    /// An array of these values, made at once.
    pub(super) fn array_of(
        self,
        values: impl ExactSizeIterator<Item = Value<'r>>,
    ) -> Result<Value<'r>, Thrown> {
        const FEW: usize = 8;
        let make = |raw: &[qjs::JSValue]| {
            // SAFETY: live values, each of whose counts is given away, also when memory is refused.
            unsafe {
                self.check(qjs::JS_NewArrayFrom(
                    self.raw.as_ptr(),
                    raw.len() as c_int,
                    raw.as_ptr(),
                ))
            }
        };
        let raw_of = |value: Value<'r>| {
            self.assert_same(&value);
            value.into_raw()
        };
        let count = values.len();
        if count > FEW {
            return make(&values.map(raw_of).collect::<Vec<_>>());
        }
        let mut raw = [qjs::JS_UNDEFINED; FEW];
        let mut len = 0;
        for (slot, value) in raw.iter_mut().zip(values) {
            *slot = raw_of(value);
            len += 1;
        }
        make(&raw[..len])
    }

    /// A native promise with the functions that settle it.
    pub(super) fn promise(self) -> Result<(Value<'r>, Value<'r>, Value<'r>), Thrown> {
        let mut functions = [qjs::JS_UNDEFINED; 2];
        // SAFETY: room for two values, both owned by us on success.
        unsafe {
            let promise = self.check(qjs::JS_NewPromiseCapability(
                self.raw.as_ptr(),
                functions.as_mut_ptr(),
            ))?;
            Ok((promise, self.own(functions[0]), self.own(functions[1])))
        }
    }

    /// Bridge function number `op`.
    pub(super) fn function(self, op: i32) -> Result<Value<'r>, Thrown> {
        let function = qjs::JSCFunctionType {
            generic_magic: Some(js_bridge),
        };
        // SAFETY: a `generic_magic` function is what the union's field says; reading it back as `generic` is how the C API passes it.
        unsafe {
            self.check(qjs::JS_NewCFunction2(
                self.raw.as_ptr(),
                function.generic,
                c"".as_ptr(),
                0,
                qjs::JSCFunctionEnum_JS_CFUNC_generic_magic,
                op,
            ))
        }
    }

    /// Bridge function number `op` with two values bound to it.
    pub(super) fn bound_function(
        self,
        op: i32,
        first: &Value<'r>,
        second: &Value<'r>,
    ) -> Result<Value<'r>, Thrown> {
        self.assert_same(first);
        self.assert_same(second);
        let mut data = [first.raw, second.raw];
        // SAFETY: the two values are duplicated by QuickJS.
        unsafe {
            self.check(qjs::JS_NewCFunctionData2(
                self.raw.as_ptr(),
                Some(js_bound),
                c"".as_ptr(),
                0,
                op,
                2,
                data.as_mut_ptr(),
            ))
        }
    }

    /// Throws an error of the realm's own class.
    pub(super) fn throw_type(self, message: &str) -> Thrown {
        self.throw_named("TypeError", message)
    }

    /// Throws a `TypeError`, `RangeError`, `SyntaxError` or, for any other name, an `Error`.
    pub(super) fn throw_named(self, name: &str, message: &str) -> Thrown {
        let text = CString::new(message.replace('\0', "\u{fffd}")).unwrap_or_default();
        let ctx = self.raw.as_ptr();
        // SAFETY: "%s" takes one C string; the functions format at most 256 bytes and copy them. The answer is JS_EXCEPTION.
        unsafe {
            match name {
                "TypeError" => qjs::JS_ThrowTypeError(ctx, c"%s".as_ptr(), text.as_ptr()),
                "RangeError" => qjs::JS_ThrowRangeError(ctx, c"%s".as_ptr(), text.as_ptr()),
                "SyntaxError" => qjs::JS_ThrowSyntaxError(ctx, c"%s".as_ptr(), text.as_ptr()),
                _ => qjs::JS_ThrowPlainError(ctx, c"%s".as_ptr(), text.as_ptr()),
            }
        };
        Thrown
    }

    /// Throws this value.
    pub(super) fn throw(self, value: Value<'r>) -> Thrown {
        self.assert_same(&value);
        // SAFETY: the count is given away.
        unsafe { qjs::JS_Throw(self.raw.as_ptr(), value.into_raw()) };
        Thrown
    }

    /// An error of this prototype, without members, that has no stack yet: QuickJS notes the stack when the error is first thrown into a
    /// function. One that JavaScript makes with `new` has the stack of its making.
    pub(super) fn error_without_stack(self, proto: &Value<'r>) -> Result<Value<'r>, Thrown> {
        self.assert_same(proto);
        if proto.kind() != Kind::Object {
            return Err(self.throw_type("the prototype of an error is an object"));
        }
        // SAFETY: a live object as prototype. The class is that of an error made just now: QuickJS makes its own errors in this way.
        unsafe {
            let like = self.check(qjs::JS_NewError(self.raw.as_ptr()))?;
            let class = qjs::JS_GetClassID(like.raw);
            self.check(qjs::JS_NewObjectProtoClass(
                self.raw.as_ptr(),
                proto.raw,
                class,
            ))
        }
    }

    /// Takes the pending exception; `undefined` when there is none.
    pub(super) fn exception(self) -> Value<'r> {
        // SAFETY: gives us the count of the exception.
        unsafe {
            if qjs::JS_HasException(self.raw.as_ptr()) {
                self.own(qjs::JS_GetException(self.raw.as_ptr()))
            } else {
                self.undefined()
            }
        }
    }

    /// Runs the oldest job of the queue.
    pub(super) fn run_job(self) -> Job {
        let mut ctx = ptr::null_mut();
        // SAFETY: `rt` is live (A); the answer's context is our only one.
        match unsafe { qjs::JS_ExecutePendingJob(self.shared.rt.get(), &raw mut ctx) } {
            0 => Job::None,
            n if n > 0 => Job::Ran,
            _ => Job::Threw,
        }
    }

    /// Counts work that the interpreter does not count; whether the runtime has to end.
    pub(super) fn tick(self) -> bool {
        self.shared.tick()
    }

    /// Ends the runtime for good: nothing of the task runs on.
    pub(super) fn trip(self, limit: crate::limits::Limit) {
        self.shared.set_trip(Trip::Host(limit));
    }

    /// Whether the runtime has ended for good.
    pub(super) fn is_tripped(self) -> bool {
        self.shared.trip.get().is_some()
    }

    /// Keeps a value beyond this borrow.
    pub(super) fn keep(self, value: Value<'r>) -> Kept {
        self.assert_same(&value);
        let raw = value.into_raw();
        let mut kept = self.shared.kept.borrow_mut();
        if let Some(slot) = self.shared.free_slots.borrow_mut().pop() {
            kept[slot as usize] = Some(raw);
            Kept(slot)
        } else {
            kept.push(Some(raw));
            Kept(kept.len() as u32 - 1)
        }
    }

    /// A kept value; `undefined` for a place of another runtime.
    pub(super) fn kept(self, kept: &Kept) -> Value<'r> {
        let raw = self.shared.kept.borrow().get(kept.0 as usize).copied();
        match raw.flatten() {
            // SAFETY: the table owns a count of a value of this runtime; duplicated, we own another (C).
            Some(raw) => unsafe { self.own(qjs::JS_DupValue(self.raw.as_ptr(), raw)) },
            None => self.undefined(),
        }
    }

    /// Takes a kept value out.
    pub(super) fn release(self, Kept(slot): Kept) -> Value<'r> {
        let raw = self
            .shared
            .kept
            .borrow_mut()
            .get_mut(slot as usize)
            .and_then(Option::take);
        match raw {
            Some(raw) => {
                self.shared.free_slots.borrow_mut().push(slot);
                // SAFETY: the table's count becomes ours.
                unsafe { self.own(raw) }
            }
            None => self.undefined(),
        }
    }

    fn eval(self, source: &str, file: &str, line: i32, flags: u32) -> Result<Value<'r>, Thrown> {
        let mut text = Vec::with_capacity(source.len() + 1);
        text.extend_from_slice(source.as_bytes());
        text.push(0);
        let file = CString::new(file.replace('\0', "\u{fffd}")).unwrap_or_default();
        let mut options = qjs::JSEvalOptions {
            version: qjs::JS_EVAL_OPTIONS_VERSION as c_int,
            eval_flags: flags as c_int,
            filename: file.as_ptr(),
            line_num: line,
        };
        // SAFETY: the source is followed by NUL; all pointers live during the call.
        unsafe {
            self.check(qjs::JS_Eval2(
                self.raw.as_ptr(),
                text.as_ptr().cast(),
                source.len() as _,
                &raw mut options,
            ))
        }
    }

    /// Compiles a script to bytecode; its first line is number `line`.
    pub(super) fn compile_script(
        self,
        source: &str,
        file: &str,
        line: i32,
    ) -> Result<Vec<u8>, Thrown> {
        let flags = qjs::JS_EVAL_TYPE_GLOBAL | qjs::JS_EVAL_FLAG_COMPILE_ONLY;
        let function = self.eval(source, file, line, flags)?;
        self.write(&function)
    }

    /// Compiles an ES module to bytecode, without asking for its imports.
    pub(super) fn compile_module(self, source: &str, file: &str) -> Result<Vec<u8>, Thrown> {
        let flags = qjs::JS_EVAL_TYPE_MODULE | qjs::JS_EVAL_FLAG_COMPILE_ONLY;
        let module = self.eval(source, file, 1, flags)?;
        self.write(&module)
    }

    fn write(self, value: &Value<'r>) -> Result<Vec<u8>, Thrown> {
        let mut size: qjs::size_t = 0;
        let flags = qjs::JS_WRITE_OBJ_BYTECODE | qjs::JS_WRITE_OBJ_STRIP_SOURCE;
        // SAFETY: on success `size` bytes at the pointer are ours to free by `js_free`; they are copied first.
        unsafe {
            let bytes =
                qjs::JS_WriteObject(self.raw.as_ptr(), &raw mut size, value.raw, flags as c_int);
            if bytes.is_null() {
                return Err(Thrown);
            }
            let copy = std::slice::from_raw_parts(bytes, size as usize).to_vec();
            qjs::js_free(self.raw.as_ptr(), bytes.cast());
            Ok(copy)
        }
    }

    /// # Safety
    /// `code` is what [`Ctx::write`] made in this process: QuickJS trusts bytecode.
    unsafe fn read(self, code: &[u8]) -> Result<Value<'r>, Thrown> {
        // SAFETY: pointer and length of live memory, and the caller's promise.
        unsafe {
            self.check(qjs::JS_ReadObject(
                self.raw.as_ptr(),
                code.as_ptr(),
                code.len() as _,
                qjs::JS_READ_OBJ_BYTECODE as c_int,
            ))
        }
    }

    /// Runs the bytecode of a script and gives its completion value. The bytecode is of [`Ctx::compile_script`]:
    /// it comes from the cache, which is filled from there only and never leaves the process.
    pub(super) fn run_script(self, code: &Arc<[u8]>) -> Result<Value<'r>, Thrown> {
        // SAFETY: see above; the function's count is given away.
        unsafe {
            let function = self.read(code)?;
            self.check(qjs::JS_EvalFunction(self.raw.as_ptr(), function.into_raw()))
        }
    }

    fn read_module(self, code: &[u8]) -> Result<Module, Thrown> {
        // SAFETY: bytecode of `compile_module`, as in `run_script`. A module is also referenced by its context, which keeps it
        // when our count is dropped, so the pointer stays good as long as the context.
        unsafe {
            let value = self.read(code)?;
            if qjs::JS_VALUE_GET_TAG(value.raw) != qjs::JS_TAG_MODULE {
                return Err(self.throw_type("bytecode of a module was expected"));
            }
            NonNull::new(qjs::JS_VALUE_GET_PTR(value.raw).cast())
                .map(Module)
                .ok_or(Thrown)
        }
    }

    fn exports_module(self, name: &str, exports: Value<'r>) -> Result<Module, Thrown> {
        let ctx = self.raw.as_ptr();
        let c_name = CString::new(name).unwrap_or_default();
        let keys = if exports.kind() == Kind::Object {
            exports.keys()?
        } else {
            Vec::new()
        };
        // SAFETY: a module of C with a static init function; names are copied; the exports' count is given away.
        unsafe {
            let module = NonNull::new(qjs::JS_NewCModule(
                ctx,
                c_name.as_ptr(),
                Some(js_init_exports),
            ))
            .ok_or(Thrown)?;
            for key in keys {
                let key = key.name()?;
                if let Some(key) = CString::new(key)
                    .ok()
                    .filter(|key| key.as_c_str() != c"default")
                    && qjs::JS_AddModuleExport(ctx, module.as_ptr(), key.as_ptr()) < 0
                {
                    return Err(Thrown);
                }
            }
            if qjs::JS_AddModuleExport(ctx, module.as_ptr(), c"default".as_ptr()) < 0 {
                return Err(Thrown);
            }
            qjs::JS_SetModulePrivateValue(ctx, module.as_ptr(), exports.into_raw());
            Ok(Module(module))
        }
    }

    /// Makes a module of bytecode of [`Ctx::compile_module`] and loads what it imports.
    pub(super) fn load_module(self, code: &Arc<[u8]>) -> Result<Module, Thrown> {
        let module = self.read_module(code)?;
        let value = self.module_value(module);
        // SAFETY: a live module of this context.
        if unsafe { qjs::JS_ResolveModule(self.raw.as_ptr(), value.raw) } < 0 {
            return Err(Thrown);
        }
        Ok(module)
    }

    fn module_value(self, module: Module) -> Value<'r> {
        // SAFETY: a live module of this context (modules live as long as it); duplicated, we own a count.
        unsafe {
            let raw = qjs::JS_MKPTR(qjs::JS_TAG_MODULE, module.0.as_ptr().cast());
            self.own(qjs::JS_DupValue(self.raw.as_ptr(), raw))
        }
    }

    /// Evaluates a module (once): the promise of its evaluation.
    pub(super) fn evaluate_module(self, module: Module) -> Result<Value<'r>, Thrown> {
        let value = self.module_value(module);
        // SAFETY: the count is given away, as JS_EvalFunction takes it.
        unsafe { self.check(qjs::JS_EvalFunction(self.raw.as_ptr(), value.into_raw())) }
    }

    /// The namespace object of a module.
    pub(super) fn namespace(self, module: Module) -> Result<Value<'r>, Thrown> {
        // SAFETY: a live module of this context.
        unsafe {
            self.check(qjs::JS_GetModuleNamespace(
                self.raw.as_ptr(),
                module.0.as_ptr(),
            ))
        }
    }
}

// ------------------------------------------------------------------------------------------------- values

/// A JavaScript value, counted.
pub(super) struct Value<'r> {
    raw: qjs::JSValue,
    ctx: Ctx<'r>,
}

impl Drop for Value<'_> {
    fn drop(&mut self) {
        // SAFETY: we own one count (C).
        unsafe { qjs::JS_FreeValue(self.ctx.raw.as_ptr(), self.raw) }
    }
}

impl Clone for Value<'_> {
    fn clone(&self) -> Self {
        // SAFETY: a live value (C).
        unsafe {
            self.ctx
                .own(qjs::JS_DupValue(self.ctx.raw.as_ptr(), self.raw))
        }
    }
}

impl<'r> Value<'r> {
    fn into_raw(self) -> qjs::JSValue {
        let raw = self.raw;
        std::mem::forget(self);
        raw
    }

    pub(super) fn kind(&self) -> Kind {
        // SAFETY: reads tag and payload of a live value; the payload's field is the one that the tag names.
        unsafe {
            let tag = qjs::JS_VALUE_GET_TAG(self.raw);
            match tag {
                qjs::JS_TAG_UNDEFINED => Kind::Undefined,
                qjs::JS_TAG_NULL => Kind::Null,
                qjs::JS_TAG_BOOL => Kind::Bool(qjs::JS_VALUE_GET_INT(self.raw) != 0),
                qjs::JS_TAG_INT => Kind::Int(qjs::JS_VALUE_GET_INT(self.raw)),
                qjs::JS_TAG_STRING | qjs::JS_TAG_STRING_ROPE => Kind::String,
                qjs::JS_TAG_SYMBOL => Kind::Symbol,
                qjs::JS_TAG_BIG_INT | qjs::JS_TAG_SHORT_BIG_INT => Kind::BigInt,
                qjs::JS_TAG_OBJECT => Kind::Object,
                tag if qjs::JS_TAG_IS_FLOAT64(tag) => {
                    Kind::Float(qjs::JS_VALUE_GET_FLOAT64(self.raw))
                }
                _ => Kind::Other,
            }
        }
    }

    /// QuickJS's number of an object's class; 0 for what is no object.
    pub(super) fn class(&self) -> u32 {
        // SAFETY: a live value.
        unsafe { qjs::JS_GetClassID(self.raw) }
    }

    /// An address that tells objects apart while they live; 0 for what is no object.
    pub(super) fn identity(&self) -> usize {
        if self.kind() == Kind::Object {
            // SAFETY: objects carry a pointer; it is used as a number only.
            unsafe { qjs::JS_VALUE_GET_PTR(self.raw) as usize }
        } else {
            0
        }
    }

    pub(super) fn is_array(&self) -> bool {
        // SAFETY: a live value.
        unsafe { qjs::JS_IsArray(self.raw) }
    }

    pub(super) fn is_function(&self) -> bool {
        // SAFETY: a live value.
        unsafe { qjs::JS_IsFunction(self.ctx.raw.as_ptr(), self.raw) }
    }

    pub(super) fn is_error(&self) -> bool {
        // SAFETY: a live value.
        unsafe { qjs::JS_IsError(self.raw) }
    }

    pub(super) fn is_typed_array(&self) -> bool {
        // SAFETY: a live value.
        unsafe { qjs::JS_GetTypedArrayType(self.raw) >= 0 }
    }

    /// The name of an object's class as QuickJS knows it, whatever the task made of its prototype: `Map`, `Date`, `Uint8Array`.
    pub(super) fn brand(&self) -> Option<String> {
        if self.kind() != Kind::Object {
            return None;
        }
        // SAFETY: a live object's class is registered; the atom's count is ours.
        let name = unsafe {
            Key {
                atom: qjs::JS_GetClassName(self.ctx.shared.rt.get(), self.class()),
                ctx: self.ctx,
            }
        };
        name.name().ok()
    }

    pub(super) fn is_proxy(&self) -> bool {
        // SAFETY: a live value.
        unsafe { qjs::JS_IsProxy(self.raw) }
    }

    /// The target of a proxy; `undefined` of a revoked one.
    pub(super) fn proxy_target(&self) -> Value<'r> {
        // SAFETY: a live value; the answer is a new count or a value without one.
        unsafe {
            let target = qjs::JS_GetProxyTarget(self.ctx.raw.as_ptr(), self.raw);
            self.ctx.check(target).unwrap_or_else(|Thrown| {
                drop(self.ctx.exception());
                self.ctx.undefined()
            })
        }
    }

    /// Calls it with `undefined` as `this`.
    pub(super) fn call(&self, args: &[&Value<'r>]) -> Result<Value<'r>, Thrown> {
        self.call_on(&self.ctx.undefined(), args)
    }

    /// Calls it.
    pub(super) fn call_on(
        &self,
        this: &Value<'r>,
        args: &[&Value<'r>],
    ) -> Result<Value<'r>, Thrown> {
        const MAX: usize = 12;
        assert!(
            args.len() <= MAX,
            "the bridge calls functions with few arguments"
        );
        self.ctx.assert_same(this);
        let mut raw = [qjs::JS_UNDEFINED; MAX];
        for (slot, arg) in raw.iter_mut().zip(args) {
            self.ctx.assert_same(arg);
            *slot = arg.raw;
        }
        // SAFETY: values of this runtime that stay alive during the call, which does not take their counts.
        unsafe {
            self.ctx.check(qjs::JS_Call(
                self.ctx.raw.as_ptr(),
                self.raw,
                this.raw,
                args.len() as c_int,
                raw.as_mut_ptr(),
            ))
        }
    }

    /// Property by name. Getters and proxies of the task run.
    pub(super) fn get(&self, name: &CStr) -> Result<Value<'r>, Thrown> {
        // SAFETY: a live value and a C string.
        unsafe {
            self.ctx.check(qjs::JS_GetPropertyStr(
                self.ctx.raw.as_ptr(),
                self.raw,
                name.as_ptr(),
            ))
        }
    }

    /// The property `toJSON`. Getters and proxies of the task run.
    pub(super) fn get_to_json(&self) -> Result<Value<'r>, Thrown> {
        let kept = &self.ctx.shared.to_json;
        if kept.get() == NO_ATOM {
            let mut key = Key::new(self.ctx, "toJSON")?;
            kept.set(std::mem::replace(&mut key.atom, NO_ATOM));
        }
        // SAFETY: a live value, and an atom of this runtime that `Shared` holds a count of.
        unsafe {
            self.ctx.check(qjs::JS_GetProperty(
                self.ctx.raw.as_ptr(),
                self.raw,
                kept.get(),
            ))
        }
    }

    /// Property by position.
    pub(super) fn get_index(&self, index: u32) -> Result<Value<'r>, Thrown> {
        // SAFETY: a live value.
        unsafe {
            self.ctx.check(qjs::JS_GetPropertyUint32(
                self.ctx.raw.as_ptr(),
                self.raw,
                index,
            ))
        }
    }

    /// Property by key.
    pub(super) fn get_key(&self, key: &Key<'r>) -> Result<Value<'r>, Thrown> {
        self.ctx.assert_same_ctx(key.ctx);
        // SAFETY: a live value and a live atom of this runtime.
        unsafe {
            self.ctx.check(qjs::JS_GetProperty(
                self.ctx.raw.as_ptr(),
                self.raw,
                key.atom,
            ))
        }
    }

    /// `length` as JavaScript reads it.
    pub(super) fn length(&self) -> Result<u64, Thrown> {
        let mut length = 0i64;
        // SAFETY: a live value, room for the answer.
        if unsafe { qjs::JS_GetLength(self.ctx.raw.as_ptr(), self.raw, &raw mut length) } < 0 {
            return Err(Thrown);
        }
        Ok(u64::try_from(length).unwrap_or(0))
    }

    /// Own enumerable string keys, in order.
    pub(super) fn keys(&self) -> Result<Vec<Key<'r>>, Thrown> {
        let mut table: *mut qjs::JSPropertyEnum = ptr::null_mut();
        let mut len = 0u32;
        let flags = qjs::JS_GPN_STRING_MASK | qjs::JS_GPN_ENUM_ONLY;
        // SAFETY: on success `len` entries at `table`, each with a count of its atom that becomes ours; the table itself is freed alone.
        unsafe {
            if qjs::JS_GetOwnPropertyNames(
                self.ctx.raw.as_ptr(),
                &raw mut table,
                &raw mut len,
                self.raw,
                flags as c_int,
            ) < 0
            {
                return Err(Thrown);
            }
            let mut keys = Vec::with_capacity(len as usize);
            for index in 0..len as usize {
                keys.push(Key {
                    atom: (*table.add(index)).atom,
                    ctx: self.ctx,
                });
            }
            qjs::js_free(self.ctx.raw.as_ptr(), table.cast());
            Ok(keys)
        }
    }

    /// Defines a property, hidden from enumeration.
    pub(super) fn define_hidden(&self, name: &CStr, value: Value<'r>) -> Result<(), Thrown> {
        self.ctx.assert_same(&value);
        // SAFETY: a live object; the value's count is given away.
        let done = unsafe {
            qjs::JS_DefinePropertyValueStr(
                self.ctx.raw.as_ptr(),
                self.raw,
                name.as_ptr(),
                value.into_raw(),
                (qjs::JS_PROP_CONFIGURABLE | qjs::JS_PROP_WRITABLE) as c_int,
            )
        };
        if done < 0 { Err(Thrown) } else { Ok(()) }
    }

    /// Defines a property as a literal does, whatever it was before.
    pub(super) fn define(&self, key: &Key<'r>, value: Value<'r>) -> Result<(), Thrown> {
        self.ctx.assert_same_ctx(key.ctx);
        self.ctx.assert_same(&value);
        // SAFETY: a live value and a live atom of this runtime; the other value's count is given away.
        let done = unsafe {
            qjs::JS_DefinePropertyValue(
                self.ctx.raw.as_ptr(),
                self.raw,
                key.atom,
                value.into_raw(),
                qjs::JS_PROP_C_W_E as c_int,
            )
        };
        if done < 0 { Err(Thrown) } else { Ok(()) }
    }

    /// [`Value::define`], by position.
    pub(super) fn define_index(&self, index: u32, value: Value<'r>) -> Result<(), Thrown> {
        self.ctx.assert_same(&value);
        // SAFETY: a live value; the other value's count is given away.
        let done = unsafe {
            qjs::JS_DefinePropertyValueUint32(
                self.ctx.raw.as_ptr(),
                self.raw,
                index,
                value.into_raw(),
                qjs::JS_PROP_C_W_E as c_int,
            )
        };
        if done < 0 { Err(Thrown) } else { Ok(()) }
    }

    /// `String(value)` as UTF-8, in which a lone surrogate has the three bytes of its number (WTF-8).
    /// On what is no string this may run code of the task.
    pub(super) fn with_text<R>(&self, read: impl FnOnce(&[u8]) -> R) -> Result<R, Thrown> {
        let mut len: usize = 0;
        // SAFETY: on success `len` bytes that live until JS_FreeCString; a panic in `read` would leak them, nothing more.
        unsafe {
            let text = qjs::JS_ToCStringLen(self.ctx.raw.as_ptr(), &raw mut len, self.raw);
            if text.is_null() {
                return Err(Thrown);
            }
            let answer = read(std::slice::from_raw_parts(text.cast(), len));
            qjs::JS_FreeCString(self.ctx.raw.as_ptr(), text);
            Ok(answer)
        }
    }

    /// `String(value)`; lone surrogates become U+FFFD.
    pub(super) fn text(&self) -> Result<String, Thrown> {
        self.with_text(lossy)
    }

    /// The text of a string, without running code of the task; `None` for anything else.
    pub(super) fn as_string(&self) -> Option<String> {
        (self.kind() == Kind::String)
            .then(|| self.text().ok())
            .flatten()
    }

    /// `Number(value)`.
    pub(super) fn to_number(&self) -> Result<f64, Thrown> {
        let mut number = 0.0;
        // SAFETY: a live value, room for the answer.
        if unsafe { qjs::JS_ToFloat64(self.ctx.raw.as_ptr(), &raw mut number, self.raw) } < 0 {
            return Err(Thrown);
        }
        Ok(number)
    }

    /// The bytes of an `ArrayBuffer` or of what a typed array shows of one; `None` for anything else or a detached one.
    /// `read` must not run JavaScript: it gets no context.
    pub(super) fn with_bytes<R>(&self, read: impl FnOnce(&mut [u8]) -> R) -> Option<R> {
        let ctx = self.ctx.raw.as_ptr();
        let (mut offset, mut length, mut width): (qjs::size_t, qjs::size_t, qjs::size_t) =
            (0, 0, 0);
        // SAFETY: pointer and size are of the buffer as it is now; no JavaScript runs before `read` is done, and offset and length are
        // checked against that size. The buffer is alive while `owner` is.
        unsafe {
            let owner = if qjs::JS_IsArrayBuffer(self.raw) {
                self.clone()
            } else if qjs::JS_GetTypedArrayType(self.raw) >= 0 {
                let buffer = qjs::JS_GetTypedArrayBuffer(
                    ctx,
                    self.raw,
                    &raw mut offset,
                    &raw mut length,
                    &raw mut width,
                );
                self.ctx.check(buffer).ok()?
            } else {
                return None;
            };
            let mut size: qjs::size_t = 0;
            let start = qjs::JS_GetArrayBuffer(ctx, &raw mut size, owner.raw);
            if qjs::JS_IsArrayBuffer(self.raw) {
                length = size;
            }
            if start.is_null() {
                drop(self.ctx.exception());
                return (size == 0 && length == 0).then(|| read(&mut []));
            }
            let end = (offset as usize).checked_add(length as usize)?;
            if end > size as usize {
                return None;
            }
            Some(read(std::slice::from_raw_parts_mut(
                start.add(offset as usize),
                length as usize,
            )))
        }
    }
}

impl Ctx<'_> {
    fn assert_same_ctx(self, other: Ctx<'_>) {
        assert!(
            ptr::eq(self.shared, other.shared),
            "a key was given to another runtime than its own"
        );
    }
}

/// A property key.
pub(super) struct Key<'r> {
    atom: qjs::JSAtom,
    ctx: Ctx<'r>,
}

impl<'r> Key<'r> {
    /// The key of this name, of which it holds a count.
    pub(super) fn new(ctx: Ctx<'r>, name: &str) -> Result<Self, Thrown> {
        let raw = ctx.raw.as_ptr();
        let atom = if name.is_ascii() {
            // SAFETY: pointer and length of a live text.
            unsafe { qjs::JS_NewAtomLen(raw, name.as_ptr().cast(), name.len() as _) }
        } else {
            // JS_NewAtomLen compares bytes, and takes `é` for a key of the two characters that its bytes are in Latin-1.
            let name = ctx.string(name)?;
            // SAFETY: a live string: nothing of the task runs.
            unsafe { qjs::JS_ValueToAtom(raw, name.raw) }
        };
        if atom == NO_ATOM {
            return Err(Thrown);
        }
        Ok(Self { atom, ctx })
    }

    /// [`Key::new`], for texts that mostly come again in the same order: the key that followed the last one the time before costs next
    /// to nothing. Nothing of the task runs.
    pub(super) fn of_text(ctx: Ctx<'r>, name: &str) -> Result<Self, Thrown> {
        let known = ctx.shared.known_keys.borrow_mut().expected(name);
        if let Some(atom) = known {
            // SAFETY: an atom of which `known_keys` holds a count; duplicated, we own another.
            let atom = unsafe { qjs::JS_DupAtom(ctx.raw.as_ptr(), atom) };
            return Ok(Self { atom, ctx });
        }
        let key = Self::new(ctx, name)?;
        // SAFETY: a count that `known_keys` held.
        let forget = |atom| unsafe { qjs::JS_FreeAtom(ctx.raw.as_ptr(), atom) };
        let mut known = ctx.shared.known_keys.borrow_mut();
        if known.learn(name, key.atom, forget) {
            // SAFETY: a live atom; `known_keys` holds this count.
            unsafe { qjs::JS_DupAtom(ctx.raw.as_ptr(), key.atom) };
        }
        Ok(key)
    }

    /// Its text in WTF-8.
    pub(super) fn with_text<R>(&self, read: impl FnOnce(&[u8]) -> R) -> Result<R, Thrown> {
        let mut len: qjs::size_t = 0;
        // SAFETY: as in `Value::with_text`.
        unsafe {
            let text = qjs::JS_AtomToCStringLen(self.ctx.raw.as_ptr(), &raw mut len, self.atom);
            if text.is_null() {
                return Err(Thrown);
            }
            let answer = read(std::slice::from_raw_parts(text.cast(), len as usize));
            qjs::JS_FreeCString(self.ctx.raw.as_ptr(), text);
            Ok(answer)
        }
    }

    /// Its text.
    pub(super) fn name(&self) -> Result<String, Thrown> {
        self.with_text(lossy)
    }
}

impl Drop for Key<'_> {
    fn drop(&mut self) {
        // SAFETY: we own one count of the atom.
        unsafe { qjs::JS_FreeAtom(self.ctx.raw.as_ptr(), self.atom) }
    }
}

/// WTF-8 to UTF-8: each lone surrogate becomes one U+FFFD.
fn lossy(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        let error = match std::str::from_utf8(rest) {
            Ok(good) => {
                text.push_str(good);
                return text;
            }
            Err(error) => error,
        };
        let (good, bad) = rest.split_at(error.valid_up_to());
        text.push_str(&String::from_utf8_lossy(good));
        text.push('\u{fffd}');
        // A surrogate has three bytes: ED A0..BF xx.
        let skip = if bad.first() == Some(&0xed) { 3 } else { 1 };
        rest = &bad[skip.min(bad.len())..];
    }
}
