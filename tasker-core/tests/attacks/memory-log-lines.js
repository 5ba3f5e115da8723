// ends: completed undefined
const text = 'y'.repeat(10000);
for (let n = 0; n < 1e5; n++) print(text + n);
