/**
 * Wrong usage of the command line or of a `TUCKERD_*` variable.
 *
 * @module
 */
import { TuckerdError } from "../errors.ts";

/** What one usage error says. */
export interface UsageFault {
  /** The option or variable as the user wrote it, such as `--port` or `TUCKERD_PORT`. */
  readonly setting: string;
  /** The rule that was broken, such as `must be an integer from 0 to 65535`. */
  readonly rule: string;
  /** The value given, quoted in the text; left out for secrets and where nothing was given. */
  readonly value?: string;
  /** What to do next. */
  readonly hint?: string;
}

/** Wrong usage: the program writes its one line to stderr and exits with status 2. */
export class UsageError extends TuckerdError {
  constructor(fault: UsageFault) {
    const got = fault.value === undefined ? "" : `, got ${JSON.stringify(fault.value)}`;
    const hint = fault.hint === undefined ? "" : `; ${fault.hint}`;
    super("invalid", `${fault.setting} ${fault.rule}${got}${hint}`, { fields: { setting: fault.setting } });
  }
}
