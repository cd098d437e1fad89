/**
 * Small helpers for the document and for numbers.
 *
 * @module
 */

/**
 * The element with an id.
 *
 * @param {string} id
 * @returns {any}
 */
export function byId(id) {
  return document.getElementById(id);
}

/**
 * Makes an element. Children that are null, undefined or false are left out; text is never read as HTML.
 *
 * @param {string} tag
 * @param {Record<string, unknown>} attributes `on…` adds a listener, a boolean sets or leaves out the attribute.
 * @param {...(Node | string | null | undefined | false)} children
 * @returns {any}
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== undefined) made.setAttribute(name, String(value));
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** Text with `code` in it, as nodes. */
export function prose(/** @type {string} */ text) {
  return text.split("`").map((part, i) => i % 2 === 1 ? element("code", {}, part) : part);
}

const integers = new Intl.NumberFormat("en");

/** 147456 → 147,456 */
export const integer = (/** @type {number} */ value) => integers.format(value);

/** 4.1437 → 4.14× */
export const ratio = (/** @type {number} */ value) => `${value >= 100 ? value.toFixed(0) : value.toFixed(2)}×`;

/** 0.2134 → 21.3% */
export const percent = (/** @type {number} */ value) => `${(value * 100).toFixed(value < 0.001 && value > 0 ? 3 : 1)}%`;

/** 1048576 → 1.0 MiB */
export function bytes(/** @type {number} */ value) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}
