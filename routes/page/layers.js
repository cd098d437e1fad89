/**
 * The table of layers: what serves, what the chosen ranks would give, and ranks of single layers.
 *
 * @module
 */
import { byId, element, percent, ratio } from "./dom.js";
import { setting } from "./sliders.js";

/** Layers with a setting of their own: layer number to `{ ranks }` or `{ skip: true }`. */
export const overrides = new Map();
/** Those of `overrides` that only repeat what serves: moving a common slider lets go of them. */
const inherited = new Set();

/** Sets single layers to what serves, wherever it isn't the common ranks. */
export function inheritRanks(layers, common) {
  overrides.clear();
  inherited.clear();
  for (const { layer, ranks } of layers) {
    if (JSON.stringify(ranks) === JSON.stringify(common)) continue;
    overrides.set(String(layer), ranks === null ? { skip: true } : { ranks: [...ranks] });
    inherited.add(String(layer));
  }
}

/** Puts the layers that only repeat what serves back under the common setting, uncompressed ones apart. */
export function releaseInherited() {
  for (const layer of inherited) {
    if (overrides.get(layer)?.skip) continue;
    overrides.delete(layer);
    const row = byId("layers").querySelector(`[data-layer="${layer}"]`);
    row.querySelector("select").value = "common";
    row.querySelector(".own .own").hidden = true;
  }
  inherited.clear();
}

/**
 * @param {any} report
 * @param {() => void} changed
 */
export function showLayers(report, changed) {
  const worst = Math.max(0.01, ...report.layers.map((layer) => layer.relativeError));
  byId("layers").replaceChildren(...report.layers.map((layer) =>
    element(
      "tr",
      { "data-layer": layer.layer },
      element(
        "th",
        { scope: "row", title: layer.name },
        String(layer.layer),
        element("small", {}, shortName(layer.name)),
      ),
      element("td", {}, layer.ranks ? layer.ranks.join(" · ") : "as it was"),
      element("td", { class: "number" }, ratio(layer.compressionRatio)),
      element("td", {}, errorCell(layer.relativeError, worst)),
      ...["q", "k", "v", "o"].map((name) => element("td", { class: "number" }, percent(layer.matrixErrors[name]))),
      element("td", {}, ownRanks(layer, changed)),
    )
  ));
  const skipped = byId("skipped");
  skipped.hidden = report.skipped.length === 0;
  skipped.querySelector("summary").textContent = `${report.skipped.length} attention operators left as they are`;
  skipped.querySelector("ul").replaceChildren(
    ...report.skipped.map((one) =>
      element("li", {}, element("code", {}, one.node), ` (${one.operator}): ${one.reason}`)
    ),
  );
}

/**
 * Outlines on each bar what a preview says.
 *
 * @param {any | null} preview
 */
export function showPreviewOnLayers(preview) {
  const byLayer = new Map((preview?.layers ?? []).map((layer) => [String(layer.layer), layer]));
  const rows = [...byId("layers").children];
  const worst = Math.max(
    ...rows.map((row) => Number(row.querySelector(".error-bar").dataset.error)),
    0.01,
    ...[...byLayer.values()].map((layer) => layer.relativeError),
  );
  for (const row of rows) {
    const next = byLayer.get(row.dataset.layer);
    const bar = row.querySelector(".error-bar");
    bar.firstChild.style.width = `${(Number(bar.dataset.error) / worst) * 100}%`;
    bar.lastChild.hidden = !next;
    if (next) bar.lastChild.style.width = `${(next.relativeError / worst) * 100}%`;
    row.querySelector(".next").textContent = next ? ` → ${percent(next.relativeError)}` : "";
  }
}

function errorCell(error, worst) {
  const bar = element(
    "span",
    { class: "error-bar", "aria-hidden": "true", "data-error": error },
    element("i"),
    element("b", { hidden: true }),
  );
  bar.firstChild.style.width = `${(error / worst) * 100}%`;
  const cell = element("div", {}, bar, element("span", {}, percent(error)), element("span", { class: "next quiet" }));
  return cell;
}

/** Hugging Face's exports name a layer by a long path; its last parts tell layers apart. */
function shortName(/** @type {string} */ name) {
  const parts = name.split(/[./]/).filter((part) => part !== "");
  return parts.length > 3 ? `… ${parts.slice(-3).join(".")}` : parts.join(".");
}

function ownRanks(layer, changed) {
  const number = String(layer.layer);
  const fields = ["hidden", "head", "stack"].map((mode, axis) =>
    element("input", {
      type: "number",
      min: 1,
      "aria-label": `Layer ${number}, ${mode} rank`,
      oninput: () => {
        const ranks = fields.map((field) => Math.max(1, Math.round(Number(field.value)) || 1));
        inherited.delete(number);
        overrides.set(number, { ranks });
        changed();
      },
      value: (overrides.get(number)?.ranks ?? layer.ranks ?? setting.ranks)[axis],
    })
  );
  const inputs = element("span", { class: "own", hidden: !overrides.get(number)?.ranks }, ...fields);
  const chosen = overrides.get(number)?.skip ? "skip" : overrides.has(number) ? "own" : "common";
  const choice = element(
    "select",
    {
      "aria-label": `Layer ${number}, next time`,
      onchange: () => {
        inputs.hidden = choice.value !== "own";
        inherited.delete(number);
        if (choice.value === "common") overrides.delete(number);
        else if (choice.value === "skip") overrides.set(number, { skip: true });
        else overrides.set(number, { ranks: fields.map((field) => Number(field.value)) });
        changed();
      },
    },
    ...[["common", "As above"], ["own", "Own ranks"], ["skip", "Uncompressed"]].map(([value, text]) =>
      element("option", { value, selected: value === chosen }, text)
    ),
  );
  return element("div", { class: "own" }, choice, inputs);
}
