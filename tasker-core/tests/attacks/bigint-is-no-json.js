// ends: error TypeError
return { big: 1n };
