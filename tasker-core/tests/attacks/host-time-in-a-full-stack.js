// ends: completed [true,true,true,0,"1970-01-01T00:00:00.000Z"]
let first, tries = 0;
const down = () => { try { down(); } catch { if (first === undefined) { tries++; first = Date; } } };
down();
return [tries > 0, first === Date, first.prototype.constructor === first, new first().getTimezoneOffset(), new first(0).toISOString()];
