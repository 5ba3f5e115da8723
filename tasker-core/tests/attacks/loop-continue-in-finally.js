// ends: cpu
for (;;) { try { continue; } finally { continue; } }
