// What the prelude needs of the language, taken before any task code can replace it.
const global = globalThis;
const { apply, construct, defineProperty, getPrototypeOf, setPrototypeOf, ownKeys, getOwnPropertyDescriptor } = Reflect;
const { create, freeze, keys: objectKeys } = Object;
const ObjectPrototype = Object.prototype, FunctionPrototype = Function.prototype;
const RealError = Error, RealTypeError = TypeError, RealRangeError = RangeError, RealSyntaxError = SyntaxError;
const RealReferenceError = ReferenceError, RealEvalError = EvalError, RealURIError = URIError;
const RealMap = Map, RealSet = Set, RealArray = Array, RealPromise = Promise, RealProxy = Proxy, RealString = String, RealNumber = Number;
const RealArrayBuffer = ArrayBuffer, RealUint8Array = Uint8Array, RealDate = Date, RealRegExp = RegExp;
const { bind, call } = FunctionPrototype, { toPrimitive } = Symbol;
const uncurry = (method) => apply(bind, call, [method]);
const mapGet = uncurry(Map.prototype.get), mapSet = uncurry(Map.prototype.set), mapHas = uncurry(Map.prototype.has), mapDelete = uncurry(Map.prototype.delete);
const mapForEach = uncurry(Map.prototype.forEach), setForEach = uncurry(Set.prototype.forEach), setAdd = uncurry(Set.prototype.add), setHas = uncurry(Set.prototype.has);
const then = uncurry(Promise.prototype.then), promiseFinally = Promise.prototype.finally, promiseReject = Promise.reject;
const charCodeAt = uncurry(String.prototype.charCodeAt), slice = uncurry(String.prototype.slice), indexOf = uncurry(String.prototype.indexOf);
const toLowerCase = uncurry(String.prototype.toLowerCase), trim = uncurry(String.prototype.trim), replace = uncurry(String.prototype.replace);
const { concat } = String.prototype, padStart = uncurry(String.prototype.padStart), regExec = uncurry(RegExp.prototype.exec);
const isArray = Array.isArray;
const asObject = Object;
// Own data properties only: a descriptor from a plain literal would inherit from what the task does to Object.prototype.
const bare = (members) => { setPrototypeOf(members, null); return members; };
const data = (value, enumerable, writable = true, configurable = true) => bare({ value, enumerable, writable, configurable });
const hide = (target, name, value) => { defineProperty(target, name, data(value, false)); return value; };
const show = (target, name, value) => { defineProperty(target, name, data(value, true)); return value; };
const getter = (target, name, get) => defineProperty(target, name, bare({ get, set: undefined, enumerable: false, configurable: true }));
// Appends without asking Array.prototype.
const push = (list, value) => { defineProperty(list, list.length, data(value, true)); };
const publish = (name, value) => hide(global, name, value);
for (const name of ['WeakRef', 'FinalizationRegistry', 'SharedArrayBuffer', 'Atomics', 'performance']) delete global[name];
for (const name of ['prepareStackTrace', 'captureStackTrace']) delete RealError[name];
hide(RealError, 'captureStackTrace', function captureStackTrace(target) {
  defineProperty(target, 'stack', data(host_clean_stack(new RealError().stack), false));
});
// From the frame's recorded seed.
hide(Math, 'random', function random() { return host_random(); });
