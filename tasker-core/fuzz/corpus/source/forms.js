/** @task forms @param {string} input.a */
export default async function run({ a, b = 2 }, { tools }) { for await (const x of [1, tools.svc.m(a)]) console.log(x); return tools.db.from('t').select('*').eq('id', b); }
