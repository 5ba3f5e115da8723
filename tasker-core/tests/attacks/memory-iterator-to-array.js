// ends: memory
return Iterator.from({ next: () => ({ done: false, value: {} }) }).toArray().length;
