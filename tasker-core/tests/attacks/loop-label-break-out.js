// ends: cpu
outer: for (;;) { for (;;) { if (Math.max(1, 2) > 3) break outer; continue outer; } }
