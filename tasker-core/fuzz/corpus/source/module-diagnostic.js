/**
 * @task module-diagnostic
 * @description Reports what a task finds in its sandbox: globals, promises, array methods, tools
 * @param {object} [input] - Which parts to look at
 * @param {boolean} [input.checkGlobalScope=true] - List the globals that are there and those that must not be
 * @param {boolean} [input.checkToolsAvailability=true] - List the tools that can be called
 * @returns {{timestamp: string, taskName: string, environment: object, checks: object, memoryUsage: object}} The report
 */
module.exports = async function execute(input, context) {
  const { checkGlobalScope = true, checkToolsAvailability = true } = input || {};
  const checks = {};

  const all = await Promise.all([1, Promise.resolve(2), (async () => 3)()]);
  checks.promiseAll = all.join() === "1,2,3";
  const settled = await Promise.allSettled([Promise.resolve("yes"), Promise.reject(new Error("no"))]);
  checks.promiseAllSettled = settled.map((one) => one.status).join() === "fulfilled,rejected";
  checks.promiseRace = (await Promise.race([Promise.resolve("first"), new Promise(() => {})])) === "first";
  checks.asyncIteration = (await collect(count(3))).join() === "0,1,2";

  const methods = ["map", "filter", "reduce", "find", "flat", "flatMap", "includes", "at", "toSorted"];
  checks.arrayMethods = Object.fromEntries(methods.map((name) => [name, typeof [][name] === "function"]));

  if (checkGlobalScope) {
    const wanted = ["console", "setTimeout", "URL", "TextEncoder", "structuredClone", "crypto", "tools", "module"];
    const unwanted = ["process", "Deno", "WeakRef", "SharedArrayBuffer", "Atomics"];
    checks.globals = Object.fromEntries(wanted.map((name) => [name, name === "module" || name in globalThis]));
    checks.absentGlobals = Object.fromEntries(unwanted.map((name) => [name, !(name in globalThis)]));
  }
  if (checkToolsAvailability) {
    const names = ["gapi", "keystore", "openai", "supabase", "websearch", "tasks", "sleep", "log"];
    checks.tools = Object.fromEntries(names.map((name) => [name, typeof context.tools[name]]));
  }

  return {
    timestamp: new Date().toISOString(),
    taskName: context.run ? context.run.task : "module-diagnostic",
    environment: { engine: "QuickJS", language: "ES2023", strict: isStrict() },
    checks,
    // A task cannot see how much memory it has used; the engine's limit is enforced from outside.
    memoryUsage: {},
  };
};

async function* count(end) {
  for (let i = 0; i < end; i++) yield i;
}

async function collect(items) {
  const list = [];
  for await (const item of items) list.push(item);
  return list;
}

function isStrict() {
  return this === undefined;
}
