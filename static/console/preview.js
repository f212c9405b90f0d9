"use strict";
// The preview: the frame of an app, and its events. It speaks the protocol of embed.js (docs/host/embed-js.md), except
// that it has no token to give: a preview cannot be renewed.
(() => {
  const SANDBOX = "allow-scripts allow-same-origin allow-forms allow-downloads allow-modals";
  const MAX_EVENTS = 200;
  const MAX_TEXT = 2000; // characters of an event
  const MAX_HEIGHT = 4000; // px
  const NO_TOKEN = { status: 0, code: "fetch_token_failed", detail: "A preview cannot be renewed.", retryable: false };

  const [preview, place, list, left, over, end] = ["preview", "preview-place", "preview-events", "preview-left", "preview-over", "preview-end"]
    .map((id) => /** @type {HTMLElement} */ (document.getElementById(id)));
  const { origin, address, code, seconds } = JSON.parse(preview.dataset.frame ?? "{}");
  preview.removeAttribute("data-frame");
  const ends = performance.now() + seconds * 1000;
  const frame = document.createElement("iframe");
  /** @type {MessagePort | null} */
  let port = null;

  /** @param {string} name @param {unknown} data */
  function log(name, data) {
    const item = document.createElement("li");
    const [head, text] = [document.createElement("strong"), document.createElement("code")];
    head.textContent = name.slice(0, 100);
    text.textContent = data === undefined ? "" : (JSON.stringify(data) ?? "").slice(0, MAX_TEXT);
    const at = document.createElement("span");
    at.textContent = new Date().toLocaleTimeString("en-GB");
    item.append(at, head, text);
    list.append(item);
    while (list.childElementCount > MAX_EVENTS) list.firstElementChild?.remove();
    list.scrollTop = list.scrollHeight;
  }

  function connect() {
    const { port1, port2 } = new MessageChannel();
    port = port1;
    port1.onmessage = ({ data }) => hear(data, port1);
    frame.contentWindow?.postMessage(
      { type: "pat-embed:connect", version: 1, theme: "auto", locale: "en", autoHeight: true, tokenTimeout: 1000, jitter: 0, endOnUnmount: true, asked: 0, page: null },
      origin, [port2],
    );
  }

  /** @param {any} message @param {MessagePort} from */
  function hear({ type, id, name, data }, from) {
    if (type === "want-token") from.postMessage({ type: "no-token", id, problem: NO_TOKEN });
    else if (type === "event" || type === "app") {
      log(String(name), data);
      if (type === "event" && name === "resize") frame.style.height = `${Math.min(MAX_HEIGHT, Number(data?.height) || 0)}px`;
      if (type === "event" && (name === "session:expired" || name === "session:revoked")) stop();
    }
  }

  function stop() {
    clearInterval(timer);
    port?.close();
    frame.remove();
    left.textContent = "";
    end.hidden = true;
    over.hidden = false;
  }

  function tick() {
    const rest = Math.max(0, Math.ceil((ends - performance.now()) / 1000));
    left.textContent = `ends in ${Math.floor(rest / 60)}:${String(rest % 60).padStart(2, "0")}`;
    if (!rest) stop();
  }

  addEventListener("message", ({ source, origin: sender, data }) => {
    if (source !== frame.contentWindow || sender !== origin) return;
    if (data?.type === "pat-embed:here") connect();
    else if (data?.type === "TJ_EMBED_APP_LOGOUT") log("TJ_EMBED_APP_LOGOUT", data);
  });
  const timer = setInterval(tick, 1000);
  end.addEventListener("click", stop);
  frame.title = "Preview";
  frame.setAttribute("sandbox", SANDBOX);
  frame.referrerPolicy = "no-referrer";
  frame.src = `${address}?${new URLSearchParams({ code, parent: location.origin })}`;
  place.append(frame);
  tick();
  preview.scrollIntoView({ block: "nearest" });
})();
