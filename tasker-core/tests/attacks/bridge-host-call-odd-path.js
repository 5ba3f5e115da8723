// ends: error TypeError
return await __callHostTool__('svc', 'm..x', [3]);
