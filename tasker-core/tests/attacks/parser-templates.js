// ends: completed "caught"
const depth = 20_000;
try { eval('`${'.repeat(depth) + '1' + '}`'.repeat(depth)); } catch (error) { return 'caught'; }
return 'survived';
