// A fluent chain: links until somebody awaits it, then one call, whose promise every later await shares.
const fireChain = (service, links, policy) => {
  let path = '', calls = [], early = false;
  for (let i = 0; i < links.length; i++) {
    if (links[i].args !== undefined) { if (i < links.length - 1) early = true; push(calls, links[i].args); }
  }
  for (let i = 0; i < links.length; i++) path += (i ? '.' : '') + links[i].name + (early && links[i].args !== undefined ? '()' : '');
  if (calls.length === 0) throw new RealTypeError(`${service}.${path} is no call: a chain needs arguments, as in ${service}.${path}()`);
  return early ? host_chain(service, path, calls, policy) : host_call(service, path, calls[0], policy);
};
const chainNode = (service, links, policy) => {
  let promise;
  const run = () => {
    if (promise === undefined) {
      try { promise = fireChain(service, links, policy); } catch (error) { promise = RealPromise_reject(error); }
    }
    return promise;
  };
  const last = links[links.length - 1];
  const target = last.args === undefined
    ? function (...args) { return chainNode(service, withLast(links, bare({ name: last.name, args })), policy); }
    : function () { throw new RealTypeError(`${service}: the result of ${last.name}() is a chain; await it, or go on with another name`); };
  const proto = lazy((name) => chainNode(service, withMore(links, bare({ name, args: undefined })), policy), false);
  const node = last.args === undefined ? named(target, proto) : create(proto);
  if (last.args !== undefined) {
    hide(node, 'then', function (onFulfilled, onRejected) { return then(run(), onFulfilled, onRejected); });
    hide(node, 'catch', function (onRejected) { return then(run(), undefined, onRejected); });
    hide(node, 'finally', function (onFinally) { return apply(promiseFinally, run(), [onFinally]); });
  }
  return node;
};
const RealPromise_reject = (error) => apply(promiseReject, RealPromise, [error]);
const copy = (links, count) => { const list = []; for (let i = 0; i < count; i++) push(list, links[i]); return list; };
const withLast = (links, link) => { const list = copy(links, links.length - 1); push(list, link); return list; };
const withMore = (links, link) => { const list = copy(links, links.length); push(list, link); return list; };
return (service, policy) => create(lazy((name) => chainNode(service, withMore([], bare({ name, args: undefined })), policy), false));
