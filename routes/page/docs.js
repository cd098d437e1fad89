/**
 * Renders /openapi.json: every route with its parameters, schemas, answers, a curl line, and a form to try it.
 *
 * @module
 */
import { byId, element, prose } from "./dom.js";
import { exampleOf, resolve, schemaDetails } from "./schema.js";
import { curlLine, tryForm } from "./try.js";

const METHODS = ["get", "post", "put", "patch", "delete"];

function anchor(method, path) {
  return `${method}${path.replace(/[^A-Za-z0-9]+/g, "-").replace(/-$/, "")}`;
}

function routesByTag(document) {
  const routes = Object.entries(document.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => ({ method, path, operation: item[method] }))
  );
  return document.tags.map((tag) => ({
    tag,
    routes: routes.filter((route) => route.operation.tags?.includes(tag.name)),
  }))
    .filter(({ routes }) => routes.length > 0);
}

function contents(groups) {
  return groups.flatMap(({ tag, routes }) => [
    element("h2", {}, tag.name),
    ...routes.map(({ method, path }) =>
      element(
        "a",
        { href: `#${anchor(method, path)}` },
        element("span", { class: `method ${method}` }, method.toUpperCase()),
        element("span", {}, ...breakable(path)),
      )
    ),
  ]).concat(element("h2", {}, "More"), element("a", { href: "#problems-title" }, "Problems"));
}

/** A path that may break after its slashes. */
function breakable(/** @type {string} */ path) {
  return path.split(/(?<=\/)(?=.)/).flatMap((part) => [part, element("wbr")]);
}

function section(document, { tag, routes }) {
  return element(
    "section",
    {},
    element("div", {}, element("h2", {}, tag.name), element("p", { class: "quiet" }, tag.description)),
    ...routes.map((route) => routeCard(document, route)),
  );
}

function routeCard(document, route) {
  const { method, path, operation } = route;
  const parameters = (operation.parameters ?? []).map((parameter) => resolve(document, parameter));
  const body = operation.requestBody?.content?.["application/json"]?.schema;
  const answers = Object.entries(operation.responses);
  const good = answers.filter(([status]) => status < "400");
  const bad = answers.filter(([status]) => status >= "400");
  return element(
    "article",
    { class: "card route", id: anchor(method, path) },
    element(
      "h3",
      {},
      element("span", { class: `method ${method}` }, method.toUpperCase()),
      element("code", {}, path),
      element("span", {}, operation.summary ?? ""),
    ),
    operation.description && element("p", {}, ...prose(operation.description)),
    element("p", { class: "quiet" }, keyText(operation)),
    parameters.length > 0 && element("h4", {}, "Parameters"),
    parameters.length > 0 && element(
      "ul",
      { class: "schema" },
      ...parameters.map((parameter) =>
        element(
          "li",
          {},
          element("code", {}, parameter.name),
          ` in ${parameter.in} `,
          parameter.required && element("span", { class: "required" }, "required "),
          ...prose(parameter.description ?? parameter.schema?.description ?? ""),
        )
      ),
    ),
    body && element("h4", {}, "Body"),
    body && schemaDetails(document, body),
    body && element("pre", {}, JSON.stringify(exampleOf(document, body), null, 2)),
    element("pre", {}, curlLine(document, route)),
    tryForm(document, { ...route, parameters }),
    element("h4", {}, "Answers"),
    ...good.map(([status, answer]) => answerDetails(document, status, answer)),
    element(
      "details",
      { class: "errors" },
      element("summary", {}, "Errors ", element("span", { class: "status" }, bad.map(([status]) => status).join(" "))),
      ...bad.map(([status, answer]) => answerDetails(document, status, answer)),
    ),
  );
}

function answerDetails(document, status, answer) {
  const [type, content] = Object.entries(answer.content ?? {})[0] ?? [];
  const headers = Object.entries(answer.headers ?? {});
  return element(
    "details",
    {},
    element("summary", {}, element("span", { class: "status" }, status), " ", ...prose(answer.description)),
    type && element("p", { class: "quiet" }, type),
    headers.length > 0 && element(
      "ul",
      { class: "schema" },
      ...headers.map(([name, header]) =>
        element("li", {}, element("code", {}, name), ` header: ${header.description ?? ""}`)
      ),
    ),
    content?.schema && schemaDetails(document, content.schema),
    status.startsWith("2") && content?.schema && element("pre", {}, exampleText(document, content.schema)),
  );
}

function exampleText(document, schema) {
  const example = exampleOf(document, schema);
  return typeof example === "string" ? example : JSON.stringify(example, null, 2);
}

function keyText(operation) {
  const names = (operation.security ?? []).flatMap((entry) => Object.keys(entry));
  if (names.length === 0) return "Open to everyone.";
  return names.includes("apiKey")
    ? "Takes the inference or the administration key, where the server has one."
    : "Takes the administration key.";
}

function problems(document) {
  return Object.entries(document["x-problems"]).flatMap(([name, { status, title, meaning }]) => [
    element("dt", { id: `problem-${name}` }, element("span", { class: "status" }, String(status)), ` ${title}`),
    element("dd", {}, ...prose(meaning)),
  ]);
}

async function start() {
  const response = await fetch("/openapi.json");
  const document = await response.json();
  const groups = routesByTag(document);
  byId("version").textContent = `version ${document.info.version}, OpenAPI ${document.openapi}`;
  byId("description").replaceChildren(...prose(document.info.description));
  byId("contents").replaceChildren(...contents(groups));
  byId("routes").replaceChildren(...groups.map((group) => section(document, group)));
  byId("problems").replaceChildren(...problems(document));
  for (const id of ["api-key", "admin-key"]) {
    byId(id).value = sessionStorage.getItem(id) ?? "";
    byId(id).addEventListener("change", () => sessionStorage.setItem(id, byId(id).value));
  }
  if (location.hash) byId(location.hash.slice(1))?.scrollIntoView();
}

start().catch(() => {
  byId("notice").textContent = "The description can't be loaded; is the server still there?";
  byId("notice").hidden = false;
});
