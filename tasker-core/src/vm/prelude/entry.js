// Starting the task: which function it is, and how it ends.
const runNames = ['default', 'execute', 'run', 'runTask', 'main', 'handler'];
const member = (object, name) => {
  const value = has(object, name) ? object[name] : undefined;
  return typeof value === 'function' ? value : undefined;
};
const underscored = (name) => { let text = ''; for (let i = 0; i < name.length; i++) text += name[i] === '-' ? '_' : name[i]; return text; };
// The function of an exports object or namespace; undefined when there is none.
const findFunction = (exports, name) => {
  const named = member(exports, underscored(name)) ?? member(exports, name);
  if (named !== undefined) return named;
  for (let i = 0; i < runNames.length; i++) {
    const found = member(exports, runNames[i]);
    if (found !== undefined) return found;
  }
  return undefined;
};
const onlyFunction = (exports) => {
  const names = objectKeys(exports);
  let found;
  for (let i = 0; i < names.length; i++) {
    const value = exports[names[i]];
    if (typeof value !== 'function') continue;
    if (found !== undefined) return undefined;
    found = value;
  }
  return found;
};
const isClass = (fn) => {
  const prototype = getOwnPropertyDescriptor(fn, 'prototype');
  return prototype !== undefined && prototype.writable === false;
};
// export default class: an instance's run or execute method is the task.
const classMethod = (Class) => {
  const made = new Class();
  for (const name of ['execute', 'run', 'runTask', 'main', 'handle']) if (typeof made[name] === 'function') return (input, context) => made[name](input, context);
  throw new RealTypeError('the exported class has no method execute, run, runTask, main or handle');
};
const noFunction = (name) => new RealTypeError(`the task ${name} has no function to run: set module.exports to one, write 'export default async function', or leave a single top-level function`);
// Code of text, switched off: every way to a constructor of functions leads through these prototypes.
const noEval = () => {
  const refuse = function () { throw new RealTypeError('this engine takes no code of text: eval and Function are switched off by Limits::eval'); };
  for (const fn of [function () {}, async () => {}, function* () {}, async function* () {}]) hide(getPrototypeOf(fn), 'constructor', refuse);
  publish('eval', refuse);
  publish('Function', refuse);
};
// What a task gets, but for what a frame brings: made in the realm that all others are copies of.
const tools = toolsObject(), context = toolsObject();
publish('tools', tools);
hide(context, 'tools', tools);
hide(context, 'signal', signal);
hide(context, 'task', { execute: tools.tasks.execute });
const start = async (info, name, input) => {
  try {
    if (!info.eval) noEval();
    addServices(tools, info.tools);
    addServices(context, info.tools);
    hide(context, 'run', info.run);
    // Tools whose calls carry a policy; what needs no service is as it is without one.
    hide(context, 'withPolicy', function withPolicy(policy) { const text = host_policy(policy); return addServices(toolsObject(text), info.tools, text); });
    for (let i = 0; i < info.tools.length; i++) if (info.tools[i] === 'http') publishLater(['fetch', 'Headers', 'Response'], webGlobal);
    const loaded = host_load();
    const exports = loaded[1];
    let fn, value;
    if (loaded[0]) {
      await loaded[2];
      fn = findFunction(exports, name);
      if (fn === undefined) {
        if (has(exports, 'default')) value = exports.default;
        else if ((fn = onlyFunction(exports)) === undefined) throw noFunction(name);
      }
    } else if (typeof exports === 'function') {
      fn = exports;
    } else if (exports !== null && typeof exports === 'object') {
      fn = findFunction(exports, name);
      if (fn === undefined) {
        const replaced = loaded[3];
        if (replaced) value = exports;
        else if (objectKeys(exports).length === 0) { fn = loaded[2]; if (typeof fn !== 'function') throw noFunction(name); }
        else { if (allFunctions(exports)) fn = onlyFunction(exports); if (fn === undefined) value = exports; }
      }
    } else value = exports;
    taskFunction = fn;
    if (fn !== undefined) value = isClass(fn) ? await classMethod(fn)(input, context) : await fn(input, context);
    else value = await value;
    host_done(value);
  } catch (error) {
    host_fail(error);
  }
};
const allFunctions = (exports) => { const names = objectKeys(exports); for (let i = 0; i < names.length; i++) if (typeof exports[names[i]] !== 'function') return false; return true; };
return bare({ start, fire, toError, toRejection });
