// ends: cpu
await tools.svc.m(1).then(() => { for (;;); }).catch(() => 'caught');
return 'went on';
