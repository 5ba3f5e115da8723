// Durable timers: each is a row until it is due.
const timers = new RealMap(); // number of the open timer → what to do
const handles = new RealMap(); // number given to the task → number of the open timer
const addTimer = (repeat, callback, delay, args) => {
  if (typeof callback !== 'function') throw new RealTypeError(`${repeat ? 'setInterval' : 'setTimeout'} takes a function`);
  let millis = +delay;
  if (!(millis > 0)) millis = 0;
  if (repeat && millis < 1) millis = 1;
  const seq = host_timer(repeat ? 1 : 0, millis);
  mapSet(timers, seq, bare({ handle: seq, repeat, callback, millis, args }));
  mapSet(handles, seq, seq);
  return seq;
};
const clear = (handle) => {
  const seq = mapGet(handles, typeof handle === 'string' ? +handle : handle);
  if (seq === undefined) return;
  mapDelete(handles, handle);
  mapDelete(timers, seq);
  host_drop(seq);
};
const fire = (seq) => {
  const timer = mapGet(timers, seq);
  if (timer === undefined) return;
  mapDelete(timers, seq);
  if (!timer.repeat) mapDelete(handles, timer.handle);
  try {
    apply(timer.callback, undefined, timer.args);
  } finally {
    if (timer.repeat && mapGet(handles, timer.handle) === seq) {
      const next = host_timer(1, timer.millis);
      mapSet(handles, timer.handle, next);
      mapSet(timers, next, timer);
    }
  }
};
function setTimeout(callback, delay, ...args) { return addTimer(false, callback, delay, args); }
function setInterval(callback, delay, ...args) { return addTimer(true, callback, delay, args); }
function setImmediate(callback, ...args) { return addTimer(false, callback, 0, args); }
function clearTimeout(handle) { clear(handle); }
function clearInterval(handle) { clear(handle); }
function clearImmediate(handle) { clear(handle); }
return bare({ addTimer, fire, setTimeout, setInterval, setImmediate, clearTimeout, clearInterval, clearImmediate });
