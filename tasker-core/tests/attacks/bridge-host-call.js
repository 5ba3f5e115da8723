// ends: completed 3
return await __callHostTool__('svc', 'm', [3]);
