// ends: completed "NOT_FOUND_ERROR"
try { await tools.keystore.getKey('password'); } catch (e) { return e.type; }
