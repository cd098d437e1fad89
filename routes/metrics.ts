/**
 * `/metrics` in Prometheus' text format 0.0.4: the services' own numbers, and counts and durations of requests by route.
 *
 * @module
 */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { MiddlewareHandler } from "hono";
import { matchedRoutes } from "hono/route";
import type { Metric, Services } from "../src/serve/services.ts";
import { problems } from "./documentation.ts";

/** Upper bounds of the duration histogram, in seconds. */
const BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];
/** Methods that label a series; others count as `other`, so that a client can't make series without end. */
const METHODS = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]);

interface Histogram {
  readonly counts: number[];
  sum: number;
  count: number;
}

/** Counts of requests by method, route and status, and how long they took. */
export class RequestMetrics {
  readonly #requests = new Map<string, number>();
  readonly #durations = new Map<string, Histogram>();
  #inFlight = 0;

  /** Counts every request that passes. */
  middleware(): MiddlewareHandler {
    return async (c, next) => {
      const started = performance.now();
      this.#inFlight++;
      try {
        await next();
      } finally {
        this.#inFlight--;
        const route = matchedRoutes(c).findLast((one) => one.method !== "ALL")?.path ?? "unmatched";
        const method = METHODS.has(c.req.method) ? c.req.method : "other";
        this.#observe(labels({ method, route }), c.res.status, (performance.now() - started) / 1000);
      }
    };
  }

  /** The series as text. */
  text(): string {
    const lines = [
      "# HELP tuckerd_http_requests_in_flight Requests being answered.",
      "# TYPE tuckerd_http_requests_in_flight gauge",
      `tuckerd_http_requests_in_flight ${this.#inFlight}`,
      "# HELP tuckerd_http_requests_total Requests answered, by method, route and status.",
      "# TYPE tuckerd_http_requests_total counter",
      ...[...this.#requests].map(([key, value]) => `tuckerd_http_requests_total{${key}} ${value}`),
      "# HELP tuckerd_http_request_duration_seconds Time to the answer's headers, by method and route.",
      "# TYPE tuckerd_http_request_duration_seconds histogram",
      ...[...this.#durations].flatMap(([key, histogram]) => histogramLines(key, histogram)),
    ];
    return lines.join("\n") + "\n";
  }

  #observe(key: string, status: number, seconds: number): void {
    const counter = `${key},status="${status}"`;
    this.#requests.set(counter, (this.#requests.get(counter) ?? 0) + 1);
    const histogram = this.#durations.get(key) ?? { counts: BUCKETS.map(() => 0), sum: 0, count: 0 };
    this.#durations.set(key, histogram);
    histogram.count++;
    histogram.sum += seconds;
    const bucket = BUCKETS.findIndex((bound) => seconds <= bound);
    if (bucket >= 0) histogram.counts[bucket]!++;
  }
}

/** Registers `/metrics`. */
export function metricsRoute(app: OpenAPIHono, services: Services, requests: RequestMetrics): void {
  app.openapi(
    createRoute({
      method: "get",
      path: "/metrics",
      tags: ["Operation"],
      summary: "Prometheus metrics",
      responses: {
        200: {
          description: "Text format 0.0.4.",
          content: {
            "text/plain; version=0.0.4": {
              schema: z.string().openapi({
                example: "# TYPE tuckerd_answers_total counter\ntuckerd_answers_total 42\n",
              }),
            },
          },
        },
        ...problems(),
      },
    }),
    (c) => {
      const own: Metric[] = [
        gauge("build_info", "Version of the server.", 1, { version: services.version }),
        gauge("start_time_seconds", "Start of the server since the Unix epoch.", services.startedAt.getTime() / 1000),
      ];
      const text = [...own, ...services.metrics()].map(metricText).join("") + requests.text();
      return c.text(text, 200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" });
    },
  );
}

function gauge(name: string, help: string, value: number, labels?: Record<string, string>): Metric {
  return { name, help, type: "gauge", samples: [labels === undefined ? { value } : { labels, value }] };
}

/** One metric as text. */
export function metricText(metric: Metric): string {
  const name = `tuckerd_${metric.name}`;
  const help = metric.help.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
  const samples = metric.samples.map((sample) => {
    const inside = labels(sample.labels ?? {});
    return `${name}${inside === "" ? "" : `{${inside}}`} ${numberText(sample.value)}\n`;
  });
  return `# HELP ${name} ${help}\n# TYPE ${name} ${metric.type}\n${samples.join("")}`;
}

function histogramLines(key: string, histogram: Histogram): string[] {
  const name = "tuckerd_http_request_duration_seconds";
  let cumulative = 0;
  const buckets = BUCKETS.map((bound, i) => {
    cumulative += histogram.counts[i]!;
    return `${name}_bucket{${key},le="${bound}"} ${cumulative}`;
  });
  return [
    ...buckets,
    `${name}_bucket{${key},le="+Inf"} ${histogram.count}`,
    `${name}_sum{${key}} ${histogram.sum}`,
    `${name}_count{${key}} ${histogram.count}`,
  ];
}

function labels(values: Readonly<Record<string, string>>): string {
  return Object.entries(values).map(([name, value]) => {
    const escaped = value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
    return `${name}="${escaped}"`;
  }).join(",");
}

function numberText(value: number): string {
  if (value === Infinity) return "+Inf";
  return value === -Infinity ? "-Inf" : String(value);
}
