// ends: completed 3
return (await tools.svc.m('a\0b')).length;
