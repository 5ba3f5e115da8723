// TextEncoder and TextDecoder.
const utf8Labels = new RealSet(['utf-8', 'utf8', 'unicode-1-1-utf-8', 'unicode11utf8', 'unicode20utf8', 'x-unicode20utf8']);
const utf16Labels = new RealSet(['utf-16le', 'utf-16', 'ucs-2', 'unicode', 'csunicode', 'iso-10646-ucs-2', 'unicodefeff']);
const typedSet = uncurry(Uint8Array.prototype.set), subarray = uncurry(Uint8Array.prototype.subarray);
const bytesOf = (input) => {
  const brand = host_brand(input);
  if (brand === 'ArrayBuffer') return new RealUint8Array(input);
  if (brand === 'DataView' || host_is_view(input)) return new RealUint8Array(input.buffer, input.byteOffset, input.byteLength);
  throw new RealTypeError('decode(bytes) takes an ArrayBuffer or a view of one');
};
class TextEncoder {
  get encoding() { return 'utf-8'; }
  encode(text = '') { return host_encode(`${text}`); }
  encodeInto(text, into) {
    text = `${text}`;
    let read = 0, written = 0;
    while (read < text.length) {
      const unit = charCodeAt(text, read);
      const pair = unit >= 0xd800 && unit < 0xdc00 && read + 1 < text.length && (charCodeAt(text, read + 1) & 0xfc00) === 0xdc00;
      const size = pair ? 4 : unit < 0x80 ? 1 : unit < 0x800 ? 2 : 3;
      if (written + size > into.length) break;
      typedSet(into, host_encode(slice(text, read, read + (pair ? 2 : 1))), written);
      read += pair ? 2 : 1;
      written += size;
    }
    return { read, written };
  }
}
class TextDecoder {
  #encoding; #fatal; #ignoreBOM; #rest = undefined; #begun = false;
  constructor(label = 'utf-8', options = {}) {
    const name = toLowerCase(trim(`${label}`));
    if (setHas(utf8Labels, name)) this.#encoding = 'utf-8';
    else if (setHas(utf16Labels, name)) this.#encoding = 'utf-16le';
    else throw new RealRangeError(`the encoding ${label} is not known; utf-8 and utf-16le are`);
    this.#fatal = !!options?.fatal;
    this.#ignoreBOM = !!options?.ignoreBOM;
  }
  get encoding() { return this.#encoding; }
  get fatal() { return this.#fatal; }
  get ignoreBOM() { return this.#ignoreBOM; }
  decode(input, options = {}) {
    let bytes = input === undefined ? new RealUint8Array(0) : bytesOf(input);
    const stream = !!options?.stream;
    if (this.#rest !== undefined) {
      const whole = new RealUint8Array(this.#rest.length + bytes.length);
      typedSet(whole, this.#rest, 0);
      typedSet(whole, bytes, this.#rest.length);
      bytes = whole;
      this.#rest = undefined;
    }
    if (stream) {
      const keep = this.#encoding === 'utf-8' ? openUtf8(bytes) : openUtf16(bytes);
      if (keep > 0) { this.#rest = new RealUint8Array(subarray(bytes, bytes.length - keep)); bytes = subarray(bytes, 0, bytes.length - keep); }
    }
    let text = host_decode(bytes, this.#encoding, this.#fatal);
    if (text === undefined) { this.#begun = false; throw new RealTypeError(`the bytes are no ${this.#encoding}`); }
    if (!this.#begun && !this.#ignoreBOM && charCodeAt(text, 0) === 0xfeff) text = slice(text, 1);
    this.#begun = stream && (this.#begun || text.length > 0);
    return text;
  }
}
// Bytes at the end that begin a character whose rest is still to come.
const openUtf8 = (bytes) => {
  for (let back = 1; back <= 3 && back <= bytes.length; back++) {
    const byte = bytes[bytes.length - back];
    if ((byte & 0xc0) === 0x80) continue;
    const size = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
    return size > back ? back : 0;
  }
  return 0;
};
const openUtf16 = (bytes) => {
  const odd = bytes.length % 2;
  const end = bytes.length - odd;
  return end >= 2 && (bytes[end - 1] & 0xfc) === 0xd8 ? odd + 2 : odd;
};
publish('TextEncoder', TextEncoder);
publish('TextDecoder', TextDecoder);
