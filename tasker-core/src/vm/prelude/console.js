// console: each line is committed with its turn.
let indent = '';
const line = (level) => function (...values) { host_print(level, indent, ...values); };
const counts = new RealMap();
const console = {
  log: line('info'), info: line('info'), warn: line('warn'), error: line('error'), debug: line('debug'),
  trace: function trace(...values) { host_print('debug', `${indent}Trace:${values.length ? ' ' : ''}`, ...values, `\n${host_clean_stack(new RealError().stack)}`); },
  assert: function assert(good, ...values) { if (!good) host_print('error', `${indent}Assertion failed${values.length ? ': ' : ''}`, ...values); },
  dir: function dir(value) { host_print('info', indent, value); },
  table: function table(value) { host_print('info', indent, value); },
  group: function group(...values) { if (values.length) host_print('info', indent, ...values); if (indent.length < 40) indent += '  '; },
  groupCollapsed: function groupCollapsed(...values) { if (values.length) host_print('info', indent, ...values); if (indent.length < 40) indent += '  '; },
  groupEnd: function groupEnd() { indent = slice(indent, 2); },
  count: function count(label = 'default') { const n = (mapGet(counts, `${label}`) ?? 0) + 1; mapSet(counts, `${label}`, n); host_print('info', indent, `${label}: ${n}`); },
  countReset: function countReset(label = 'default') { mapDelete(counts, `${label}`); },
  time: function time() {}, timeLog: function timeLog() {}, timeEnd: function timeEnd() {}, clear: function clear() {},
};
const named = ['log', 'info', 'warn', 'error', 'debug'];
for (let i = 0; i < named.length; i++) hide(console[named[i]], 'name', named[i]);
return console;
