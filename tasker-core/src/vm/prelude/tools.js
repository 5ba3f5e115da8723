// tools: names become functions when they are first used. A proxy stands behind each object as its prototype, so that the second
// use of a name is an own property and asks nobody.
const badName = /^$|[.()\u0000-\u001f\u007f]|^[\s\S]{201}/;
const checkName = (name) => {
  if (regExec(badName, name) !== null) throw new RealTypeError('a name of a tool has 1 to 200 characters, none of them a dot, a parenthesis or a control character');
  return name;
};
const lazy = (make, isFunction) => new RealProxy(isFunction ? FunctionPrototype : ObjectPrototype, {
  __proto__: null,
  get(base, name, target) {
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
  set(base, name, value, target) { return defineProperty(target, name, data(value, true)); },
  getPrototypeOf() { return isFunction ? FunctionPrototype : ObjectPrototype; },
});
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
const toolsProto = (policy) => lazy((name) => service(name, policy), false);
const plainToolsProto = toolsProto(undefined);
// `own` names come first: those that tasks see when they list the tools.
const toolsObject = (names, own, policy) => {
  const tools = create(policy === undefined ? plainToolsProto : toolsProto(policy));
  for (let i = 0; i < names.length; i++) {
    const name = names[i];
    defineProperty(tools, name, bare({
      get() { return show(tools, name, service(name, policy)); },
      set(value) { show(tools, name, value); },
      enumerable: true, configurable: true,
    }));
  }
  for (let i = 0; i < own.length; i++) hide(tools, own[i][0], own[i][1]);
  return tools;
};
const ownTools = () => [['log', log], ['sleep', sleep], ['tasks', taskTools()]];
// Tools whose calls carry a policy; what needs no service is as it is without one.
const policyTools = (names) => function withPolicy(policy) { return toolsObject(names, ownTools(), host_policy(policy)); };
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
