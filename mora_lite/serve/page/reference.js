// The HTTP interface, as openapi.json describes it, with a command to try for each path.
const place = document.getElementById("paths");

function node(tag, text, css = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (css) element.className = css;
  return element;
}

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
place.replaceChildren();
for (const [path, methods] of Object.entries(described.paths)) {
  for (const [method, one] of Object.entries(methods)) {
    const card = node("section", "", "card");
    const title = node("h3", "");
    title.append(node("code", `${method.toUpperCase()} ${path}`));
    card.append(title, node("p", one.description || one.summary, "soft"));
    for (const parameter of (one.parameters || []).filter((part) => part.in === "query")) {
      const line = node("p", "", "soft");
      line.append(node("code", parameter.name), ` ${parameter.description || parameter.schema.description || ""}`);
      card.append(line);
    }
    card.append(node("pre", command(method, path, one, schemas)));
    place.append(card);
  }
}
