/**
 * A curl line for a route, and a form that calls it.
 *
 * @module
 */
import { element } from "./dom.js";
import { exampleOf } from "./schema.js";

/** The curl line of a route, with its example. */
export function curlLine(document, { method, path, operation }) {
  const body = operation.requestBody?.content?.["application/json"]?.schema;
  const names = (operation.security ?? []).flatMap((entry) => Object.keys(entry));
  const filled = path.replace(/\{(\w+)\}/g, (_, name) => {
    const parameter = operation.parameters?.find((one) => one.name === name);
    return encodeURIComponent(exampleOf(document, parameter?.schema ?? {}) ?? name);
  });
  const streams = operation.responses["200"]?.content?.["text/event-stream"];
  return [
    `curl ${streams ? "-N " : ""}${method === "get" ? "" : `-X ${method.toUpperCase()} `}${location.origin}${filled}`,
    names.length > 0 &&
    `  -H "Authorization: Bearer ${names.includes("apiKey") ? "$TUCKERD_API_KEY" : "$TUCKERD_ADMIN_KEY"}"`,
    body && `  -H "Content-Type: application/json"`,
    body && `  -d '${JSON.stringify(exampleOf(document, body)).replaceAll("'", `'\\''`)}'`,
  ].filter(Boolean).join(" \\\n");
}

/** A form with a field for each parameter and the body; sending shows the answer below. */
export function tryForm(document, { method, path, operation, parameters }) {
  const schema = operation.requestBody?.content?.["application/json"]?.schema;
  const fields = parameters.map((parameter) => ({
    parameter,
    input: element("input", {
      required: parameter.required ?? false,
      value: parameter.required ? exampleOf(document, parameter.schema) ?? "" : "",
      placeholder: String(exampleOf(document, parameter.schema) ?? ""),
    }),
  }));
  const body = schema && element("textarea", { rows: 8, spellcheck: "false", "aria-label": "Body" });
  if (body) body.value = JSON.stringify(exampleOf(document, schema), null, 2);
  const output = element("pre", { hidden: true, "aria-live": "polite" });
  const form = element(
    "form",
    {
      class: "try",
      onsubmit: (event) => {
        event.preventDefault();
        submit({ method, path, operation, fields, body, output });
      },
    },
    ...fields.map(({ parameter, input }) => element("label", {}, `${parameter.name} (${parameter.in})`, input)),
    body ?? null,
    element("div", { class: "row" }, element("button", { type: "submit" }, "Send")),
    output,
  );
  return element("details", {}, element("summary", { class: "strong" }, "Try it"), form);
}

async function submit({ method, path, operation, fields, body, output }) {
  const values = fields.filter(({ input }) => input.value !== "").map(({ parameter, input }) => ({
    ...parameter,
    value: input.value,
  }));
  const filled = values.filter((one) => one.in === "path").reduce(
    (text, one) => text.replace(`{${one.name}}`, encodeURIComponent(one.value)),
    path,
  );
  const query = new URLSearchParams(values.filter((one) => one.in === "query").map((one) => [one.name, one.value]));
  const headers = Object.fromEntries(values.filter((one) => one.in === "header").map((one) => [one.name, one.value]));
  const names = (operation.security ?? []).flatMap((entry) => Object.keys(entry));
  const key = (names.includes("apiKey") && sessionStorage.getItem("api-key")) ||
    (names.length > 0 && sessionStorage.getItem("admin-key"));
  if (key) headers.authorization = `Bearer ${key}`;
  if (body) headers["content-type"] = "application/json";
  output.hidden = false;
  output.textContent = "…";
  const started = performance.now();
  try {
    const response = await fetch(filled + (query.size > 0 ? `?${query}` : ""), {
      method: method.toUpperCase(),
      headers,
      ...(body ? { body: body.value } : {}),
    });
    const milliseconds = (performance.now() - started).toFixed(1);
    output.textContent = `${response.status} ${response.statusText} in ${milliseconds} ms\n${
      [...response.headers].map(([name, value]) => `${name}: ${value}`).join("\n")
    }\n\n`;
    const decoder = new TextDecoder();
    const reader = response.body.getReader();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      text += decoder.decode(value, { stream: true });
      output.lastChild.textContent = output.lastChild.textContent.split("\n\n")[0] + "\n\n" + text;
    }
    if (response.headers.get("content-type")?.includes("json")) {
      output.textContent = output.textContent.split("\n\n")[0] + "\n\n" + JSON.stringify(JSON.parse(text), null, 2);
    }
  } catch (error) {
    output.textContent = `The server can't be reached: ${error.message}`;
  }
}
