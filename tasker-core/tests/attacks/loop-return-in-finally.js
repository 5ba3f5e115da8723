// ends: cpu
try { for (;;); } finally { return 'escaped'; }
