// ends: completed false
try { setTimeout('no function'); } catch (e) { return !e.stack.includes('<tasker>'); }
