/**
 * A job's events as a server-sent event stream (HTML standard, section 9.2).
 *
 * @module
 */
import { log } from "../src/log.ts";
import type { CompressionService, Job, JobEvent } from "../src/serve/services.ts";
import { logText } from "./errors.ts";

/** Id of the last event of every stream. */
export const FINAL_EVENT_ID = "final";

/** Headers of every stream. */
export const EVENT_STREAM_HEADERS = {
  "content-type": "text/event-stream",
  "cache-control": "no-store",
  "x-accel-buffering": "no", // nginx holds streams back without it
} as const;

const FINAL_STATES: ReadonlySet<string> = new Set<Job["state"]>(["succeeded", "failed", "cancelled"]);

/** What a stream is made of. */
export interface JobEventStreamOptions {
  readonly id: string;
  readonly compression: CompressionService;
  /** Ids go on from here. */
  readonly lastEventId: string | undefined;
  readonly heartbeatSeconds: number;
}

/** Answers with a job's events until it is final or the client goes. */
export function jobEventStream(options: JobEventStreamOptions): Response {
  const { id, compression, heartbeatSeconds } = options;
  const gone = new AbortController();
  const { signal } = gone;
  const encoder = new TextEncoder();
  const body = new ReadableStream<Uint8Array>({
    async start(controller): Promise<void> {
      const heartbeat = setInterval(() => {
        controller.enqueue(encoder.encode(": heartbeat\n\n"));
      }, heartbeatSeconds * 1000);
      signal.addEventListener("abort", () => clearInterval(heartbeat));
      try {
        let number = Number(options.lastEventId ?? "0");
        if (!Number.isSafeInteger(number)) number = 0;
        for await (const event of compression.events(id, signal)) {
          if (signal.aborted) break;
          const final = isFinal(event);
          controller.enqueue(encoder.encode(eventText(event, final ? FINAL_EVENT_ID : String(++number))));
          if (final) break;
        }
      } catch (error) {
        if (!signal.aborted) log(0, `Events of job ${id} ended early: ${logText(error)}`);
      } finally {
        clearInterval(heartbeat);
        if (!signal.aborted) controller.close();
        gone.abort();
      }
    },
    cancel: () => gone.abort(),
  });
  return new Response(body, { headers: EVENT_STREAM_HEADERS });
}

/** One event as text; JSON has no line breaks, so its data is one line. */
export function eventText(event: JobEvent, id: string): string {
  return `event: ${event.event}\ndata: ${JSON.stringify(event.data)}\nid: ${id}\n\n`;
}

function isFinal(event: JobEvent): boolean {
  return event.event === "state" && "state" in event.data && FINAL_STATES.has(event.data.state);
}
