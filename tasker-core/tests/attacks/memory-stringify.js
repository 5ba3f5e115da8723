// ends: memory
return JSON.stringify(new Array(1.5e6).fill('xxxxxxxxxxxx')).length;
