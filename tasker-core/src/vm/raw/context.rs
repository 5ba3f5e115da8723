//! What can be done with a context: values made, code run, functions called. Its invariants are those of [`super`].
#![expect(
    unsafe_code,
    reason = "QuickJS is C; here it is called, with the argument at each block"
)]

use std::ffi::{CString, c_int};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use rquickjs::qjs;

use super::callbacks::{js_bound, js_bridge, js_init_exports};
use super::{Job, Kept, Kind, Shared, Thrown, Trip, Value};

/// The context of a runtime, while it is borrowed.
#[derive(Clone, Copy)]
pub(in crate::vm) struct Ctx<'r> {
    pub(super) raw: NonNull<qjs::JSContext>,
    pub(super) shared: &'r Shared,
}

/// A loaded ES module. Lives as long as the context.
#[derive(Clone, Copy)]
pub(in crate::vm) struct Module(pub(super) NonNull<qjs::JSModuleDef>);

impl<'r> Ctx<'r> {
    /// # Safety
    /// `raw` is a value of this runtime of which the caller gives one count away.
    pub(super) unsafe fn own(self, raw: qjs::JSValue) -> Value<'r> {
        Value { raw, ctx: self }
    }

    /// # Safety
    /// As [`Ctx::own`]; `JS_EXCEPTION` means that an exception is pending.
    pub(super) unsafe fn check(self, raw: qjs::JSValue) -> Result<Value<'r>, Thrown> {
        // SAFETY: reads the tag; then the caller's promise.
        unsafe {
            if qjs::JS_IsException(raw) {
                Err(Thrown)
            } else {
                Ok(self.own(raw))
            }
        }
    }

    pub(super) fn assert_same(self, value: &Value<'_>) {
        assert!(
            ptr::eq(self.shared, value.ctx.shared),
            "a value was given to another runtime than its own"
        );
    }

    pub(in crate::vm) fn undefined(self) -> Value<'r> {
        // SAFETY: not counted.
        unsafe { self.own(qjs::JS_UNDEFINED) }
    }

    pub(in crate::vm) fn bool(self, value: bool) -> Value<'r> {
        // SAFETY: not counted.
        unsafe { self.own(if value { qjs::JS_TRUE } else { qjs::JS_FALSE }) }
    }

    pub(in crate::vm) fn null(self) -> Value<'r> {
        // SAFETY: not counted.
        unsafe { self.own(qjs::JS_NULL) }
    }

    pub(in crate::vm) fn int(self, value: i32) -> Value<'r> {
        // SAFETY: not counted.
        unsafe { self.own(qjs::JS_MKVAL(qjs::JS_TAG_INT, value)) }
    }

    pub(in crate::vm) fn number(self, value: f64) -> Value<'r> {
        // SAFETY: not counted.
        unsafe { self.own(qjs::JS_NewFloat64(value)) }
    }

    pub(in crate::vm) fn string(self, text: &str) -> Result<Value<'r>, Thrown> {
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
    pub(in crate::vm) fn bytes(self, bytes: &[u8]) -> Result<Value<'r>, Thrown> {
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
    pub(in crate::vm) fn parse_json(self, text: &str) -> Result<Value<'r>, Thrown> {
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
    pub(in crate::vm) fn array(self, values: Vec<Value<'r>>) -> Result<Value<'r>, Thrown> {
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
    pub(in crate::vm) fn object(self) -> Result<Value<'r>, Thrown> {
        // SAFETY: a live context.
        unsafe { self.check(qjs::JS_NewObject(self.raw.as_ptr())) }
    }

    /// An empty object of the prototype that this function has.
    pub(super) fn object_like(self, function: &Value<'r>) -> Result<Value<'r>, Thrown> {
        self.assert_same(function);
        // SAFETY: a live function, no proxy, whose prototype is an object or null: what objects are made of.
        unsafe {
            let proto = self.check(qjs::JS_GetPrototype(self.raw.as_ptr(), function.raw))?;
            self.check(qjs::JS_NewObjectProto(self.raw.as_ptr(), proto.raw))
        }
    }

    /// An array of these values, made at once.
    pub(in crate::vm) fn array_of(
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
    pub(in crate::vm) fn promise(self) -> Result<(Value<'r>, Value<'r>, Value<'r>), Thrown> {
        let mut functions = [qjs::JS_UNDEFINED; 2];
        // SAFETY: room for two values, both owned by us on success.
        unsafe {
            let promise = self.check(qjs::JS_NewPromiseCapability(
                self.raw.as_ptr(),
                functions.as_mut_ptr(),
            ))?;
            let (resolve, reject) = (self.own(functions[0]), self.own(functions[1]));
            self.note_settling(&resolve)?;
            Ok((promise, resolve, reject))
        }
    }

    /// Bridge function number `op`.
    pub(in crate::vm) fn function(self, op: i32) -> Result<Value<'r>, Thrown> {
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
    pub(in crate::vm) fn bound_function(
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
    pub(in crate::vm) fn throw_type(self, message: &str) -> Thrown {
        self.throw_named("TypeError", message)
    }

    /// Throws a `TypeError`, `RangeError`, `SyntaxError` or, for any other name, an `Error`.
    pub(in crate::vm) fn throw_named(self, name: &str, message: &str) -> Thrown {
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
    pub(in crate::vm) fn throw(self, value: Value<'r>) -> Thrown {
        self.assert_same(&value);
        // SAFETY: the count is given away.
        unsafe { qjs::JS_Throw(self.raw.as_ptr(), value.into_raw()) };
        Thrown
    }

    /// An error of this prototype, without members, that has no stack yet: QuickJS notes the stack when the error is first thrown into a
    /// function. One that JavaScript makes with `new` has the stack of its making.
    pub(in crate::vm) fn error_without_stack(self, proto: &Value<'r>) -> Result<Value<'r>, Thrown> {
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
    pub(in crate::vm) fn exception(self) -> Value<'r> {
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
    pub(in crate::vm) fn run_job(self) -> Job {
        let mut ctx = ptr::null_mut();
        // SAFETY: `rt` is live (A); the answer's context is our only one.
        match unsafe { qjs::JS_ExecutePendingJob(self.shared.rt.get(), &raw mut ctx) } {
            0 => Job::None,
            n if n > 0 => Job::Ran,
            _ => Job::Threw,
        }
    }

    /// Counts work that the interpreter does not count; whether the runtime has to end.
    pub(in crate::vm) fn tick(self) -> bool {
        self.shared.tick()
    }

    /// Ends the runtime for good: nothing of the task runs on.
    pub(in crate::vm) fn trip(self, limit: crate::limits::Limit) {
        self.shared.set_trip(Trip::Host(limit));
    }

    /// Whether the runtime has ended for good.
    pub(in crate::vm) fn is_tripped(self) -> bool {
        self.shared.trip.get().is_some()
    }

    /// Keeps a value beyond this borrow.
    pub(in crate::vm) fn keep(self, value: Value<'r>) -> Kept {
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
    pub(in crate::vm) fn kept(self, kept: &Kept) -> Value<'r> {
        let raw = self.shared.kept.borrow().get(kept.0 as usize).copied();
        match raw.flatten() {
            // SAFETY: the table owns a count of a value of this runtime; duplicated, we own another (C).
            Some(raw) => unsafe { self.own(qjs::JS_DupValue(self.raw.as_ptr(), raw)) },
            None => self.undefined(),
        }
    }

    /// Takes a kept value out.
    pub(in crate::vm) fn release(self, Kept(slot): Kept) -> Value<'r> {
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
    pub(in crate::vm) fn compile_script(
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
    pub(in crate::vm) fn compile_module(self, source: &str, file: &str) -> Result<Vec<u8>, Thrown> {
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
    pub(in crate::vm) fn run_script(self, code: &Arc<[u8]>) -> Result<Value<'r>, Thrown> {
        // SAFETY: see above; the function's count is given away.
        unsafe {
            let function = self.read(code)?;
            self.check(qjs::JS_EvalFunction(self.raw.as_ptr(), function.into_raw()))
        }
    }

    pub(super) fn read_module(self, code: &[u8]) -> Result<Module, Thrown> {
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

    pub(super) fn exports_module(self, name: &str, exports: Value<'r>) -> Result<Module, Thrown> {
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
    pub(in crate::vm) fn load_module(self, code: &Arc<[u8]>) -> Result<Module, Thrown> {
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
    pub(in crate::vm) fn evaluate_module(self, module: Module) -> Result<Value<'r>, Thrown> {
        let value = self.module_value(module);
        // SAFETY: the count is given away, as JS_EvalFunction takes it.
        unsafe { self.check(qjs::JS_EvalFunction(self.raw.as_ptr(), value.into_raw())) }
    }

    /// The namespace object of a module.
    pub(in crate::vm) fn namespace(self, module: Module) -> Result<Value<'r>, Thrown> {
        // SAFETY: a live module of this context.
        unsafe {
            self.check(qjs::JS_GetModuleNamespace(
                self.raw.as_ptr(),
                module.0.as_ptr(),
            ))
        }
    }
}
