// ends: completed true
// Written so that the text does not name Date, which is then made when it is touched.
// QuickJS asks String.prototype.concat for templates: what ours asked of it could leave the zone out of a text that is read.
const { concat } = String.prototype, texts = ['2020-06-01T10:00', '10:00 June 1 2020'];
const read = () => [...texts.map((text) => D\u0061te.parse(text)), new D\u0061te(0).getHours(), +new D\u0061te(2020, 5, 1)].join();
String.prototype.concat = function (first) { return first === undefined ? '' : `${first}` === 'getUTC' ? 'getHours' : first; };
const seen = read();
String.prototype.concat = concat;
return seen === [D\u0061te.UTC(2020, 5, 1, 10), D\u0061te.UTC(2020, 5, 1, 10), 0, D\u0061te.UTC(2020, 5, 1)].join();
