// fetch: exists where the http service is granted, and is a call like any other.
const jsonParse = JSON.parse, jsonStringify = JSON.stringify;
class Headers {
  #map = new RealMap();
  constructor(init = undefined) {
    if (init === undefined || init === null) return;
    if (typeof init[Symbol_iterator] === 'function') for (const [name, value] of init) this.append(name, value);
    else { const names = objectKeys(init); for (let i = 0; i < names.length; i++) this.append(names[i], isArray(init[names[i]]) ? apply(arrayJoin, init[names[i]], [', ']) : init[names[i]]); }
  }
  append(name, value) { const key = toLowerCase(`${name}`), old = mapGet(this.#map, key); mapSet(this.#map, key, old === undefined ? trim(`${value}`) : `${old}, ${trim(`${value}`)}`); }
  set(name, value) { mapSet(this.#map, toLowerCase(`${name}`), trim(`${value}`)); }
  get(name) { return mapGet(this.#map, toLowerCase(`${name}`)) ?? null; }
  has(name) { return mapHas(this.#map, toLowerCase(`${name}`)); }
  delete(name) { mapDelete(this.#map, toLowerCase(`${name}`)); }
  forEach(callback, self) { mapForEach(this.#map, (value, name) => { apply(callback, self, [value, name, this]); }); }
  *entries() { const all = []; mapForEach(this.#map, (value, name) => { push(all, [name, value]); }); for (let i = 0; i < all.length; i++) yield all[i]; }
  *keys() { for (const entry of this.entries()) yield entry[0]; }
  *values() { for (const entry of this.entries()) yield entry[1]; }
  [Symbol_iterator]() { return this.entries(); }
  toJSON() { const all = {}; mapForEach(this.#map, (value, name) => { show(all, name, value); }); return all; }
}
const arrayJoin = Array.prototype.join;
let makeResponse;
class Response {
  #answer = bare({ status: 200 }); #headers = new Headers(); #used = false;
  static { makeResponse = (answer) => { const response = new Response(); response.#answer = bare(answer); response.#headers = new Headers(answer.headers); return response; }; }
  get status() { return this.#answer.status ?? 0; }
  get statusText() { return this.#answer.statusText ?? ''; }
  get ok() { return this.status >= 200 && this.status < 300; }
  get url() { return this.#answer.url ?? ''; }
  get redirected() { return !!this.#answer.redirected; }
  get type() { return 'basic'; }
  get headers() { return this.#headers; }
  get bodyUsed() { return this.#used; }
  #body() {
    if (this.#used) throw new RealTypeError('the body of this response was already read');
    this.#used = true;
    return this.#answer.body;
  }
  async text() { const body = this.#body(); return body === undefined || body === null ? '' : typeof body === 'string' ? body : jsonStringify(body); }
  async json() { const body = this.#body(); return typeof body === 'string' ? jsonParse(body) : body; }
  async arrayBuffer() { return host_encode(await this.text()).buffer; }
  async bytes() { return host_encode(await this.text()); }
}
publish('Headers', Headers);
publish('Response', Response);
// No async function: the error of the call is first thrown where the task awaits it, and has that line.
const ask = (input, init) => {
  const url = typeof input === 'string' ? input : typeof input?.href === 'string' ? input.href : `${input?.url ?? input}`;
  const request = {};
  if (init !== undefined && init !== null) {
    init.signal?.throwIfAborted();
    if (init.method !== undefined) show(request, 'method', `${init.method}`);
    const headers = new Headers(init.headers);
    if (init.body !== undefined && init.body !== null) {
      let body = init.body;
      if (body instanceof URLSearchParams) {
        if (!headers.has('content-type')) headers.set('content-type', 'application/x-www-form-urlencoded;charset=UTF-8');
        body = `${body}`;
      } else if (typeof body === 'object' && (host_is_view(body) || host_brand(body) === 'ArrayBuffer')) body = host_decode(bytesOf(body), 'utf-8', true) ?? `${body}`;
      else if (typeof body !== 'string') body = `${body}`;
      show(request, 'body', body);
    }
    show(request, 'headers', headers.toJSON());
    if (init.redirect !== undefined) show(request, 'redirect', `${init.redirect}`);
  }
  return host_call('http', 'fetch', init === undefined || init === null ? [url] : [url, request]);
};
const rejected = (error) => apply(promiseReject, RealPromise, [error]);
publish('fetch', function fetch(input, init = undefined) {
  try { return then(ask(input, init), makeResponse); } catch (error) { return rejected(error); }
});
