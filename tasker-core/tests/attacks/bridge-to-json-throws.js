// ends: error URIError
await tools.svc.m({ toJSON() { throw new URIError('mine'); } });
