// ends: memory
return Uint8Array.from({ length: 2 ** 30 }).length;
