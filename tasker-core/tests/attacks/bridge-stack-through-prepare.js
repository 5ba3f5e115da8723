// ends: completed "undefined"
Error.prepareStackTrace = (e, sites) => { globalThis.sites = sites; return 'x'; };
try { new URL('::'); } catch {}
return typeof sites === 'undefined' ? 'undefined' : sites.map((s) => s.getFileName()).filter((f) => f === '<tasker>').length === 0 ? 'undefined' : 'seen';
