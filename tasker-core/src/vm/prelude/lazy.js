// The web globals that few tasks touch: made by a second script when the first of them is.
let web;
const webGlobals = () => web ??= host_web()(bare({
  RealDOMException, RealDate, RealError, RealMap, RealRangeError, RealRegExp, RealSet, RealTypeError, RealUint8Array,
  addTimer, apply, asObject, bare, charCodeAt, defineProperty, domException, errorClasses, getOwnPropertyDescriptor, getPrototypeOf, hide,
  isArray, mapDelete, mapForEach, mapGet, mapHas, mapSet, objectKeys, ownKeys, push, setAdd, setForEach, setHas, show, slice, toLowerCase, trim, uncurry,
  host_brand, host_call, host_clean_stack, host_decode, host_encode, host_is_view, host_print, host_query_parse, host_query_write, host_url_parse, host_url_set,
}));
const publishLater = (names) => {
  for (let i = 0; i < names.length; i++) {
    const name = names[i];
    defineProperty(global, name, bare({
      get() { return publish(name, webGlobals()[name]); },
      set(value) { publish(name, value); },
      enumerable: false, configurable: true,
    }));
  }
};
publishLater(['URL', 'URLSearchParams', 'TextEncoder', 'TextDecoder', 'structuredClone', 'Event', 'EventTarget', 'AbortSignal', 'AbortController']);
