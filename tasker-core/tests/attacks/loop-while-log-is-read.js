// ends: cpu
for (;;) print({ get x() { for (;;); } });
