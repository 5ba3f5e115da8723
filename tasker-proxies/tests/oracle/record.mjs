// Runs the official clients against a recording loopback server and writes what they send. Called by record.sh.
import http from 'node:http';
import { readFileSync, writeFileSync } from 'node:fs';
import OpenAI from 'openai';
import { createClient } from '@supabase/supabase-js';

const out = process.argv[2];
const cases = (name) => JSON.parse(readFileSync(`${out}/${name}.cases.json`, 'utf8'));
const version = (name) => JSON.parse(readFileSync(`node_modules/${name}/package.json`, 'utf8')).version;

// The headers that are compared. All others say who sends (user-agent, x-client-info, x-stainless-*), how the
// connection works (host, connection, content-length, accept-encoding, accept-language, sec-fetch-mode) or what
// the browser's fetch adds by itself.
const HEADERS = ['authorization', 'content-type', 'accept', 'prefer', 'range', 'apikey', 'accept-profile', 'content-profile'];

let seen = [];
let reply = () => ({ type: 'application/json', body: '{}' });
const server = http.createServer((request, response) => {
  let body = '';
  request.setEncoding('utf8');
  request.on('data', (part) => (body += part));
  request.on('end', () => {
    const headers = {};
    for (const name of HEADERS) if (request.headers[name] !== undefined) headers[name] = request.headers[name];
    seen.push({ method: request.method, target: request.url, headers, body });
    const { type, body: text } = reply(request);
    response.setHeader('content-type', type);
    response.end(text);
  });
});
await new Promise((done) => server.listen(0, '127.0.0.1', done));
const url = `http://127.0.0.1:${server.address().port}`;

async function record(name, client, run) {
  const recorded = [];
  for (const one of cases(name)) {
    seen = [];
    await run(one);
    if (seen.length !== 1) throw new Error(`${name}: ${one.name}: ${seen.length} requests`);
    recorded.push({ ...one, request: seen[0] });
  }
  // One case a line, without blanks, as a task's arguments are.
  const head = JSON.stringify({ client, version: version(client), comparedHeaders: HEADERS }).slice(0, -1);
  const lines = recorded.map((one) => JSON.stringify(one)).join(',\n');
  writeFileSync(`${out}/${name}.json`, `${head},"cases":[\n${lines}\n]}\n`);
  console.log(`${name}: ${recorded.length} requests of ${client} ${version(client)}`);
}

reply = () => ({ type: 'application/json', body: '[]' });
const supabase = createClient(url, 'test-key', { auth: { persistSession: false, autoRefreshToken: false }, realtime: { transport: class {} } });
await record('supabase', '@supabase/supabase-js', async ({ chain }) => {
  let link = supabase;
  for (const [method, ...args] of chain) link = link[method](...args);
  await link;
});

reply = (request) =>
  request.headers.accept === 'text/event-stream'
    ? { type: 'text/event-stream', body: 'data: [DONE]\n\n' }
    : { type: 'application/json', body: '{"data":[]}' };
const openai = new OpenAI({ apiKey: 'test-key', baseURL: `${url}/v1`, maxRetries: 0 });
await record('openai', 'openai', async ({ method, args }) => {
  const path = method.split('.');
  const last = path.pop();
  const owner = path.reduce((part, name) => part[name], openai);
  await owner[last](...args);
});

server.close();
