/**
 * `deno task start`: the port opens first, then the model loads and is compressed, then it serves until a signal ends it.
 *
 * @module
 */
import { createApp } from "../../routes/app.ts";
import type { StartCommand } from "../config.ts";
import { TuckerdError } from "../errors.ts";
import { log } from "../log.ts";
import { ModelServer } from "../serve/server.ts";
import { locateModel } from "./locate_model.ts";
import { DEFAULT_MODEL } from "./model.ts";

/**
 * Serves until SIGINT or SIGTERM.
 *
 * @throws TuckerdError `failed` if the port can't be opened; whatever made the model fail to load
 */
export async function start(command: StartCommand, version: string): Promise<void> {
  const { server: settings } = command;
  await using model = new ModelServer({
    model: command.model ?? DEFAULT_MODEL,
    locate: locateModel,
    compression: command.compression,
    device: command.device,
    inference: command.inference,
    cacheFolder: command.cacheDir === "off" ? undefined : command.cacheDir,
    queue: settings.queue,
    generations: settings.generations,
  }, version);
  const app = createApp(model, settings);
  const stopping = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) Deno.addSignalListener(signal, () => stopping.abort());
  const http = listen({ hostname: settings.host, port: settings.port, signal: stopping.signal }, app.fetch);
  const { hostname, port } = http.addr;
  const host = hostname.includes(":") ? `[${hostname}]` : hostname;
  log(0, `tuckerd ${version} listens on http://${host}:${port}, loading ${command.model ?? "the embedded model"}`);
  try {
    await Promise.race([model.ready, http.finished]);
  } catch (error) {
    await http.shutdown();
    throw error;
  }
  if (!stopping.signal.aborted) log(0, summary(model));
  await http.finished;
}

function listen(
  options: { readonly hostname: string; readonly port: number; readonly signal: AbortSignal },
  handler: (request: Request) => Response | Promise<Response>,
): Deno.HttpServer<Deno.NetAddr> {
  try {
    return Deno.serve({ ...options, onListen: () => {} }, (request) => handler(request));
  } catch (error) {
    throw new TuckerdError(
      "failed",
      `can't listen on ${options.hostname}:${options.port}: ${
        (error as Error).message
      }; choose another --port or --host`,
      { cause: error },
    );
  }
}

/** One line that says what serves, at what error: never a ratio without it. */
function summary(model: ModelServer): string {
  const { totals, layers, devices } = model.compression.report();
  const errors = layers.map((layer) => layer.relativeError);
  const [least, most] = [Math.min(...errors), Math.max(...errors)].map((error) => error.toFixed(3));
  const truncated = layers.flatMap(({ feedForward = [] }) => feedForward.map(({ relativeError }) => relativeError));
  const networks = truncated.length === 0
    ? ""
    : `, ${truncated.length} feed-forward matrices truncated (relative error up to ${
      Math.max(...truncated).toFixed(3)
    })`;
  return `ready: ${layers.length} attention layers compressed ${totals.compressionRatio.toFixed(2)} times ` +
    `(relative error ${least} to ${most})${networks} in ${totals.seconds.toFixed(2)} s on ${devices.tucker.backend}; ` +
    `inference on ${devices.inference.provider}`;
}
