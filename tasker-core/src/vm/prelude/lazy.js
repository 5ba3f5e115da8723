// Globals that not every task touches, made when a task first touches them: each kind by a script of its own, which `host_script` gives.
const publishLater = (names, make) => {
  for (let i = 0; i < names.length; i++) {
    const name = names[i];
    host_accessor(global, name, () => publish(name, make(name)), (value) => { publish(name, value); }, false);
  }
};

publishLater(['console'], () => host_script('console')(bare({
  RealError, RealMap, hide, mapDelete, mapGet, mapSet, slice, host_clean_stack, host_print,
})));

let timers;
const timersScript = () => timers ??= host_script('timers')(bare({
  RealMap, RealTypeError, apply, bare, mapDelete, mapGet, mapSet, host_drop, host_timer,
}));
const addTimer = (repeat, callback, delay, args) => timersScript().addTimer(repeat, callback, delay, args);
const fire = (seq) => timersScript().fire(seq);
publishLater(['setTimeout', 'setInterval', 'setImmediate', 'clearTimeout', 'clearInterval', 'clearImmediate'], (name) => timersScript()[name]);
publish('__callHostTool__', hostCall);
publishLater(['crypto'], () => host_script('crypto')(bare({ RealUint8Array, domException, host_brand, host_random_bytes })));

// The real Date knows the host's clock and zone. It is off the global object before any task code runs, and what script gives is safe.
let installDate, safeDate;
publishLater(['Date'], () => {
  if (safeDate === undefined) {
    installDate ??= host_script('date')(bare({
      RealDate, RealProxy, RealTypeError, apply, bare, concat, construct, hide, padStart, push, regExec, toPrimitive, host_now,
    }));
    safeDate = installDate();
    installDate = undefined;
  }
  return safeDate;
});

let fluent;
const fluentService = (service, policy) => {
  fluent ??= host_script('fluent')(bare({
    RealPromise, RealTypeError, apply, bare, create, hide, lazy, named, promiseFinally, promiseReject, push, then, host_call, host_chain,
  }));
  return fluent(service, policy);
};

let web;
const webGlobal = (name) => {
  web ??= host_script('web')(bare({
    RealDOMException, RealDate, RealError, RealMap, RealPromise, RealRangeError, RealRegExp, RealSet, RealTypeError, RealUint8Array,
    addTimer, apply, asObject, bare, charCodeAt, defineProperty, domException, errorClasses, getOwnPropertyDescriptor, getPrototypeOf, hide,
    isArray, mapDelete, mapForEach, mapGet, mapHas, mapSet, objectKeys, ownKeys, promiseReject, push, setAdd, setForEach, setHas, show, slice, then, toLowerCase, trim,
    host_brand, host_call, host_clean_stack, host_decode, host_encode, host_is_view, host_print, host_query_parse, host_query_write, host_url_parse, host_url_set,
  }));
  return web[name];
};
publishLater(['URL', 'URLSearchParams', 'TextEncoder', 'TextDecoder', 'structuredClone', 'Event', 'EventTarget', 'AbortSignal', 'AbortController'], webGlobal);
