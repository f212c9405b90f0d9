"use strict";
// What the console's pages need beyond HTML: the sign-in link, dialogs, copy buttons, the narrow menu.
(() => {
  const SAID_FOR = 1600; // milliseconds

  /** @param {string} text */
  function say(text) {
    const status = document.getElementById("said");
    if (status) status.textContent = text;
  }

  // ---- The sign-in link ----

  /** Move the link's secret from the address into the form, so that no history keeps it. */
  function takeLink() {
    const form = /** @type {HTMLFormElement | null} */ (document.getElementById("link-form"));
    const link = new URLSearchParams(location.hash.slice(1)).get("link");
    if (!form || !link) return;
    history.replaceState(null, "", location.pathname + location.search);
    /** @type {HTMLInputElement} */ (form.elements.namedItem("link")).value = link;
    const who = readEmail(link);
    if (who) {
      const lead = /** @type {HTMLElement} */ (document.getElementById("link-who"));
      lead.textContent = `Your link signs you in once, as ${who}.`;
    }
    /** @type {HTMLElement} */ (document.getElementById("no-link")).hidden = true;
    form.hidden = false;
    /** @type {HTMLElement} */ (form.querySelector("button")).focus();
  }

  /** Return the email that a link names. Only the server checks it. @param {string} link */
  function readEmail(link) {
    try {
      const bytes = atob(link.split(".")[0].replace(/-/g, "+").replace(/_/g, "/"));
      const text = new TextDecoder().decode(Uint8Array.from(bytes, (byte) => byte.charCodeAt(0)));
      return String(JSON.parse(text).email).slice(0, 254);
    } catch {
      return "";
    }
  }

  // ---- Buttons ----

  /** @param {HTMLElement} button */
  async function copy(button) {
    const label = /** @type {HTMLElement} */ (button.querySelector("span"));
    const before = button.dataset.label ?? (button.dataset.label = label.textContent ?? "");
    try {
      await navigator.clipboard.writeText(button.dataset.copy ?? "");
      label.textContent = "Copied";
    } catch {
      // Without the permission, select the text, so that one key press copies it.
      const source = button.parentElement?.querySelector("code");
      if (source) getSelection()?.selectAllChildren(source);
      label.textContent = source ? "Selected" : "Not copied";
    }
    say(label.textContent);
    setTimeout(() => { label.textContent = before; }, SAID_FOR);
  }

  /** @type {Record<string, (button: HTMLElement, value: string) => void>} */
  const ACTIONS = {
    copy: (button) => { void copy(button); },
    opens: (_, id) => /** @type {HTMLDialogElement} */ (document.getElementById(id)).showModal(),
    closesDialog: (button) => button.closest("dialog")?.close(),
    closes: (button) => {
      button.closest("[data-toast]")?.remove();
      document.getElementById("main")?.focus();
    },
    toggles: (button, id) => {
      const open = /** @type {HTMLElement} */ (document.getElementById(id)).toggleAttribute("data-open");
      button.setAttribute("aria-expanded", String(open));
    },
  };

  document.addEventListener("click", (event) => {
    const button = /** @type {Element} */ (event.target).closest("button");
    for (const [name, act] of Object.entries(ACTIONS)) {
      const value = button?.dataset[name];
      if (button && value !== undefined) act(button, value);
    }
  });

  // ---- Rows to choose ----

  /** @param {string} [name] @returns {HTMLInputElement[]} */
  const picks = (name) => [.../** @type {NodeListOf<HTMLInputElement>} */ (
    document.querySelectorAll(name ? `.pick[name="${name}"]` : ".pick"))];

  /** Show the number of chosen rows in each text that names it: `data-counts="# row|# rows"`. */
  function countPicks() {
    const all = picks(), number = all.filter((pick) => pick.checked).length;
    for (const one of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-counts]"))) {
      const [single, many] = (one.dataset.counts ?? "|").split("|");
      const text = (number === 1 ? single : many).replace("#", String(number));
      one.textContent = number || one.role !== "status" ? text : "None selected";
    }
    for (const one of document.querySelectorAll("[data-needs-picks]")) {
      /** @type {HTMLButtonElement} */ (one).disabled = !number;
    }
    const head = /** @type {HTMLInputElement | null} */ (document.querySelector("[data-picks]"));
    if (head) {
      head.checked = number > 0 && number === all.length;
      head.indeterminate = number > 0 && number < all.length;
    }
  }

  document.addEventListener("change", (event) => {
    const box = /** @type {HTMLInputElement} */ (event.target);
    if (box.dataset.picks) for (const pick of picks(box.dataset.picks)) pick.checked = box.checked;
    if (box.dataset.picks || box.classList.contains("pick")) countPicks();
  });

  // One click sends a form once.
  document.addEventListener("submit", (event) => {
    const form = /** @type {HTMLFormElement} */ (event.target);
    if (form.method !== "post" || event.defaultPrevented) return;
    setTimeout(() => {
      for (const button of form.querySelectorAll("button")) button.disabled = true;
    });
  });
  // A page that the browser kept comes back as it was left.
  addEventListener("pageshow", () => {
    for (const button of document.querySelectorAll("form[method=post] button:disabled")) {
      /** @type {HTMLButtonElement} */ (button).disabled = false;
    }
  });

  // A refused partial update shows the whole page with its reason. htmx itself follows HX-Redirect.
  document.addEventListener("htmx:response:error", (event) => {
    const path = /** @type {any} */ (event).detail?.ctx?.request?.action;
    if (typeof path === "string" && path.startsWith("/")) location.assign(path);
  });

  takeLink();
  // The sign-in page may be open when the link is pasted into its address.
  addEventListener("hashchange", takeLink);
  /** @type {HTMLElement | null} */ (document.querySelector("[data-focus]"))?.focus();
})();
