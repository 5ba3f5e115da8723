// ends: completed "NaN NaN"
return [new Date('x'.repeat(1 << 22)), new Date('9'.repeat(1 << 22))].map((date) => String(date.getTime())).join(' ');
