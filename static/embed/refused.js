// Tells the page around the frame why the app did not open.
(() => {
  "use strict";

  const { problem, parents } = JSON.parse(document.getElementById("embed-refusal").textContent);
  if (window.parent === window) return;
  const { status: error, detail: message, code, requestId } = problem;
  for (const origin of parents) {
    try {
      window.parent.postMessage({ type: "TJ_EMBED_APP_LOGOUT", error, message, code, requestId }, origin);
    } catch {
      // Some browsers take no custom scheme for a target; the other origins are told all the same.
    }
  }
})();
