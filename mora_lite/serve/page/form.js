// The form, which takes a text or a file. Also of the page that `export --web` writes.
import { byId } from "./elements.js";

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
    if (file) giveFile(file);
    event.target.value = "";
  });
  for (const button of document.querySelectorAll("[data-smiles]")) {
    button.addEventListener("click", () => { byId("smiles").value = button.dataset.smiles; submit(); });
  }
  listenToDrops(giveFile);
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
    const [file] = event.dataTransfer.files;
    if (file) giveFile(file);
  });
}
