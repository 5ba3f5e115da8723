// Events as far as AbortController needs them, and AbortController.
let eventTarget, eventStop;
class Event {
  #type; #target = null; #stopped = false; #cancelled = false; #cancelable;
  static {
    eventTarget = (event, target) => { event.#target = target; };
    eventStop = (event) => event.#stopped;
  }
  constructor(type, init = {}) { this.#type = `${type}`; this.#cancelable = !!init?.cancelable; }
  get type() { return this.#type; }
  get target() { return this.#target; }
  get currentTarget() { return this.#target; }
  get cancelable() { return this.#cancelable; }
  get defaultPrevented() { return this.#cancelled; }
  preventDefault() { if (this.#cancelable) this.#cancelled = true; }
  stopPropagation() {}
  stopImmediatePropagation() { this.#stopped = true; }
}
class EventTarget {
  #listeners = [];
  addEventListener(type, callback, options = undefined) {
    if (callback === null || callback === undefined) return;
    type = `${type}`;
    for (let i = 0; i < this.#listeners.length; i++) if (this.#listeners[i].type === type && this.#listeners[i].callback === callback) return;
    push(this.#listeners, bare({ type, callback, once: typeof options === 'object' && options !== null && !!options.once }));
  }
  removeEventListener(type, callback) {
    const kept = [];
    for (let i = 0; i < this.#listeners.length; i++) { const l = this.#listeners[i]; if (l.type !== `${type}` || l.callback !== callback) push(kept, l); }
    this.#listeners = kept;
  }
  dispatchEvent(event) {
    eventTarget(event, this);
    const handler = this[`on${event.type}`];
    if (typeof handler === 'function') report(() => apply(handler, this, [event]));
    const listeners = this.#listeners;
    for (let i = 0; i < listeners.length && !eventStop(event); i++) {
      const { type, callback, once } = listeners[i];
      if (type !== event.type) continue;
      if (once) this.removeEventListener(type, callback);
      report(() => (typeof callback === 'function' ? apply(callback, this, [event]) : callback.handleEvent(event)));
    }
    return !event.defaultPrevented;
  }
}
// An error of a listener is nobody's to catch.
const report = (run) => { try { run(); } catch (error) { host_print('error', '', 'Uncaught', error); } };
let makeSignal, abortSignal;
let mayConstruct = false;
class AbortSignal extends EventTarget {
  #aborted = false; #reason = undefined; #dependents = [];
  onabort = null;
  static {
    makeSignal = () => { mayConstruct = true; try { return new AbortSignal(); } finally { mayConstruct = false; } };
    abortSignal = (signal, reason) => {
      if (signal.#aborted) return;
      signal.#aborted = true;
      signal.#reason = reason === undefined ? domException('This operation was aborted', 'AbortError') : reason;
      for (let i = 0; i < signal.#dependents.length; i++) abortSignal(signal.#dependents[i], signal.#reason);
      signal.#dependents = [];
      signal.dispatchEvent(new Event('abort'));
    };
  }
  constructor() { if (!mayConstruct) throw new RealTypeError('Illegal constructor: make an AbortController'); super(); }
  get aborted() { return this.#aborted; }
  get reason() { return this.#reason; }
  throwIfAborted() { if (this.#aborted) throw this.#reason; }
  static abort(reason = undefined) { const signal = makeSignal(); abortSignal(signal, reason); return signal; }
  static timeout(ms) {
    const signal = makeSignal();
    addTimer(false, () => abortSignal(signal, domException('The operation was aborted due to timeout', 'TimeoutError')), ms, []);
    return signal;
  }
  static any(signals) {
    const signal = makeSignal(), sources = [];
    for (const source of signals) push(sources, source);
    for (let i = 0; i < sources.length; i++) if (sources[i].#aborted) { abortSignal(signal, sources[i].#reason); return signal; }
    for (let i = 0; i < sources.length; i++) push(sources[i].#dependents, signal);
    return signal;
  }
}
class AbortController {
  #signal = makeSignal();
  get signal() { return this.#signal; }
  abort(reason = undefined) { abortSignal(this.#signal, reason); }
}
publish('Event', Event);
publish('EventTarget', EventTarget);
publish('AbortSignal', AbortSignal);
publish('AbortController', AbortController);
