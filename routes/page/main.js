/**
 * The page: what serves, what other ranks would do, and the way from one to the other.
 *
 * @module
 */
import { call } from "./api.js";
import { setUpAsking } from "./ask.js";
import { byId, bytes, element, integer, percent, ratio } from "./dom.js";
import { showGenerations } from "./generations.js";
import { apply, setUpJobs } from "./jobs.js";
import { inheritRanks, overrides, releaseInherited, showLayers, showPreviewOnLayers } from "./layers.js";
import { setting, showSliders, targetOfSetting } from "./sliders.js";

/** Quiet time after the last change before a preview is asked for. */
const PREVIEW_DELAY = 150;

let report = null;
let spectrum = null;
let previewTimer = 0;
/** @type {AbortController} */
let previewing = new AbortController();

function notify(problem) {
  const needsKey = problem?.status === 401 || problem?.status === 403;
  byId("notice").textContent = problem
    ? problem.message + (needsKey ? ". Keys go in at the end of this page." : "")
    : "";
  byId("notice").hidden = !problem;
  if (needsKey) byId("keys").open = true;
}

/** Waits until the model serves, showing how far it is. */
async function untilReady() {
  for (;;) {
    const response = await fetch("/health/ready").catch(() => null);
    const health = await response?.json().catch(() => null);
    const state = health?.state ?? "unreachable";
    byId("state").textContent = state === "ready" || !health
      ? state
      : `${state} ${Math.floor((health.progress ?? 0) * 100)}%`;
    byId("state").className = `badge ${
      state === "ready" ? "good" : state === "failed" || state === "unreachable" ? "bad" : ""
    }`;
    if (state === "ready") return notify(null);
    if (state === "failed") notify(new Error(health.detail));
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

/** Loads the report and the generations, and shows both. */
async function refresh() {
  const [reported, held] = await Promise.all([call("/v1/compression"), call("/v1/generations")]);
  report = reported.data;
  byId("serving").hidden = false;
  byId("serving").textContent = `generation ${report.generation}`;
  showTotals();
  showLayers(report, changed);
  showGenerations(held.data.generations, (action) => {
    action.then(refresh).then(resetRanks).catch(notify);
  });
}

function showTotals() {
  const { totals, layers, devices } = report;
  const errors = layers.map((layer) => layer.relativeError);
  const mean = errors.reduce((sum, error) => sum + error, 0) / (errors.length || 1);
  const { before, after } = totals.kvBytesPerToken;
  const tiles = [
    ["Compression ratio", ratio(totals.compressionRatio), "of the attention weights"],
    ["Parameters", integer(totals.compressedParameters), `from ${integer(totals.attentionParameters)}`],
    ["All weights", bytes(totals.weightBytes.after), `from ${bytes(totals.weightBytes.before)}`],
    ["Mean relative error", percent(mean), `worst ${percent(Math.max(0, ...errors))}`],
    ...(before > 0 ? [["Cache per token", bytes(after), `from ${bytes(before)}`]] : []),
  ];
  byId("totals").replaceChildren(
    ...tiles.map(([name, value, detail]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, value, element("small", {}, detail)))
    ),
  );
  byId("devices").textContent =
    `${report.mode}${
      report.algorithm === "hosvd" ? " (sliced HOSVD)" : ""
    }, layout ${report.layout}, ${report.execution}. Decomposed on ${devices.tucker.backend} ` +
    `(${devices.tucker.adapter}) in ${totals.seconds.toFixed(2)} s, inference by ${devices.inference.provider}.`;
}

/** Sets the controls to what serves. */
function resetRanks() {
  const first = report.layers.find((layer) => layer.ranks !== null);
  if (first) setting.ranks = [...first.ranks];
  inheritRanks(report.layers, setting.ranks);
  showLayers(report, changed);
  showSliders(spectrum, slid);
  changed();
}

function request() {
  const own = Object.fromEntries(overrides);
  return { ...targetOfSetting(), ...(overrides.size > 0 ? { overrides: own } : {}) };
}

/** The common setting moved: layers that only repeat what serves follow it. */
function slid() {
  releaseInherited();
  changed();
}

/** Asks for a preview a moment after the last change. */
function changed() {
  clearTimeout(previewTimer);
  previewing.abort();
  byId("preview").classList.add("stale");
  previewTimer = setTimeout(preview, PREVIEW_DELAY);
}

async function preview() {
  const box = byId("preview");
  const { signal } = previewing = new AbortController();
  try {
    const { data } = await call("/v1/compression/preview", { method: "POST", body: request(), signal });
    const errors = data.layers.map((layer) => layer.relativeError);
    const mean = errors.reduce((sum, error) => sum + error, 0) / (errors.length || 1);
    box.replaceChildren(
      element("strong", {}, ratio(data.totals.compressionRatio)),
      ` · ${integer(data.totals.compressedParameters)} parameters · mean error at most ${percent(mean)}`,
      element(
        "div",
        { class: "quiet" },
        `now ${ratio(report.totals.compressionRatio)} · ${integer(report.totals.compressedParameters)} parameters`,
      ),
    );
    showPreviewOnLayers(data);
    byId("apply").disabled = false;
  } catch (problem) {
    if (signal.aborted) return;
    box.replaceChildren(element("span", { class: "problem" }, problem.message));
    showPreviewOnLayers(null);
    byId("apply").disabled = true;
  }
  box.classList.remove("stale");
}

function setUpRanks() {
  for (const radio of document.querySelectorAll('input[name="target"]')) {
    radio.addEventListener("change", () => {
      setting.target = radio.value;
      showSliders(spectrum, slid);
      slid();
    });
  }
  byId("reset").addEventListener("click", resetRanks);
  byId("ranks").addEventListener("submit", async (event) => {
    event.preventDefault();
    byId("apply").disabled = true;
    notify(null);
    try {
      await apply(request());
      await refresh();
      changed();
    } catch (problem) {
      notify(problem);
    } finally {
      byId("apply").disabled = false;
    }
  });
}

function setUpKeys() {
  for (const id of ["api-key", "admin-key"]) {
    byId(id).value = sessionStorage.getItem(id) ?? "";
    byId(id).addEventListener("change", () => {
      sessionStorage.setItem(id, byId(id).value);
      start();
    });
  }
}

async function start() {
  try {
    await untilReady();
    const { data } = await call("/info");
    byId("model").textContent = `${data.model.id} · ${data.model.architecture} · ${data.model.task}`;
    await refresh();
    spectrum = await call("/v1/compression/spectrum").then(({ data }) => data, () => null); // sliders do without
    resetRanks();
  } catch (problem) {
    notify(problem);
  }
}

setUpAsking();
setUpRanks();
setUpJobs(notify);
setUpKeys();
start();
