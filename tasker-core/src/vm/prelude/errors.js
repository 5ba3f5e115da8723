// Errors made of data: what services answer, and what the bridge refuses.
const errorClasses = bare({
  TypeError: RealTypeError, RangeError: RealRangeError, SyntaxError: RealSyntaxError,
  ReferenceError: RealReferenceError, EvalError: RealEvalError, URIError: RealURIError,
});
const toError = (failure) => {
  const Class = errorClasses[failure.name] ?? RealError;
  const error = new Class(failure.message);
  if (Class === RealError && failure.name !== 'Error') hide(error, 'name', failure.name);
  const { type, code, status, details, retry_after_ms: retryAfterMs, stack, cause } = bare(failure);
  if (type !== undefined) show(error, 'type', type);
  if (code !== undefined) show(error, 'code', code);
  if (status !== undefined) show(error, 'status', status);
  if (details !== undefined) show(error, 'details', details);
  if (retryAfterMs !== undefined) show(error, 'retryAfterMs', retryAfterMs);
  if (cause !== undefined) hide(error, 'cause', toError(cause));
  hide(error, 'stack', stack ?? host_clean_stack(error.stack));
  return error;
};
const RealDOMException = DOMException;
const domException = (message, name) => {
  const error = new RealDOMException(message, name);
  hide(error, 'stack', host_clean_stack(error.stack));
  return error;
};
