// The form, which takes a text or a file. Also of the page that `export --web` writes.
import { byId, say } from "./elements.js";

/** Call `submit()` when the text is entered, and `giveFile(file)` for a file that is opened or dropped anywhere. */
export function listenToForm(submit, giveFile) {
  byId("form").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
  byId("smiles").addEventListener("keydown", (event) => {
    const isMany = byId("smiles").value.includes("\n");
    if (event.key === "Enter" && !event.isComposing && (event.ctrlKey || event.metaKey || (!event.shiftKey && !isMany))) {
      event.preventDefault();
      submit();
    }
  });
  byId("open").addEventListener("click", () => byId("file").click());
  byId("file").addEventListener("change", (event) => {
    const [file] = event.target.files;
    if (file) give(file);
    event.target.value = "";
  });
  for (const button of document.querySelectorAll("[data-smiles]")) {
    button.addEventListener("click", () => { byId("smiles").value = button.dataset.smiles; submit(); });
  }
  listenToDrops(give);

  async function give(file) {
    try {
      await file.slice(0, 1).arrayBuffer();
    } catch {
      return say(`${file.name} cannot be read: is it a folder, or open in another program?`, true);
    }
    giveFile(file);
  }
}

function listenToDrops(giveFile) {
  let depth = 0;
  const hasFile = (event) => event.dataTransfer && [...event.dataTransfer.types].includes("Files");
  document.addEventListener("dragenter", (event) => { if (hasFile(event)) { depth++; byId("drop").hidden = false; } });
  document.addEventListener("dragleave", (event) => { if (hasFile(event) && --depth <= 0) byId("drop").hidden = true; });
  document.addEventListener("dragover", (event) => { if (hasFile(event)) event.preventDefault(); });
  document.addEventListener("drop", (event) => {
    if (!hasFile(event)) return;
    event.preventDefault();
    depth = 0;
    byId("drop").hidden = true;
    const [file, ...others] = event.dataTransfer.files;
    if (others.length) say(`got ${others.length + 1} files, and one is taken at a time`, true);
    else if (file) giveFile(file);
  });
}
