/**
 * JSON schemas for people: a tree of names, types and rules, and an example.
 *
 * @module
 */
import { element, prose } from "./dom.js";

/** Follows a `$ref` inside the document. */
export function resolve(document, value) {
  if (!value?.$ref) return value;
  return value.$ref.split("/").slice(1).reduce((node, part) => node?.[part], document);
}

/** The schema as something to unfold, under its name where it has one. */
export function schemaDetails(document, schema) {
  const name = schema.$ref?.split("/").pop();
  return element(
    "details",
    {},
    element("summary", {}, name ?? typeText(document, schema)),
    tree(document, schema, new Set()),
  );
}

/** An example: the one given, or one made from the types. */
export function exampleOf(document, schema) {
  const known = resolve(document, schema);
  if (known === undefined) return null;
  if (known.example !== undefined) return known.example;
  const choice = known.anyOf ?? known.oneOf;
  if (choice) return exampleOf(document, choice[0]);
  if (known.enum) return known.enum[0];
  if (known.const !== undefined) return known.const;
  if (known.properties) {
    const required = Object.entries(known.properties).filter(([name]) => known.required?.includes(name));
    return Object.fromEntries(required.map(([name, property]) => [name, exampleOf(document, property)]));
  }
  if (known.prefixItems) return known.prefixItems.map((item) => exampleOf(document, item));
  if (known.items) return [exampleOf(document, known.items)];
  const byType = {
    string: "text",
    integer: known.minimum ?? 1,
    number: known.minimum ?? 0.5,
    boolean: true,
    object: {},
    array: [],
  };
  return byType[[known.type].flat()[0]] ?? null;
}

function tree(document, schema, seen) {
  const known = resolve(document, schema);
  const name = schema.$ref?.split("/").pop();
  if (!known || (name && seen.has(name))) return element("p", { class: "quiet" }, name ?? "");
  const inside = new Set(seen).add(name);
  const items = known.items && resolve(document, known.items);
  const rows = [
    ...Object.entries(known.properties ?? {}).map(([property, inner]) =>
      row(document, { name: property, inner, required: known.required?.includes(property) }, inside)
    ),
    ...(items?.properties ? [row(document, { name: "each item", inner: known.items, required: false }, inside)] : []),
    ...(known.anyOf ?? known.oneOf ?? []).map((inner) =>
      row(document, { name: "either", inner, required: false }, inside)
    ),
    ...(typeof known.additionalProperties === "object" && Object.keys(known.additionalProperties).length > 0
      ? [row(document, { name: "each value", inner: known.additionalProperties, required: false }, inside)]
      : []),
  ];
  return element(
    "div",
    {},
    known.description && element("p", { class: "quiet" }, ...prose(known.description)),
    rows.length > 0 && element("ul", { class: "schema" }, ...rows),
  );
}

function row(document, { name, inner, required }, seen) {
  const known = resolve(document, inner) ?? {};
  const nested = known.properties || known.anyOf || known.oneOf || typeof known.additionalProperties === "object" ||
    resolve(document, known.items)?.properties;
  return element(
    "li",
    {},
    element("code", {}, name),
    " ",
    element("span", { class: "type" }, `${typeText(document, inner)}${ruleText(known)}`),
    " ",
    required && element("span", { class: "required" }, "required"),
    known.description && !nested && element("div", { class: "quiet" }, ...prose(known.description)),
    nested && tree(document, inner, seen),
  );
}

function typeText(document, schema) {
  const known = resolve(document, schema) ?? {};
  if (known.enum) return known.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (known.const !== undefined) return JSON.stringify(known.const);
  if (known.prefixItems) return `[${known.prefixItems.map((item) => typeText(document, item)).join(", ")}]`;
  if (known.items) return `${schema.$ref?.split("/").pop() ?? typeText(document, known.items)}[]`;
  if (known.anyOf || known.oneOf) {
    return (known.anyOf ?? known.oneOf).map((inner) => inner.$ref?.split("/").pop() ?? typeText(document, inner)).join(
      " or ",
    );
  }
  return [known.type].flat().filter(Boolean).join(" or ") || "anything";
}

function ruleText(known) {
  const rules = [
    known.minimum !== undefined && known.minimum > -(2 ** 53) + 1 && `≥ ${known.minimum}`,
    known.maximum !== undefined && known.maximum < 2 ** 53 - 1 && `≤ ${known.maximum}`,
    known.exclusiveMinimum !== undefined && `> ${known.exclusiveMinimum}`,
    known.exclusiveMaximum !== undefined && `< ${known.exclusiveMaximum}`,
    known.pattern && `matches ${known.pattern}`,
  ].filter(Boolean);
  return rules.length > 0 ? `, ${rules.join(", ")}` : "";
}
