// The sketcher in its own frame: it takes a SMILES from the page, and tells it each change.
let editor = null, wanted = "";

/** Tell what somebody has drawn. What the page gave is no change, though the sketcher may write it otherwise. */
function tell(event) {
  if (event.origin !== "API") parent.postMessage({ smiles: editor.smiles() }, location.origin);
}

/** Called by JSME when it is loaded. */
function jsmeOnLoad() {
  editor = new JSApplet.JSME("editor", "100%", "100%", { options: "newlook,nocanonize,nopaste" });
  editor.setCallBack("AfterStructureModified", tell);
  if (wanted) editor.readGenericMolecularInput(wanted);
}

addEventListener("message", (event) => {
  if (event.source !== parent || event.origin !== location.origin || !event.data || typeof event.data.draw !== "string") return;
  wanted = event.data.draw;
  if (editor && wanted && wanted !== editor.smiles()) editor.readGenericMolecularInput(wanted);
});
parent.postMessage({ ready: true }, location.origin);
