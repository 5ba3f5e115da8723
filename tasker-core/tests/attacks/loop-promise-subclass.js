// ends: cpu
class Endless extends Promise { constructor(executor) { super(executor); for (;;); } }
try { Endless.resolve(1); } catch {}
try { await Promise.race.call(Endless, [1]); } catch {}
return 'survived';
