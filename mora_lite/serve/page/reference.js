// The HTTP interface, as openapi.json describes it, with a command to try for each path.
import { byId, el } from "./elements.js";

function example(schema, all) {
  if (schema.$ref) return example(all[schema.$ref.split("/").pop()], all);
  if (schema.examples) return schema.examples[0];
  if ("default" in schema) return schema.default;
  if (schema.type === "object") return Object.fromEntries(Object.entries(schema.properties || {}).map(([name, part]) => [name, example(part, all)]));
  return schema.type === "array" ? [] : "";
}

function command(method, path, one, all) {
  const url = new URL(path.slice(1).replace("{number}", "ID"), location);
  const content = one.requestBody ? one.requestBody.content : {};
  if (content["application/json"]) {
    const body = JSON.stringify(example(content["application/json"].schema, all)).replaceAll("'", "'\\''");
    return `curl ${url} \\\n  -H 'Content-Type: application/json' -d '${body}'`;
  }
  if (content["application/octet-stream"]) return `curl '${url}?name=molecules.csv' \\\n  -H 'Content-Type: application/octet-stream' --data-binary @molecules.csv`;
  return method === "get" ? `curl ${url}` : `curl -X ${method.toUpperCase()} ${url}`;
}

const described = await (await fetch("openapi.json")).json();
const schemas = (described.components || {}).schemas || {};
byId("paths").replaceChildren(...Object.entries(described.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, one]) => el("section", { class: "card" },
    el("h3", {}, el("code", {}, `${method.toUpperCase()} ${path}`)), el("p", { class: "soft" }, one.description || one.summary),
    (one.parameters || []).filter((part) => part.in === "query").map((parameter) =>
      el("p", { class: "soft" }, el("code", {}, parameter.name), ` ${parameter.description || parameter.schema.description || ""}`)),
    el("pre", {}, command(method, path, one, schemas))))));
