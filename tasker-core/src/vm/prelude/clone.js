// structuredClone.
{
  const getTime = uncurry(RealDate.prototype.getTime), regSource = getOwnPropertyDescriptor(RealRegExp.prototype, 'source').get, regFlags = getOwnPropertyDescriptor(RealRegExp.prototype, 'flags').get;
  const bufferSlice = uncurry(ArrayBuffer.prototype.slice), bufferTransfer = uncurry(ArrayBuffer.prototype.transfer);
  const byteLengthOf = uncurry(getOwnPropertyDescriptor(ArrayBuffer.prototype, 'byteLength').get);
  const RealDataView = DataView;
  const TypedArray = getPrototypeOf(Uint8Array);
  const typedBuffer = uncurry(getOwnPropertyDescriptor(TypedArray.prototype, 'buffer').get);
  const typedOffset = uncurry(getOwnPropertyDescriptor(TypedArray.prototype, 'byteOffset').get);
  const typedLength = uncurry(getOwnPropertyDescriptor(TypedArray.prototype, 'length').get);
  const viewBuffer = uncurry(getOwnPropertyDescriptor(DataView.prototype, 'buffer').get);
  const viewOffset = uncurry(getOwnPropertyDescriptor(DataView.prototype, 'byteOffset').get);
  const viewLength = uncurry(getOwnPropertyDescriptor(DataView.prototype, 'byteLength').get);
  const constructors = bare({});
  for (const Class of [Uint8Array, Uint8ClampedArray, Int8Array, Uint16Array, Int16Array, Uint32Array, Int32Array, Float32Array, Float64Array, BigInt64Array, BigUint64Array]) constructors[Class.name] = Class;
  if (typeof Float16Array === 'function') constructors.Float16Array = Float16Array;
  const unclonable = new RealSet(['Promise', 'WeakMap', 'WeakSet', 'Generator', 'AsyncGenerator', 'Module', 'Proxy', 'Symbol', 'Iterator', 'DisposableStack', 'AsyncDisposableStack',
    'Map Iterator', 'Set Iterator', 'Array Iterator', 'String Iterator', 'Iterator Helper', 'Iterator Wrap', 'RegExp String Iterator']);
  const boxes = new RealSet(['Number', 'String', 'Boolean', 'BigInt']);
  const valueOf = bare({ Number: uncurry(Number.prototype.valueOf), String: uncurry(String.prototype.valueOf), Boolean: uncurry(Boolean.prototype.valueOf), BigInt: uncurry(BigInt.prototype.valueOf) });
  const refuse = (what) => domException(`${what} could not be cloned`, 'DataCloneError');
  const cloneMembers = (from, to, memory) => {
    const names = ownKeys(from);
    for (let i = 0; i < names.length; i++) {
      const name = names[i];
      if (typeof name !== 'string' || !getOwnPropertyDescriptor(from, name)?.enumerable) continue;
      show(to, name, clone(from[name], memory));
    }
    return to;
  };
  const clone = (value, memory) => {
    switch (typeof value) {
      case 'symbol': throw refuse('a symbol');
      case 'function': throw refuse('a function');
      case 'object': if (value === null) return null; break;
      default: return value;
    }
    const known = mapGet(memory, value);
    if (known !== undefined) return known;
    const keep = (copy) => { mapSet(memory, value, copy); return copy; };
    const brand = host_brand(value);
    if (setHas(boxes, brand)) return keep(asObject(valueOf[brand](value)));
    if (constructors[brand] !== undefined) {
      const buffer = clone(typedBuffer(value), memory);
      return keep(new constructors[brand](buffer, typedOffset(value), typedLength(value)));
    }
    switch (brand) {
      case 'Array': { const copy = keep([]); copy.length = value.length; return cloneMembers(value, copy, memory); }
      case 'Date': return keep(new RealDate(getTime(value))); // There is one, so the task has touched Date, and the real one's prototype is safe.
      case 'RegExp': return keep(new RealRegExp(apply(regSource, value, []), apply(regFlags, value, [])));
      case 'ArrayBuffer': return keep(bufferSlice(value, 0, byteLengthOf(value)));
      case 'DataView': return keep(new RealDataView(clone(viewBuffer(value), memory), viewOffset(value), viewLength(value)));
      case 'Map': {
        const copy = keep(new RealMap()), entries = [];
        mapForEach(value, (item, key) => { push(entries, key); push(entries, item); });
        for (let i = 0; i < entries.length; i += 2) mapSet(copy, clone(entries[i], memory), clone(entries[i + 1], memory));
        return copy;
      }
      case 'Set': {
        const copy = keep(new RealSet()), items = [];
        setForEach(value, (item) => { push(items, item); });
        for (let i = 0; i < items.length; i++) setAdd(copy, clone(items[i], memory));
        return copy;
      }
      case 'Error': {
        const Class = errorClasses[`${value.name}`] ?? RealError;
        const copy = keep(new Class());
        const message = getOwnPropertyDescriptor(value, 'message');
        if (message !== undefined) hide(copy, 'message', `${message.value}`);
        hide(copy, 'stack', typeof value.stack === 'string' ? value.stack : '');
        if (getOwnPropertyDescriptor(value, 'cause') !== undefined) hide(copy, 'cause', clone(value.cause, memory));
        return copy;
      }
      case 'DOMException': { const copy = keep(new RealDOMException(`${value.message}`, `${value.name}`)); hide(copy, 'stack', typeof value.stack === 'string' ? value.stack : ''); return copy; }
      default:
        if (setHas(unclonable, brand)) throw refuse(`a ${brand}`);
        return cloneMembers(value, keep({}), memory);
    }
  };
  publish('structuredClone', function structuredClone(value, options = undefined) {
    if (arguments.length === 0) throw new RealTypeError('structuredClone(value) takes a value');
    const memory = new RealMap();
    const transfer = options?.transfer;
    if (transfer !== undefined) {
      for (const item of transfer) {
        if (host_brand(item) !== 'ArrayBuffer') throw refuse('a value of transfer that is no ArrayBuffer');
        mapSet(memory, item, bufferTransfer(item));
      }
    }
    return clone(value, memory);
  });
}
