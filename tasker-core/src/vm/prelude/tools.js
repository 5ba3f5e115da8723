// tools: names become functions when they are first used. A proxy stands behind each object as its prototype, so that the second
// use of a name is an own property and asks nobody.
const badName = /^$|[.()\u0000-\u001f\u007f]|^[\s\S]{201}/;
const checkName = (name) => {
  if (regExec(badName, name) !== null) throw new RealTypeError('a name of a tool has 1 to 200 characters, none of them a dot, a parenthesis or a control character');
  return name;
};
// The proxy's target is `make`, so that all proxies of a kind have one handler.
const handler = (isFunction) => {
  const proto = isFunction ? FunctionPrototype : ObjectPrototype;
  return bare({
    get(make, name, target) {
      if (typeof name !== 'string') return undefined;
      switch (name) {
        case 'then': case 'catch': case 'finally': case 'toJSON': case 'constructor': case 'prototype': case '__proto__':
          return undefined;
        case 'toString': case 'toLocaleString': case 'valueOf': case 'hasOwnProperty': case 'isPrototypeOf': case 'propertyIsEnumerable':
        case '__defineGetter__': case '__defineSetter__': case '__lookupGetter__': case '__lookupSetter__':
          return ObjectPrototype[name];
        case 'apply': case 'call': case 'bind':
          if (isFunction) return FunctionPrototype[name];
      }
      return hide(target, name, make(checkName(name)));
    },
    has() { return false; },
    set(make, name, value, target) { return defineProperty(target, name, bare({ value, writable: true, enumerable: true, configurable: true })); },
    getPrototypeOf() { return proto; },
    apply() { throw new RealTypeError('not a function'); },
  });
};
const objectHandler = handler(false), functionHandler = handler(true);
const lazy = (make, isFunction) => new RealProxy(make, isFunction ? functionHandler : objectHandler);
const named = (fn, proto) => { delete fn.name; delete fn.length; setPrototypeOf(fn, proto); return fn; };
// `policy`: what withPolicy made of its argument; undefined without.
const plainNode = (service, path, policy) => named(
  policy === undefined ? host_tool(service, path) : (...args) => host_call(service, path, args, policy),
  lazy((name) => plainNode(service, `${path}.${name}`, policy), true));
const plainService = (service, policy) => create(lazy((name) => plainNode(service, name, policy), false));

const log = function log(level, message, data) {
  if (arguments.length === 1) return host_log('info', level);
  return host_log(level, message, data);
};
const sleep = function sleep(ms) { return host_sleep(ms); };
const signal = function signal(name) { return host_signal(name); };
const taskTools = () => {
  const service = plainService('tasks');
  hide(service, 'execute', function execute(name, input) { return input === undefined ? host_task(name) : host_task(name, input); });
  return service;
};
const service = (name, policy) => {
  switch (name) {
    case 'log': return log;
    case 'sleep': return sleep;
    case 'tasks': return taskTools();
    default: return host_is_fluent(name) ? fluentService(name, policy) : plainService(name, policy);
  }
};
const toolsObject = (policy) => {
  const tools = create(lazy((name) => service(name, policy), false));
  hide(tools, 'log', log);
  hide(tools, 'sleep', sleep);
  hide(tools, 'tasks', taskTools());
  return tools;
};
// Services are members that show, made when they are first used.
const addServices = (tools, names, policy) => {
  for (let i = 0; i < names.length; i++) {
    const name = names[i];
    if (has(tools, name)) continue;
    host_accessor(tools, name, () => show(tools, name, service(name, policy)), (value) => { show(tools, name, value); }, true);
  }
  return tools;
};
const hostCall = function __callHostTool__(service, path, args) {
  if (typeof service !== 'string') throw new RealTypeError('__callHostTool__(service, path, args) takes the name of a service as text');
  let dotted = '';
  if (typeof path === 'string') dotted = path;
  else if (isArray(path)) for (let i = 0; i < path.length; i++) dotted += (i ? '.' : '') + path[i];
  else throw new RealTypeError('__callHostTool__(service, path, args) takes a path as text with dots or as an array');
  let start = 0;
  for (let end = 0; end <= dotted.length; end++) {
    if (end === dotted.length || dotted[end] === '.') { checkName(slice(dotted, start, end)); start = end + 1; }
  }
  checkName(service);
  return host_call(service, dotted, args);
};
