/**
 * The generations held, and the two lists that pick from them.
 *
 * @module
 */
import { call } from "./api.js";
import { byId, element, percent, ratio } from "./dom.js";

/**
 * @param {any[]} generations
 * @param {(action: Promise<unknown>) => void} activated Is given each roll-back as it starts.
 */
export function showGenerations(generations, activated) {
  const newestFirst = [...generations].reverse();
  byId("generations").replaceChildren(...newestFirst.map((one) =>
    element(
      "tr",
      { class: one.active ? "active" : "" },
      element("th", { scope: "row", class: "number" }, String(one.generation)),
      element("td", {}, element("time", { datetime: one.createdAt }, new Date(one.createdAt).toLocaleString())),
      element("td", {}, one.mode),
      element("td", { class: "number" }, ratio(one.compressionRatio)),
      element("td", { class: "number" }, percent(one.meanRelativeError)),
      element(
        "td",
        {},
        one.active ? element("span", { class: "badge accent" }, "serving") : element("button", {
          type: "button",
          "aria-label": `Serve generation ${one.generation}`,
          onclick: () => activated(call(`/v1/generations/${one.generation}/activate`, { method: "POST", admin: true })),
        }, "Serve this"),
      ),
    )
  ));
  fill(byId("first-generation"), newestFirst, ["", "the serving one"]);
  fill(byId("second-generation"), newestFirst, ["none", "nothing"]);
}

/** Keeps what was chosen, as long as it is held. */
function fill(select, generations, [value, text]) {
  const chosen = select.value;
  select.replaceChildren(
    element("option", { value }, text),
    ...generations.map((one) =>
      element("option", { value: one.generation }, `${one.generation} (${ratio(one.compressionRatio)})`)
    ),
  );
  if ([...select.options].some((option) => option.value === chosen)) select.value = chosen;
}
