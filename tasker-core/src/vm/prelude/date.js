// Date without a clock and without a place: now is the turn's time, local time is UTC. A script of its own, for few tasks touch Date.
//
// Until its last line has run, nothing that a task can reach leads to the real Date. It asks nothing of the language that a task may
// have replaced, so no code of a task runs in between. (A template with `${}` is no way: QuickJS asks String.prototype.concat for it.) What it needs of the real Date it reads first; `install` then writes, and can
// be called again when a stack that is full ends it half way.
const proto = RealDate.prototype;
const { parse: realParse, UTC: realUtc } = RealDate;
const { getTime, setUTCFullYear: setFullYear } = proto;
const fields = ['FullYear', 'Month', 'Date', 'Day', 'Hours', 'Minutes', 'Seconds', 'Milliseconds'];
const local = bare({}), utc = bare({}), methods = [];
const read = (method, d) => apply(method, d, []);
const method = (name, f) => { hide(f, 'name', name); push(methods, [name, f]); return f; };
for (let i = 0; i < fields.length; i++) {
  const name = fields[i];
  local[name] = proto['get' + name];
  const get = utc[name] = proto['getUTC' + name], set = proto['setUTC' + name];
  method('get' + name, bare({ f() { return apply(get, this, []); } }).f);
  if (set === undefined) continue;
  hide(method('set' + name, bare({ f(...args) { return apply(set, this, args); } }).f), 'length', set.length);
}
const two = (n) => padStart('' + n, 2, '0');
const days = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat'];
const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
const year = (d) => { const y = read(utc.FullYear, d); return y < 0 ? '-' + padStart('' + -y, 6, '0') : padStart('' + y, 4, '0'); };
const datePart = (d) => days[read(utc.Day, d)] + ' ' + months[read(utc.Month, d)] + ' ' + two(read(utc.Date, d)) + ' ' + year(d);
const clock = (d) => two(read(utc.Minutes, d)) + ':' + two(read(utc.Seconds, d));
const timePart = (d) => two(read(utc.Hours, d)) + ':' + clock(d) + ' GMT+0000 (Coordinated Universal Time)';
const localeDate = (d) => read(utc.Month, d) + 1 + '/' + read(utc.Date, d) + '/' + read(utc.FullYear, d);
const localeTime = (d) => { const hours = read(utc.Hours, d); return (hours % 12 || 12) + ':' + clock(d) + (hours < 12 ? ' AM' : ' PM'); };
const text = (name, write) => method(name, bare({ f() { const t = read(getTime, this); return t !== t ? 'Invalid Date' : write(this); } }).f);
const wholePart = (d) => datePart(d) + ' ' + timePart(d);
text('toString', wholePart);
text('toDateString', datePart);
text('toTimeString', timePart);
text('toLocaleString', (d) => localeDate(d) + ', ' + localeTime(d));
text('toLocaleDateString', localeDate);
text('toLocaleTimeString', localeTime);
method('getTimezoneOffset', bare({ f() { const t = read(getTime, this); return t !== t ? t : 0; } }).f);
method('getYear', bare({ f() { return read(utc.FullYear, this) - 1900; } }).f);
method('setYear', bare({ f(value) { const y = +value; return apply(setFullYear, this, [y >= 0 && y <= 99 ? 1900 + y : y]); } }).f);

// A text without a zone means UTC. With one, what the engine reads does not depend on the host.
const dateOnly = /^\s*[+-]?\d{4,6}(?:-\d\d(?:-\d\d)?)?\s*$/;
const zoned = /(?:[zZ]|\b(?:UTC|UT|GMT|[ECMP][SD]T)|(?:GMT|UTC|UT|[\d.]:?\d\d(?:\.\d+)?|[AP]M)\s*[+-]\d{1,2}(?::?\d\d)?)\s*(?:\([^)]*\))?\s*$/i;
const parseLocal = (value) => {
  const here = realParse(value);
  if (here !== here || regExec(dateOnly, value) !== null || regExec(zoned, value) !== null) return here;
  let inUtc = realParse(value + 'Z');
  if (inUtc !== inUtc) inUtc = realParse(value + ' GMT');
  if (inUtc === inUtc) return inUtc;
  const d = new RealDate(here);
  const month = read(local.Month, d), date = read(local.Date, d);
  const day = new RealDate(realUtc(2000, month, date, read(local.Hours, d), read(local.Minutes, d), read(local.Seconds, d), read(local.Milliseconds, d)));
  return apply(setFullYear, day, [read(local.FullYear, d), month, date]);
};
const primitive = (value) => {
  if ((typeof value !== 'object' || value === null) && typeof value !== 'function') return value;
  try { return read(getTime, value); } catch {}
  const exotic = value[toPrimitive];
  const result = exotic === undefined || exotic === null ? ordinary(value) : apply(exotic, value, ['default']);
  if (typeof result === 'object' && result !== null) throw new RealTypeError('Cannot convert object to primitive value');
  return result;
};
const ordinary = (value) => {
  for (let i = 0; i < 2; i++) {
    const name = i === 0 ? 'valueOf' : 'toString';
    if (typeof value[name] !== 'function') continue;
    const result = value[name]();
    if (typeof result !== 'object' || result === null) return result;
  }
  throw new RealTypeError('Cannot convert object to primitive value');
};
const now = bare({ now() { return host_now(); } }).now;
const parseText = bare({ parse(value) { return parseLocal(apply(concat, '', [value])); } }).parse;
const Date = new RealProxy(RealDate, {
  __proto__: null,
  apply() { return wholePart(new RealDate(host_now())); },
  construct(base, args, newTarget) {
    let time;
    if (args.length === 0) time = host_now();
    else if (args.length === 1) {
      const value = primitive(args[0]);
      time = typeof value === 'string' ? parseLocal(value) : +value;
    } else time = apply(realUtc, undefined, args);
    return construct(RealDate, [time], newTarget);
  },
});
return function install() {
  for (let i = 0; i < methods.length; i++) hide(proto, methods[i][0], methods[i][1]);
  hide(RealDate, 'now', now);
  hide(RealDate, 'parse', parseText);
  hide(proto, 'constructor', Date);
  return Date;
};
