// Date without a clock and without a place: now is the turn's time, local time is UTC.
{
  const proto = RealDate.prototype;
  const realParse = RealDate.parse, realUtc = RealDate.UTC;
  const getTime = uncurry(proto.getTime), toISOString = proto.toISOString;
  const fields = ['FullYear', 'Month', 'Date', 'Day', 'Hours', 'Minutes', 'Seconds', 'Milliseconds'];
  const local = bare({}), utc = bare({});
  for (let i = 0; i < fields.length; i++) {
    const name = fields[i];
    local[name] = uncurry(proto[`get${name}`]);
    utc[name] = uncurry(proto[`getUTC${name}`]);
    const get = proto[`getUTC${name}`], set = proto[`setUTC${name}`];
    hide(proto, `get${name}`, bare({ f() { return apply(get, this, []); } }).f);
    hide(proto[`get${name}`], 'name', `get${name}`);
    if (set === undefined) continue;
    hide(proto, `set${name}`, bare({ f(...args) { return apply(set, this, args); } }).f);
    hide(proto[`set${name}`], 'name', `set${name}`);
    hide(proto[`set${name}`], 'length', set.length);
  }
  const setFullYear = uncurry(proto.setUTCFullYear);
  const two = (n) => padStart(`${n}`, 2, '0');
  const days = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat'];
  const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
  const year = (d) => { const y = utc.FullYear(d); return y < 0 ? `-${padStart(`${-y}`, 6, '0')}` : padStart(`${y}`, 4, '0'); };
  const datePart = (d) => `${days[utc.Day(d)]} ${months[utc.Month(d)]} ${two(utc.Date(d))} ${year(d)}`;
  const timePart = (d) => `${two(utc.Hours(d))}:${two(utc.Minutes(d))}:${two(utc.Seconds(d))} GMT+0000 (Coordinated Universal Time)`;
  const localeDate = (d) => `${utc.Month(d) + 1}/${utc.Date(d)}/${utc.FullYear(d)}`;
  const localeTime = (d) => `${utc.Hours(d) % 12 || 12}:${two(utc.Minutes(d))}:${two(utc.Seconds(d))} ${utc.Hours(d) < 12 ? 'AM' : 'PM'}`;
  const text = (name, write) => {
    const method = bare({ f() { const t = getTime(this); return t !== t ? 'Invalid Date' : write(this); } }).f;
    hide(method, 'name', name);
    hide(proto, name, method);
  };
  text('toString', (d) => `${datePart(d)} ${timePart(d)}`);
  text('toDateString', datePart);
  text('toTimeString', timePart);
  text('toLocaleString', (d) => `${localeDate(d)}, ${localeTime(d)}`);
  text('toLocaleDateString', localeDate);
  text('toLocaleTimeString', localeTime);
  hide(proto, 'getTimezoneOffset', bare({ getTimezoneOffset() { const t = getTime(this); return t !== t ? NaN : 0; } }).getTimezoneOffset);
  hide(proto, 'getYear', bare({ getYear() { return utc.FullYear(this) - 1900; } }).getYear);
  hide(proto, 'setYear', bare({ setYear(value) { const y = +value; return setFullYear(this, y >= 0 && y <= 99 ? 1900 + y : y); } }).setYear);

  // A text without a zone means UTC. With one, what the engine reads does not depend on the host.
  const dateOnly = /^\s*[+-]?\d{4,6}(?:-\d\d(?:-\d\d)?)?\s*$/;
  const zoned = /(?:[zZ]|\b(?:UTC|UT|GMT|[ECMP][SD]T)|(?:GMT|UTC|UT|[\d.]:?\d\d(?:\.\d+)?|[AP]M)\s*[+-]\d{1,2}(?::?\d\d)?)\s*(?:\([^)]*\))?\s*$/i;
  const parse = (value) => {
    const read = realParse(value);
    if (read !== read || regExec(dateOnly, value) !== null || regExec(zoned, value) !== null) return read;
    let inUtc = realParse(`${value}Z`);
    if (inUtc !== inUtc) inUtc = realParse(`${value} GMT`);
    if (inUtc === inUtc) return inUtc;
    const d = new RealDate(read);
    const day = new RealDate(realUtc(2000, local.Month(d), local.Date(d), local.Hours(d), local.Minutes(d), local.Seconds(d), local.Milliseconds(d)));
    return setFullYear(day, local.FullYear(d), local.Month(d), local.Date(d));
  };
  const primitive = (value) => {
    if ((typeof value !== 'object' || value === null) && typeof value !== 'function') return value;
    try { return getTime(value); } catch {}
    const exotic = value[Symbol_toPrimitive];
    const result = exotic === undefined || exotic === null ? ordinary(value) : apply(exotic, value, ['default']);
    if (typeof result === 'object' && result !== null) throw new RealTypeError('Cannot convert object to primitive value');
    return result;
  };
  const ordinary = (value) => {
    for (const name of ['valueOf', 'toString']) {
      if (typeof value[name] !== 'function') continue;
      const result = value[name]();
      if (typeof result !== 'object' || result === null) return result;
    }
    throw new RealTypeError('Cannot convert object to primitive value');
  };
  const Symbol_toPrimitive = Symbol.toPrimitive;
  hide(RealDate, 'now', function now() { return host_now(); });
  hide(RealDate, 'parse', function parse_(value) { return parse(`${value}`); });
  hide(RealDate.parse, 'name', 'parse');
  const Date = new RealProxy(RealDate, {
    __proto__: null,
    apply() { const d = new RealDate(host_now()); return `${datePart(d)} ${timePart(d)}`; },
    construct(base, args, newTarget) {
      let time;
      if (args.length === 0) time = host_now();
      else if (args.length === 1) {
        const value = primitive(args[0]);
        time = typeof value === 'string' ? parse(value) : +value;
      } else time = apply(realUtc, undefined, args);
      return construct(RealDate, [time], newTarget);
    },
  });
  hide(proto, 'constructor', Date);
  publish('Date', Date);
}
