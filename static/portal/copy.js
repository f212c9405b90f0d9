"use strict";
// Copy buttons: <button data-copy="id of the element whose text is copied">.
(() => {
  const SAID_FOR = 1600; // milliseconds

  async function copy(button) {
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
      say(button, "Copied");
    } catch {
      // Without the permission, select the text, so that one key press copies it.
      getSelection().selectAllChildren(source);
      say(button, "Selected");
    }
  }

  function say(button, text) {
    button.textContent = text;
    const status = document.getElementById("said");
    if (status) status.textContent = text;
    clearTimeout(button.timer);
    button.timer = setTimeout(() => { button.textContent = "Copy"; }, SAID_FOR);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-copy]");
    if (button) copy(button);
  });
})();
