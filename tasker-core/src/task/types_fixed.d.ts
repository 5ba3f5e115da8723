// What tasks can use: written by Tasker from the registered services and the published tasks.

/** The second parameter of a task. Every tool is here too: `context.orders` is `context.tools.orders`. */
interface TaskContext extends Tools {
  tools: Tools;
  /** Waits for a signal sent to this run and gives its payload. */
  signal(name: string): Promise<any>;
  /** The tools again; their calls carry this policy. What is left out is as the method has it. */
  withPolicy(policy: CallPolicy): Tools;
  /** This run. */
  readonly run: {
    readonly id: string;
    readonly task: string;
    readonly version: string;
    readonly depth: number;
    readonly correlationId: string | null;
    readonly labels: Readonly<Record<string, string>>;
  };
}

/** What happens around a call; times are from 1 ms to 30 days. */
interface CallPolicy {
  /** For one attempt. */
  timeoutMs?: number;
  retry?: {
    /** In all, from 1 to 100. */
    attempts?: number;
    /** Before the second attempt. */
    initialMs?: number;
    /** Growth of the waits, from 1 to 10. */
    factor?: number;
    /** The longest wait. */
    maxMs?: number;
    /** Which errors are tried again. */
    types?: ServiceError["type"][];
  };
  /** When the worker died after asking: ask again, ask the service what became of it, or wait for a person. A method's "block" stays. */
  unknownOutcome?: "retry" | "reconcile" | "block";
}

/** Tools that need no service. */
interface CommonTools {
  /** Waits; the run can be put away meanwhile. */
  sleep(ms: number): Promise<void>;
  /** Writes a log line. */
  log(level: "debug" | "info" | "warn" | "error", message: string, data?: any): void;
}

/** A service that takes methods it does not list. */
interface OpenService {
  (...args: any[]): any;
  [name: string]: any;
}

/** What a failed call throws. */
interface ServiceError extends Error {
  type:
    | "VALIDATION_ERROR" | "AUTHENTICATION_ERROR" | "AUTHORIZATION_ERROR" | "NOT_FOUND_ERROR" | "CONFLICT_ERROR"
    | "RATE_LIMIT_ERROR" | "EXTERNAL_SERVICE_ERROR" | "INTERNAL_ERROR" | "TIMEOUT_ERROR" | "CONFIGURATION_ERROR";
  code: string;
  status: number;
  details: any;
}

declare const tools: Tools;
declare function __callHostTool__(service: string, path: string | string[], args?: any): Promise<any>;
