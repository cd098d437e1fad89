/**
 * A process that fetches the model it is told to, and prints where its graph is.
 *
 * @module
 */
import { locateModel } from "../../src/cli/locate_model.ts";
import { print } from "../../src/log.ts";

print((await locateModel(Deno.args[0]!)).path);
