/**
 * The three ways of saying how far to compress: ranks with the energy that each keeps, an energy, or a ratio.
 *
 * @module
 */
import { byId, element, percent } from "./dom.js";

const MODES = [
  { key: "hidden", axis: 0, label: "Hidden rank r1" },
  { key: "head", axis: 1, label: "Head rank r2" },
  { key: "stack", axis: 2, label: "Stack rank r3 (Q, K, V, O)" },
];
const SVG = "http://www.w3.org/2000/svg";

/** What the controls say, kept while the user turns between the three ways. */
export const setting = { target: "ranks", ranks: [1, 1, 1], energy: 0.9, compressionRatio: 4 };

/**
 * Shows the controls of the chosen target.
 *
 * @param {{ layers: any[] } | null} spectrum
 * @param {() => void} changed
 */
export function showSliders(spectrum, changed) {
  const sliders = {
    ranks: () => MODES.map((mode) => rankSlider(mode, spectrum, changed)),
    energy: () => [
      valueSlider({
        name: "energy",
        label: "Energy kept in each layer",
        min: 0.3,
        max: 1,
        step: 0.005,
        text: percent,
      }, changed),
    ],
    compressionRatio: () => [
      valueSlider({
        name: "compressionRatio",
        label: "Attention parameters, before to after",
        min: 1,
        max: 40,
        step: 0.25,
        text: (value) => `${value}×`,
      }, changed),
    ],
  };
  byId("sliders").replaceChildren(...sliders[setting.target]());
}

/** The part of a compression request that the controls say. */
export function targetOfSetting() {
  return { [setting.target]: setting[setting.target] };
}

function rankSlider({ key, axis, label }, spectrum, changed) {
  const max = Math.max(
    setting.ranks[axis],
    ...(spectrum?.layers ?? []).map((layer) => layer.shape[axis]),
  );
  const id = `rank-${key}`;
  const kept = keptEnergy(spectrum, key, max);
  const chart = kept && energyChart(kept);
  const keptText = element("span", { class: "quiet" });
  const range = element("input", { type: "range", id, min: 1, max, value: setting.ranks[axis] });
  const number = element("input", {
    type: "number",
    min: 1,
    max,
    value: setting.ranks[axis],
    "aria-label": `${label}, as a number`,
  });
  const show = () => {
    const rank = setting.ranks[axis];
    if (!kept) return;
    keptText.textContent = `alone keeps ${percent(kept[rank - 1])} of the energy`;
    chart.cut(rank);
  };
  const take = (/** @type {string} */ text) => {
    const rank = Math.min(max, Math.max(1, Math.round(Number(text)) || 1));
    setting.ranks[axis] = rank;
    range.value = String(rank);
    show();
    changed();
  };
  range.addEventListener("input", () => {
    number.value = range.value;
    take(range.value);
  });
  number.addEventListener("input", () => number.value && take(number.value));
  number.addEventListener("change", () => number.value = range.value);
  show();
  return element(
    "div",
    { class: "slider" },
    element("div", { class: "head" }, element("label", { for: id }, label), keptText),
    chart ? chart.svg : null,
    element("span"),
    range,
    number,
  );
}

function valueSlider({ name, label, min, max, step, text }, changed) {
  const value = element("strong", {}, text(setting[name]));
  const range = element("input", { type: "range", id: name, min, max, step, value: setting[name] });
  range.addEventListener("input", () => {
    setting[name] = Number(range.value);
    value.textContent = text(setting[name]);
    changed();
  });
  return element(
    "div",
    { class: "slider" },
    element("div", { class: "head" }, element("label", { for: name }, label)),
    range,
    value,
  );
}

/** Share of energy kept by the first 1, 2, … ranks of one mode, averaged over the layers. */
function keptEnergy(spectrum, key, max) {
  if (!spectrum || spectrum.layers.length === 0) return null;
  const curves = spectrum.layers.map((layer) => {
    const squares = layer.singularValues[key].map((value) => value * value);
    const total = squares.reduce((sum, value) => sum + value, 0) || 1;
    let sum = 0;
    return squares.map((value) => (sum += value) / total);
  });
  return Array.from({ length: max }, (_, i) => curves.reduce((sum, curve) => sum + (curve[i] ?? 1), 0) / curves.length);
}

/** Kept energy over rank, as wide as its slider; `cut` fills it up to a rank. */
function energyChart(/** @type {number[]} */ kept) {
  const count = kept.length;
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${count} 1`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const areaTo = (/** @type {number} */ rank) =>
    `M0 1${kept.slice(0, rank).map((value, i) => `L${i} ${1 - value}L${i + 1} ${1 - value}`).join("")}L${rank} 1Z`;
  const whole = document.createElementNS(SVG, "path");
  whole.setAttribute("class", "area");
  whole.setAttribute("d", areaTo(count));
  const part = document.createElementNS(SVG, "path");
  part.setAttribute("class", "kept");
  svg.append(whole, part);
  return { svg, cut: (/** @type {number} */ rank) => part.setAttribute("d", areaTo(rank)) };
}
