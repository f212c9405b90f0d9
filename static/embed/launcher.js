// The launcher's page. It lists the apps of a workspace, and opens each in a frame of its own, as a host page does with
// embed.js. The app's frame gets a session of that app, never the launcher's. The page passes the app's events on to
// the host page.
(() => {
  "use strict";

  // The page around the launcher may allow less: the stricter of two sandboxes counts.
  const SANDBOX = [
    "allow-scripts allow-same-origin allow-forms allow-downloads allow-popups allow-popups-to-escape-sandbox",
    "allow-modals allow-top-navigation-by-user-activation",
  ].join(" ");
  const ALLOW = "camera; microphone; geolocation; clipboard-write; fullscreen";
  const OWN = /^(ready|waiting|resize|session:(expiring|renewed|expired))$/; // events of the app's frame that only this page needs
  const PASSED_ON = /^(loaded|navigate|session:revoked)$/;

  const { embed } = window;
  const { exchange, emit, report, panel, focus, onSend, isOpen } = window.embedLauncher;
  const [list, opened] = ["launcher-apps", "launcher-app"].map((id) => document.getElementById(id));
  const [place, placeholder] = ["launcher-frame", "launcher-opening"].map((id) => document.getElementById(id));
  const ownTitle = document.title;
  let tag = null; // the <pat-embed> of the open app
  let button = null; // the button of that app

  function open(pressed) {
    button = pressed;
    tag?.remove();
    tag = document.createElement("pat-embed");
    const attributes = { app: button.name, theme: embed.theme, locale: embed.locale, sandbox: SANDBOX, allow: ALLOW };
    if (document.documentElement.hasAttribute("data-auto-height")) attributes["auto-height"] = "";
    for (const [name, value] of Object.entries(attributes)) tag.setAttribute(name, value);
    const id = button.value;
    tag.fetchToken = () => fetchCode(id);
    list.hidden = true;
    opened.hidden = false;
    tag.append(placeholder);
    opened.setAttribute("aria-label", button.querySelector(".launch-name").textContent);
    place.replaceChildren(tag);
    tag.frame.options.onEvent = hear.bind(null, tag);
    focus(opened);
  }

  // Resolve to the answer of a mint, with a code in place of the token.
  async function fetchCode(id) {
    try {
      const { code, url } = await exchange(id);
      return { redirectUrl: new URL(url, location.href).href, personalAccessToken: code, singleUse: true };
    } catch (found) {
      throw new PatEmbed.PatEmbedError(found.code ?? "unknown", found.detail ?? found.message, found);
    }
  }

  let passed = Promise.resolve(true); // events pass in their order

  async function hear(sender, name, data) {
    // An app ends with its launcher, which then reports that itself.
    if (name === "session:revoked") passed = isOpen();
    const open = await passed;
    if (sender !== tag || !open) return;
    if (name === "error") {
      const found = { ...data, detail: data.message };
      report(found);
      if (!tag.frame.iframe) place.replaceChildren(panel(found, () => open(button), true));
    } else if (PASSED_ON.test(name)) {
      if (data.title) document.title = data.title;
      emit(name, data);
    } else if (!OWN.test(name)) embed.send(name, data);
  }

  function close() {
    tag.remove();
    tag = null;
    opened.hidden = true;
    list.hidden = false;
    document.title = ownTitle;
    const { workspace } = embed.viewer;
    emit("loaded", { app: null, workspace, title: ownTitle, lacking: [] });
    button.focus();
  }

  list.addEventListener("click", ({ target }) => {
    const pressed = target.closest("button");
    if (pressed) open(pressed);
  });
  document.getElementById("launcher-back").addEventListener("click", close);
  embed.on("embed:theme", (theme) => tag?.frame?.setTheme(theme));
  embed.on("embed:locale", (locale) => tag?.frame?.setLocale(locale));
  onSend((name, data) => tag?.frame?.send(name, data));
})();
