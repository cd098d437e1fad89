/**
 * Opens any device and prints its adapter, or the error's kind and text: run by a test in an environment of its own.
 *
 * @module
 */
import { TuckerdError } from "../../src/errors.ts";
import { openDevice } from "../../src/gpu/device.ts";
import { print } from "../../src/log.ts";

try {
  using device = await openDevice({ allowFallbackAdapter: true });
  print(device.adapter);
} catch (error) {
  const { kind, message } = TuckerdError.from(error);
  print(`${kind}: ${message}`);
}
