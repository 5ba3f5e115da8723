// ends: memory
let caught = 0;
for (;;) { try { new Uint8Array(1 << 26); } catch { if (++caught > 1000) return caught; } }
