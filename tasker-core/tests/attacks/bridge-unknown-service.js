// ends: completed "NOT_FOUND_ERROR"
try { await tools.nobody.here(); } catch (e) { return e.type; }
