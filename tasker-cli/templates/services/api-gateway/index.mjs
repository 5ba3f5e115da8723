// Passes requests on to the hosts on its list, and to no others: ALLOWED_HOSTS in service.toml.
// From a task: await context.tools["api-gateway"].request({ endpoint: "https://api.example.com/v1/items" })
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";

const name = process.env.SERVICE_NAME ?? "api-gateway";

const allowed = (process.env.ALLOWED_HOSTS ?? "").split(",").map((host) => host.trim()).filter(Boolean);

const methods = {
  request: async ({ endpoint, method = "GET", data, headers = {} } = {}) => {
    let url;
    try {
      url = new URL(endpoint);
    } catch {
      throw wrong(`endpoint is ${JSON.stringify(endpoint)}; it is a URL`, 400, "VALIDATION_ERROR");
    }
    if (!["http:", "https:"].includes(url.protocol) || !allowed.includes(url.host)) {
      throw wrong(`${url.host || url.protocol} is not on the list of hosts; add it to ALLOWED_HOSTS in service.toml`, 403, "AUTHORIZATION_ERROR");
    }
    const answer = await fetch(url, {
      method,
      headers: data === undefined ? headers : { "content-type": "application/json", ...headers },
      body: data === undefined ? undefined : JSON.stringify(data),
      redirect: "manual",
      signal: AbortSignal.timeout(30_000),
    });
    const text = await answer.text();
    let value = text;
    try {
      value = JSON.parse(text);
    } catch {
      // A text that is no JSON is answered as it is.
    }
    return { success: answer.ok, status: answer.status, data: value };
  },
};

/** What a body asks for: {chain:[{property,args}]}, {method,args} or {action,…}. */
function asked(body) {
  if (Array.isArray(body.chain)) {
    const last = body.chain.at(-1);
    return { method: body.chain.map((link) => link.property).join("."), args: last?.args ?? [] };
  }
  if (body.method) return { method: String(body.method), args: [body.args ?? []].flat() };
  const { action, ...rest } = body;
  return { method: String(action), args: [rest] };
}

function wrong(message, status, type) {
  return Object.assign(new Error(message), { status, type });
}

async function answer(request) {
  const path = new URL(request.url, "http://localhost").pathname;
  if (path === "/health") return { service: name, status: "healthy" };
  if (request.method !== "POST") throw wrong(`nothing answers ${request.method} ${path}`, 404, "NOT_FOUND_ERROR");
  let text = "";
  for await (const piece of request) text += piece;
  let body;
  try {
    body = JSON.parse(text || "{}");
  } catch {
    throw wrong("the body is not JSON", 400, "VALIDATION_ERROR");
  }
  const { method, args } = asked(body);
  if (!Object.hasOwn(methods, method)) {
    throw wrong(`${name} has no method ${method}; it has ${Object.keys(methods).join(", ")}`, 404, "NOT_FOUND_ERROR");
  }
  return methods[method](...args);
}

const server = createServer(async (request, response) => {
  const begun = Date.now();
  const requestId = request.headers["x-request-id"] ?? randomUUID();
  let status = 200;
  let said;
  try {
    said = { success: true, data: (await answer(request)) ?? null };
  } catch (error) {
    status = error.status ?? 500;
    said = { success: false, error: error.message, errorDetails: { type: error.type ?? "INTERNAL_ERROR", code: error.type ?? "INTERNAL_ERROR", status } };
  }
  const metadata = { duration: Date.now() - begun, timestamp: new Date().toISOString(), requestId };
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify({ ...said, metadata }));
});

server.listen(Number(process.env.PORT ?? 3000), process.env.HOST ?? "127.0.0.1");
process.on("SIGTERM", () => server.close(() => process.exit(0)));
