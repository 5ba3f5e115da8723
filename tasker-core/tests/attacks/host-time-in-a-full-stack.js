// ends: completed [true,true,true,0,"1970-01-01T00:00:00.000Z"]
// Written so that the text does not name Date, which is then made when it is touched.
let first, tries = 0;
const down = () => { try { down(); } catch { if (first === undefined) { tries++; first = D\u0061te; } } };
down();
return [tries > 0, first === D\u0061te, first.prototype.constructor === first, new first().getTimezoneOffset(), new first(0).toISOString()];
