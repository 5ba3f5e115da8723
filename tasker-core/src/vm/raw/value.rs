//! Values and property keys, each of which owns a count of what it names. Their invariants are those of [`super`].
#![expect(
    unsafe_code,
    reason = "QuickJS is C; here it is called, with the argument at each block"
)]

use std::ffi::{CStr, c_int};
use std::ptr;

use rquickjs::qjs;

use super::{Ctx, Kind, NO_ATOM, Thrown};

/// A JavaScript value, counted.
pub(in crate::vm) struct Value<'r> {
    pub(super) raw: qjs::JSValue,
    pub(super) ctx: Ctx<'r>,
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
    pub(super) fn into_raw(self) -> qjs::JSValue {
        let raw = self.raw;
        std::mem::forget(self);
        raw
    }

    pub(in crate::vm) fn kind(&self) -> Kind {
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
    pub(in crate::vm) fn class(&self) -> u32 {
        // SAFETY: a live value.
        unsafe { qjs::JS_GetClassID(self.raw) }
    }

    /// An address that tells objects apart while they live; 0 for what is no object.
    pub(in crate::vm) fn identity(&self) -> usize {
        if self.kind() == Kind::Object {
            // SAFETY: objects carry a pointer; it is used as a number only.
            unsafe { qjs::JS_VALUE_GET_PTR(self.raw) as usize }
        } else {
            0
        }
    }

    pub(in crate::vm) fn is_array(&self) -> bool {
        // SAFETY: a live value.
        unsafe { qjs::JS_IsArray(self.raw) }
    }

    pub(in crate::vm) fn is_function(&self) -> bool {
        // SAFETY: a live value.
        unsafe { qjs::JS_IsFunction(self.ctx.raw.as_ptr(), self.raw) }
    }

    pub(in crate::vm) fn is_error(&self) -> bool {
        // SAFETY: a live value.
        unsafe { qjs::JS_IsError(self.raw) }
    }

    pub(in crate::vm) fn is_typed_array(&self) -> bool {
        // SAFETY: a live value.
        unsafe { qjs::JS_GetTypedArrayType(self.raw) >= 0 }
    }

    /// The name of an object's class as QuickJS knows it, whatever the task made of its prototype: `Map`, `Date`, `Uint8Array`.
    pub(in crate::vm) fn brand(&self) -> Option<String> {
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

    pub(in crate::vm) fn is_proxy(&self) -> bool {
        // SAFETY: a live value.
        unsafe { qjs::JS_IsProxy(self.raw) }
    }

    /// The target of a proxy; `undefined` of a revoked one.
    pub(in crate::vm) fn proxy_target(&self) -> Value<'r> {
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
    pub(in crate::vm) fn call(&self, args: &[&Value<'r>]) -> Result<Value<'r>, Thrown> {
        self.call_on(&self.ctx.undefined(), args)
    }

    /// Calls it.
    pub(in crate::vm) fn call_on(
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
    pub(in crate::vm) fn get(&self, name: &CStr) -> Result<Value<'r>, Thrown> {
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
    pub(in crate::vm) fn get_to_json(&self) -> Result<Value<'r>, Thrown> {
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
    pub(in crate::vm) fn get_index(&self, index: u32) -> Result<Value<'r>, Thrown> {
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
    pub(in crate::vm) fn get_key(&self, key: &Key<'r>) -> Result<Value<'r>, Thrown> {
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
    pub(in crate::vm) fn length(&self) -> Result<u64, Thrown> {
        let mut length = 0i64;
        // SAFETY: a live value, room for the answer.
        if unsafe { qjs::JS_GetLength(self.ctx.raw.as_ptr(), self.raw, &raw mut length) } < 0 {
            return Err(Thrown);
        }
        Ok(u64::try_from(length).unwrap_or(0))
    }

    /// Own enumerable string keys, in order.
    pub(in crate::vm) fn keys(&self) -> Result<Vec<Key<'r>>, Thrown> {
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
    pub(in crate::vm) fn define_hidden(&self, name: &CStr, value: Value<'r>) -> Result<(), Thrown> {
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
    pub(in crate::vm) fn define(&self, key: &Key<'r>, value: Value<'r>) -> Result<(), Thrown> {
        self.define_as(key, value, true)
    }

    /// [`Value::define`]: a property that may be written and deleted, and is enumerated or not.
    pub(in crate::vm) fn define_as(
        &self,
        key: &Key<'r>,
        value: Value<'r>,
        enumerable: bool,
    ) -> Result<(), Thrown> {
        self.define_with(key, value, qjs::JS_PROP_WRITABLE | configurable(enumerable))
    }

    /// [`Value::define`]: a property like the name of a function, that may be deleted, not written, and is not enumerated.
    pub(super) fn define_constant(&self, key: &Key<'r>, value: Value<'r>) -> Result<(), Thrown> {
        self.define_with(key, value, configurable(false))
    }

    fn define_with(&self, key: &Key<'r>, value: Value<'r>, flags: u32) -> Result<(), Thrown> {
        self.ctx.assert_same_ctx(key.ctx);
        self.ctx.assert_same(&value);
        // SAFETY: a live value and a live atom of this runtime; the other value's count is given away.
        let done = unsafe {
            qjs::JS_DefinePropertyValue(
                self.ctx.raw.as_ptr(),
                self.raw,
                key.atom,
                value.into_raw(),
                flags as c_int,
            )
        };
        if done < 0 { Err(Thrown) } else { Ok(()) }
    }

    /// Defines a property that calls these, and may be deleted.
    pub(in crate::vm) fn define_accessor(
        &self,
        key: &Key<'r>,
        get: Value<'r>,
        set: Value<'r>,
        enumerable: bool,
    ) -> Result<(), Thrown> {
        self.ctx.assert_same_ctx(key.ctx);
        self.ctx.assert_same(&get);
        self.ctx.assert_same(&set);
        // SAFETY: a live value and a live atom of this runtime; the counts of both functions are given away.
        let done = unsafe {
            qjs::JS_DefinePropertyGetSet(
                self.ctx.raw.as_ptr(),
                self.raw,
                key.atom,
                get.into_raw(),
                set.into_raw(),
                configurable(enumerable) as c_int,
            )
        };
        if done < 0 { Err(Thrown) } else { Ok(()) }
    }

    /// [`Value::define`], by position.
    pub(in crate::vm) fn define_index(&self, index: u32, value: Value<'r>) -> Result<(), Thrown> {
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
    pub(in crate::vm) fn with_text<R>(&self, read: impl FnOnce(&[u8]) -> R) -> Result<R, Thrown> {
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
    pub(in crate::vm) fn text(&self) -> Result<String, Thrown> {
        self.with_text(lossy)
    }

    /// The text of a string, without running code of the task; `None` for anything else.
    pub(in crate::vm) fn as_string(&self) -> Option<String> {
        (self.kind() == Kind::String)
            .then(|| self.text().ok())
            .flatten()
    }

    /// `Number(value)`.
    pub(in crate::vm) fn to_number(&self) -> Result<f64, Thrown> {
        let mut number = 0.0;
        // SAFETY: a live value, room for the answer.
        if unsafe { qjs::JS_ToFloat64(self.ctx.raw.as_ptr(), &raw mut number, self.raw) } < 0 {
            return Err(Thrown);
        }
        Ok(number)
    }

    /// The bytes of an `ArrayBuffer` or of what a typed array shows of one; `None` for anything else or a detached one.
    /// `read` must not run JavaScript: it gets no context.
    pub(in crate::vm) fn with_bytes<R>(&self, read: impl FnOnce(&mut [u8]) -> R) -> Option<R> {
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
pub(in crate::vm) struct Key<'r> {
    pub(super) atom: qjs::JSAtom,
    ctx: Ctx<'r>,
}

impl<'r> Key<'r> {
    /// The key of this name, of which it holds a count.
    pub(in crate::vm) fn new(ctx: Ctx<'r>, name: &str) -> Result<Self, Thrown> {
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
    pub(in crate::vm) fn of_text(ctx: Ctx<'r>, name: &str) -> Result<Self, Thrown> {
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

    /// The key that this value names, as in `object[value]`. On what is no primitive this may run code of the task.
    pub(in crate::vm) fn of(value: &Value<'r>) -> Result<Self, Thrown> {
        let ctx = value.ctx;
        // SAFETY: a live value.
        let atom = unsafe { qjs::JS_ValueToAtom(ctx.raw.as_ptr(), value.raw) };
        if atom == NO_ATOM {
            return Err(Thrown);
        }
        Ok(Self { atom, ctx })
    }

    /// Its text in WTF-8.
    pub(in crate::vm) fn with_text<R>(&self, read: impl FnOnce(&[u8]) -> R) -> Result<R, Thrown> {
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
    pub(in crate::vm) fn name(&self) -> Result<String, Thrown> {
        self.with_text(lossy)
    }
}

/// The flags of a property that may be deleted.
const fn configurable(enumerable: bool) -> u32 {
    if enumerable {
        qjs::JS_PROP_CONFIGURABLE | qjs::JS_PROP_ENUMERABLE
    } else {
        qjs::JS_PROP_CONFIGURABLE
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
