// URL and URLSearchParams. Parsing is the host's; the objects are ours.
const partNames = ['href', 'origin', 'protocol', 'username', 'password', 'host', 'hostname', 'port', 'pathname', 'search', 'hash'];
const Symbol_iterator = Symbol.iterator, Symbol_toStringTag = Symbol.toStringTag;
const arrayValues = uncurry(Array.prototype.values);
let setParamsQuery, linkParams, updateUrl;
class URLSearchParams {
  #pairs = []; #url = undefined;
  static {
    setParamsQuery = (params, query) => { params.#pairs = host_query_parse(query); };
    linkParams = (params, url) => { params.#url = url; };
  }
  constructor(init = '') {
    if ((typeof init === 'object' && init !== null) || typeof init === 'function') {
      const iterate = init[Symbol_iterator];
      if (iterate !== undefined && iterate !== null) {
        for (const pair of init) {
          const both = [];
          for (const part of pair) push(both, `${part}`);
          if (both.length !== 2) throw new RealTypeError('each entry of URLSearchParams is a name and a value');
          push(this.#pairs, both[0]); push(this.#pairs, both[1]);
        }
      } else {
        const names = ownKeys(init);
        for (let i = 0; i < names.length; i++) {
          if (typeof names[i] !== 'string' || !getOwnPropertyDescriptor(init, names[i])?.enumerable) continue;
          push(this.#pairs, names[i]); push(this.#pairs, `${init[names[i]]}`);
        }
      }
    } else {
      const text = `${init}`;
      this.#pairs = host_query_parse(text[0] === '?' ? slice(text, 1) : text);
    }
  }
  #changed() { if (this.#url !== undefined) updateUrl(this.#url, host_query_write(this.#pairs)); }
  get size() { return this.#pairs.length / 2; }
  append(name, value) { push(this.#pairs, `${name}`); push(this.#pairs, `${value}`); this.#changed(); }
  delete(name, value) {
    name = `${name}`;
    const only = value === undefined ? undefined : `${value}`;
    const kept = [], pairs = this.#pairs;
    for (let i = 0; i < pairs.length; i += 2) if (pairs[i] !== name || (only !== undefined && pairs[i + 1] !== only)) { push(kept, pairs[i]); push(kept, pairs[i + 1]); }
    this.#pairs = kept;
    this.#changed();
  }
  get(name) { name = `${name}`; for (let i = 0; i < this.#pairs.length; i += 2) if (this.#pairs[i] === name) return this.#pairs[i + 1]; return null; }
  getAll(name) { name = `${name}`; const all = []; for (let i = 0; i < this.#pairs.length; i += 2) if (this.#pairs[i] === name) push(all, this.#pairs[i + 1]); return all; }
  has(name, value) {
    name = `${name}`;
    const only = value === undefined ? undefined : `${value}`;
    for (let i = 0; i < this.#pairs.length; i += 2) if (this.#pairs[i] === name && (only === undefined || this.#pairs[i + 1] === only)) return true;
    return false;
  }
  set(name, value) {
    name = `${name}`; value = `${value}`;
    const kept = [], pairs = this.#pairs;
    let done = false;
    for (let i = 0; i < pairs.length; i += 2) {
      if (pairs[i] !== name) { push(kept, pairs[i]); push(kept, pairs[i + 1]); }
      else if (!done) { done = true; push(kept, name); push(kept, value); }
    }
    if (!done) { push(kept, name); push(kept, value); }
    this.#pairs = kept;
    this.#changed();
  }
  sort() {
    const pairs = this.#pairs, entries = [];
    for (let i = 0; i < pairs.length; i += 2) push(entries, [pairs[i], pairs[i + 1]]);
    apply(arraySort, entries, [(a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0)]);
    this.#pairs = [];
    for (let i = 0; i < entries.length; i++) { push(this.#pairs, entries[i][0]); push(this.#pairs, entries[i][1]); }
    this.#changed();
  }
  forEach(callback, self) { for (let i = 0; i < this.#pairs.length; i += 2) apply(callback, self, [this.#pairs[i + 1], this.#pairs[i], this]); }
  *entries() { for (let i = 0; i < this.#pairs.length; i += 2) yield [this.#pairs[i], this.#pairs[i + 1]]; }
  *keys() { for (let i = 0; i < this.#pairs.length; i += 2) yield this.#pairs[i]; }
  *values() { for (let i = 0; i < this.#pairs.length; i += 2) yield this.#pairs[i + 1]; }
  [Symbol_iterator]() { return this.entries(); }
  toString() { return host_query_write(this.#pairs); }
  get [Symbol_toStringTag]() { return 'URLSearchParams'; }
}
const arraySort = Array.prototype.sort;
class URL {
  #parts; #params = undefined;
  static {
    updateUrl = (url, query) => { url.#parts = host_url_set(url.#parts[0], 'search', query) ?? url.#parts; };
    for (let i = 0; i < partNames.length; i++) {
      const name = partNames[i];
      defineProperty(this.prototype, name, bare({
        get() { return this.#parts[i]; },
        set: name === 'origin' ? undefined : function (value) { this.#set(name, `${value}`); },
        enumerable: true, configurable: true,
      }));
    }
  }
  constructor(url, base = undefined) {
    this.#parts = host_url_parse(`${url}`, base === undefined ? undefined : `${base}`);
    if (this.#parts === undefined) {
      const error = new RealTypeError(`Invalid URL: ${url}`);
      show(error, 'code', 'ERR_INVALID_URL');
      hide(error, 'stack', host_clean_stack(error.stack));
      throw error;
    }
  }
  #set(name, value) {
    const parts = host_url_set(this.#parts[0], name, value);
    if (parts === undefined) throw new RealTypeError(`Invalid URL: ${value}`);
    this.#parts = parts;
    if (this.#params !== undefined) setParamsQuery(this.#params, slice(parts[9], 1));
  }
  get searchParams() {
    if (this.#params === undefined) {
      this.#params = new URLSearchParams(this.#parts[9]);
      linkParams(this.#params, this);
    }
    return this.#params;
  }
  toString() { return this.#parts[0]; }
  toJSON() { return this.#parts[0]; }
  get [Symbol_toStringTag]() { return 'URL'; }
  static canParse(url, base = undefined) { return host_url_parse(`${url}`, base === undefined ? undefined : `${base}`) !== undefined; }
  static parse(url, base = undefined) { return URL.canParse(url, base) ? new URL(url, base) : null; }
}
publish('URL', URL);
publish('URLSearchParams', URLSearchParams);
