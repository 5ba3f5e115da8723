// ends: completed "ended"
queueMicrotask(() => {});
Promise.resolve().then(() => 0).then(() => 0).then(() => 0).then(() => 0).then(() => { globalThis.late = tools.svc.m('late'); });
return 'ended';
