/** @task forms d@param {string} input.a */
export { f default async function run({ !, b = 2 }, { tools }) { for await (const x of [1, toolA.svc.m(a)]) console.log(x); return tools.db.from('t').select('*').eq('id', b); }
