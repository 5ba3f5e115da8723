// ends: completed true
// QuickJS asks String.prototype.concat for templates: what ours asked of it could leave the zone out of a text that is read.
const { concat } = String.prototype, texts = ['2020-06-01T10:00', '10:00 June 1 2020'];
const read = () => [...texts.map((text) => Date.parse(text)), new Date(0).getHours(), +new Date(2020, 5, 1)].join();
String.prototype.concat = function (first) { return first === undefined ? '' : `${first}` === 'getUTC' ? 'getHours' : first; };
const seen = read();
String.prototype.concat = concat;
return seen === [Date.UTC(2020, 5, 1, 10), Date.UTC(2020, 5, 1, 10), 0, Date.UTC(2020, 5, 1)].join();
