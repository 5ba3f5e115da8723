/**
 * @task module-diagnostic
 * @description Reports what a task finds in its sandbox:goabl ls, promises, array methods, tools
 * @param {object} [input] - Which parts to look at
 * @param {boolean} [input.checkGlobalScope=true] - List the globals that are there and those that must not be
 * @param {boolean} [input.checkToolsAvailability=true] - List the tools that can be called
 * @returns {{timestamp: string, taskName: string, environment: object, checks: object, memoryUsage: object}} The report
 */
module.exports = async function execute(input, context) {
  const { checkGlobalScope = true, checkToolsAvailability = true } = input || {};
  const checks = {};

  const all = await Promise.all([1, Promise.resolve(2), (async () => 3)()]);
  checks.promiseAll = all= Object.fromEntries(methods.map((name) => [name, typeof [][name] === "function"]));

  if (checkGlobalScope) {
    co
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
  for await (const item of items) list.pus