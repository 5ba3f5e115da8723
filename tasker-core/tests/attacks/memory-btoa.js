// ends: memory
return btoa('x'.repeat(2e7)).length;
