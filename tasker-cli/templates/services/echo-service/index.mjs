// Answers with what it was asked.
// From a task: await context.tools["echo-service"].echo({ any: "thing" })
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";

const name = process.env.SERVICE_NAME ?? "echo-service";

const methods = {
  echo: (value = null) => ({ echo: value, timestamp: new Date().toISOString() }),
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
