// ends: cpu
const endless = { get more() { return true; } };
while (endless.more);
