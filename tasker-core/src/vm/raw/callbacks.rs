//! What QuickJS calls: bridge functions, rejections that nobody handles, modules. Nothing unwinds out of here. Its invariants are those
//! of [`super`].
#![expect(
    unsafe_code,
    reason = "QuickJS is C; here it is called, with the argument at each block"
)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};

use rquickjs::qjs;

use super::{Ctx, ModuleError, ModuleSource, Shared, Thrown, Value};

/// Arguments of a bridge call.
pub(in crate::vm) struct Args<'r> {
    ctx: Ctx<'r>,
    argv: *const qjs::JSValue,
    len: usize,
    /// The two values bound to a tool function.
    bound: *const qjs::JSValue,
}

impl<'r> Args<'r> {
    pub(in crate::vm) const fn len(&self) -> usize {
        self.len
    }

    /// Argument `n`; `undefined` when it was not given.
    pub(in crate::vm) fn at(&self, n: usize) -> Value<'r> {
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
    pub(in crate::vm) fn bound(&self, n: usize) -> Value<'r> {
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

pub(super) unsafe extern "C" fn js_bridge(
    ctx: *mut qjs::JSContext,
    _this: qjs::JSValue,
    argc: c_int,
    argv: *mut qjs::JSValue,
    op: c_int,
) -> qjs::JSValue {
    // SAFETY: QuickJS's own call.
    unsafe { bridge(ctx, argc, argv, op, ptr::null()) }
}

pub(super) unsafe extern "C" fn js_bound(
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

pub(super) unsafe extern "C" fn js_rejection(
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

pub(super) unsafe extern "C" fn js_normalize(
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

pub(super) unsafe extern "C" fn js_load(
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

pub(super) unsafe extern "C" fn js_init_exports(
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
