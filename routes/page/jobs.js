/**
 * Applying ranks: start a job, watch it, cancel it.
 *
 * @module
 */
import { call, events } from "./api.js";
import { byId, percent } from "./dom.js";

/** @type {string | null} */
let current = null;

/**
 * Sets up cancelling.
 *
 * @param {(problem: Error) => void} failed
 */
export function setUpJobs(failed) {
  byId("cancel").addEventListener("click", () => {
    if (current !== null) call(`/v1/compression/jobs/${current}`, { method: "DELETE", admin: true }).catch(failed);
  });
}

/**
 * Starts a job and follows it to its end.
 *
 * @param {unknown} request
 * @returns {Promise<any>} The final job.
 * @throws {Problem}
 */
export async function apply(request) {
  const started = await call("/v1/compression", { method: "POST", body: request, admin: true });
  const { id } = started.data;
  current = id;
  byId("cancel").hidden = false;
  byId("job").hidden = false;
  byId("job-detail").textContent = "";
  let job = started.data;
  show(job);
  try {
    for await (const { event, data } of events(`/v1/compression/jobs/${id}/events`)) {
      if (event === "state") show(job = data);
      else byId("job-detail").textContent = `Layer ${data.layer}: relative error ${percent(data.relativeError)}`;
    }
  } finally {
    current = null;
    byId("cancel").hidden = true;
  }
  return job;
}

function show(job) {
  const { done, total } = job.layers;
  const titles = {
    queued: "Waiting",
    running: `Decomposing: ${done} of ${total} layers`,
    succeeded: `Generation ${job.generation} serves`,
    failed: "Failed; the old generation serves on",
    cancelled: "Cancelled; the old generation serves on",
  };
  byId("job-title").textContent = titles[job.state];
  byId("job-progress").value = job.progress;
  if (job.error) byId("job-detail").textContent = job.error.detail;
  if (job.report) byId("job-detail").textContent = `Done in ${job.report.totals.seconds.toFixed(2)} s`;
}
