// ends: memory
return new TextEncoder().encode('\u20ac'.repeat(8e6)).length;
