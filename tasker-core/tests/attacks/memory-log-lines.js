// ends: completed undefined
const text = 'y'.repeat(10000);
for (let n = 0; n < 8e4; n++) print(text + n);
