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
const has = uncurry(ObjectPrototype.hasOwnProperty);
const { concat } = String.prototype, padStart = uncurry(String.prototype.padStart), regExec = uncurry(RegExp.prototype.exec);
const isArray = Array.isArray;
const asObject = Object;
// Properties of an object's own that may be written and deleted. Not by descriptors: a plain literal inherits from what the task does
// to Object.prototype, and QuickJS asks a descriptor for six names.
const hide = host_hide, show = host_show;
const bare = (members) => { setPrototypeOf(members, null); return members; };
// Appends without asking Array.prototype.
const push = (list, value) => { show(list, list.length, value); };
const publish = (name, value) => hide(global, name, value);
for (const name of ['WeakRef', 'FinalizationRegistry', 'SharedArrayBuffer', 'Atomics', 'performance']) delete global[name];
for (const name of ['prepareStackTrace', 'captureStackTrace']) delete RealError[name];
hide(RealError, 'captureStackTrace', function captureStackTrace(target) {
  hide(target, 'stack', host_clean_stack(new RealError().stack));
});
// From the frame's recorded seed.
hide(Math, 'random', function random() { return host_random(); });
