// Errors made of data: what services answer, and what the bridge refuses.
const errorClasses = bare({
  TypeError: RealTypeError, RangeError: RealRangeError, SyntaxError: RealSyntaxError,
  ReferenceError: RealReferenceError, EvalError: RealEvalError, URIError: RealURIError,
});
const classOf = (failure) => errorClasses[failure.name] ?? RealError;
const describe = (error, failure) => {
  const { name, type, code, status, details, retry_after_ms: retryAfterMs, cause } = failure;
  if (classOf(failure) === RealError && name !== 'Error') hide(error, 'name', name);
  if (type !== undefined) show(error, 'type', type);
  if (code !== undefined) show(error, 'code', code);
  if (status !== undefined) show(error, 'status', status);
  if (details !== undefined) show(error, 'details', details);
  if (retryAfterMs !== undefined) show(error, 'retryAfterMs', retryAfterMs);
  if (cause !== undefined) hide(error, 'cause', toError(cause));
  return error;
};
const toError = (failure) => {
  const Class = classOf(bare(failure));
  const error = describe(new Class(failure.message), failure);
  hide(error, 'stack', failure.stack ?? linesOf(error));
  return error;
};

// The error of a call that failed. Calls do not note their lines, for few fail: QuickJS notes the line of the `await` into which the error
// is thrown. An error that nothing has thrown shows the line that first asks for its stack. Where none of the task's lines runs (the
// call's promise was returned, or nobody handles it), it shows the function that is the task.
const { get: stackOf } = getOwnPropertyDescriptor(RealError.prototype, 'stack');
const { get: fileOf } = getOwnPropertyDescriptor(FunctionPrototype, 'fileName');
const { get: lineOf } = getOwnPropertyDescriptor(FunctionPrototype, 'lineNumber');
const { get: columnOf } = getOwnPropertyDescriptor(FunctionPrototype, 'columnNumber');
let taskFunction;
const linesOf = (error) => {
  const stack = apply(stackOf, error, []);
  return typeof stack === 'string' ? host_clean_stack(stack) : '';
};
const taskLine = () => {
  const file = apply(fileOf, taskFunction, []);
  if (file === undefined) return '';
  const name = getOwnPropertyDescriptor(taskFunction, 'name')?.value;
  return `    at ${typeof name === 'string' && name !== '' ? name : '<anonymous>'} (${file}:${apply(lineOf, taskFunction, [])}:${apply(columnOf, taskFunction, [])})`;
};
const lateStack = bare({
  get() { return host_brand(this) === 'Error' ? hide(this, 'stack', linesOf(this) || linesOf(new RealError()) || taskLine()) : undefined; },
  set(stack) { hide(this, 'stack', stack); },
  enumerable: false, configurable: true,
});
const rejectionPrototypes = new RealMap();
const rejectionPrototype = (Class) => {
  let proto = mapGet(rejectionPrototypes, Class);
  if (proto === undefined) {
    proto = create(Class.prototype);
    defineProperty(proto, 'stack', lateStack);
    mapSet(rejectionPrototypes, Class, proto);
  }
  return proto;
};
const toRejection = (failure) => {
  if (bare(failure).stack !== undefined) return toError(failure);
  const error = host_error(rejectionPrototype(classOf(failure)));
  hide(error, 'message', failure.message);
  return describe(error, failure);
};

const RealDOMException = DOMException;
const domException = (message, name) => {
  const error = new RealDOMException(message, name);
  hide(error, 'stack', host_clean_stack(error.stack));
  return error;
};
