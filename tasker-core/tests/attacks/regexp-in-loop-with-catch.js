// ends: cpu
for (;;) { try { /(z+)+$/.test('z'.repeat(40) + 'b'); } catch {} }
