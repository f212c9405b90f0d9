// The script of an embedded app's frame. It sends the session with every request below the app's own
// address, swaps pages in place, and tells the person and the parent page what went wrong.
// The session lives in this closure alone: no cookie, no storage, no window.name, no attribute.
(() => {
  "use strict";

  const ACCEPT = "text/html;q=0.9, application/json"; // so that errors come as problem JSON
  const LONGEST_TIMEOUT = 2 ** 31 - 1; // ms; a browser fires a longer one at once
  const BLOB_LIFETIME = 60_000; // ms; a browser may read a saved blob some time after the click
  const INVALID = '[aria-invalid]:not([aria-invalid="false"])';

  const REOPEN = "To go on, reload the page that shows this app.";
  const ENDED = {
    session_expired: ["Your session has ended", `A session lasts a limited time. ${REOPEN}`],
    session_revoked: ["Your session was ended", REOPEN],
    session_invalid: ["This session cannot be used", REOPEN],
    access_revoked: ["You no longer have access to this app", "If you still need it, ask whoever gave you access."],
  };
  const EXPIRED = { status: 401, code: "session_expired", detail: "The session has expired. Open the app again." };
  const CLOSED = { status: 401, code: "session_revoked", detail: "The session was ended from inside the app." };
  const UNREACHABLE = {
    status: 0, code: "unreachable", detail: "The server could not be reached. This page is as you left it; try again.",
  };
  const REDIRECTED = { status: 0, code: "redirect_refused", detail: "The app sent this request elsewhere, where it may not go." };

  // Taken before the app's scripts run: one that wraps them later would see the session.
  const fetch = window.fetch;
  const { submit } = HTMLFormElement.prototype;
  const { attachShadow } = Element.prototype;
  const block = document.getElementById("embed-boot");
  let { session, expiresIn, base, parents, ways, viewer } = JSON.parse(block.textContent);
  block.remove();

  const root = new URL(`${base}/`, location.origin);
  const main = document.getElementById("embed-main");
  const notice = document.getElementById("embed-notice");
  const announcer = document.getElementById("embed-status");
  const life = new AbortController(); // aborted when the frame is over

  // Return the URL if it is one of this app (below `folder`), else null. Parsing resolves "..", "//host" and
  // backslashes; what stays encoded a proxy may still decode, so an encoded slash, dot or percent is refused.
  function inside(address, folder = "") {
    let url;
    try {
      url = new URL(address, document.baseURI);
    } catch {
      return null;
    }
    const ours = url.origin === root.origin && url.pathname.startsWith(root.pathname + folder);
    return ours && !/%(25|2e|2f|5c)/i.test(url.pathname) ? url : null;
  }

  const swappable = (response) => response.ok || response.status === 422;

  // ---- Requests ----

  // Fetch an address of this app as the viewer. An answer that failed is told and returned; a request that
  // failed is told and rejects. Any other address throws a TypeError at once, and nothing is sent.
  function send(address, init) {
    const url = inside(address);
    if (!url) throw new TypeError(`Not an address of this app: ${address}`);
    return request(url, init);
  }

  async function request(url, init = {}) {
    const headers = new Headers(init.headers);
    headers.set("Accept", ACCEPT);
    headers.set("Authorization", `Bearer ${session}`);
    const response = await fetch(url, {
      ...init,
      headers,
      mode: "same-origin",
      credentials: "omit",
      cache: "no-store",
      redirect: "manual", // following one would carry the session to an address that nobody has checked
      signal: AbortSignal.any([life.signal, init.signal].filter(Boolean)),
    }).catch(lost);
    if (response.type === "opaqueredirect") {
      fail(REDIRECTED);
      throw new TypeError(REDIRECTED.detail);
    }
    if (!swappable(response)) fail(await problemOf(response));
    return response;
  }

  // A request, or a body half read, that broke off. An abort is somebody's wish and no failure.
  function lost(error) {
    if (error?.name !== "AbortError") fail(UNREACHABLE);
    throw error;
  }

  async function problemOf(response) {
    const { status, headers } = response;
    // A proxy, or the app itself, may answer with something else than a problem.
    const known = headers.get("Content-Type")?.startsWith("application/problem+json");
    const problem = known ? await response.clone().json().catch(() => ({})) : {};
    return {
      status,
      code: problem.code ?? "unknown",
      detail: problem.detail ?? `The server answered with status ${status}. Try again later.`,
      requestId: problem.requestId ?? headers.get("X-Request-Id"),
      retryAfter: headers.get("Retry-After"),
    };
  }

  // ---- Failures ----

  function fail(problem) {
    if (life.signal.aborted) return;
    tell(problem);
    if (problem.status === 401) end(problem);
    else notify(problem);
  }

  function tell({ status: error, detail: message, code, requestId = null }) {
    if (window.parent === window) return;
    for (const origin of parents) {
      try {
        window.parent.postMessage({ type: "TJ_EMBED_APP_LOGOUT", error, message, code, requestId }, origin);
      } catch {
        // Some browsers take no custom scheme for a target; the other origins are told all the same.
      }
    }
  }

  function notify({ detail, retryAfter }) {
    const words = element("p", { textContent: detail });
    // The detail of a rate limit says the seconds by itself.
    if (retryAfter && !detail.includes(retryAfter)) words.append(` Try again in ${retryAfter} s.`);
    const before = document.activeElement;
    const dismiss = element("button", { type: "button", className: "button quiet", textContent: "Dismiss" });
    dismiss.addEventListener("click", () => {
      notice.replaceChildren();
      focus(main.contains(before) ? before : main);
    });
    notice.replaceChildren(element("div", { className: "notice" }, words, dismiss));
  }

  function end({ code, requestId }) {
    // Who may open this app no longer may go back to their others, if the session is one of a workspace.
    const bar = code === "access_revoked" ? document.querySelector("body > .embed-bar") : null;
    if (!bar) session = "";
    life.abort();
    const [title, advice] = ENDED[code] ?? ENDED.session_invalid;
    const heading = element("h1", { textContent: title });
    const panel = element("main", { className: "embed-ended" }, heading, element("p", { textContent: advice }));
    if (requestId) {
      const spans = [code, `Request ${requestId}`].map((textContent) => element("span", { textContent }));
      panel.append(element("p", { className: "reference" }, ...spans));
    }
    document.title = title;
    document.body.replaceChildren(...[bar, panel].filter(Boolean));
    focus(heading);
  }

  function element(tag, properties, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  // A frame takes the focus only where it has it already, never out of the parent's page.
  function focus(target) {
    if (!document.hasFocus()) return;
    if (target.tabIndex < 0) target.tabIndex = -1;
    target.focus();
  }

  // ---- Pages: links and forms ----

  let visiting = null; // the page request in flight: {method, abort}

  async function visit(url, { method = "GET", body } = {}) {
    if (visiting?.method === "POST") return; // a second press must not send the form twice
    visiting?.abort();
    const control = new AbortController();
    const mine = (visiting = { method, abort: () => control.abort() });
    main.setAttribute("aria-busy", "true");
    const answer = await send(url, { method, body, signal: control.signal })
      .then(async (response) => ({ response, html: await response.text().catch(lost) }))
      .catch(() => null); // told by now
    if (visiting !== mine) return;
    visiting = null;
    main.removeAttribute("aria-busy");
    if (answer && swappable(answer.response) && answer.response.status !== 204) {
      show(answer.html, answer.response.status === 422, url.hash.slice(1));
    }
  }

  function show(html, invalid, anchor) {
    const page = new DOMParser().parseFromString(html, "text/html");
    notice.replaceChildren();
    main.replaceChildren(...page.body.childNodes);
    window.htmx?.process(main);
    document.title = page.title || document.title;
    announcer.textContent = document.title;
    window.scrollTo(0, 0);
    focus(
      (invalid && (main.querySelector(INVALID) ?? main.querySelector('[role="alert"]'))) ||
        (anchor && document.getElementById(anchor)) ||
        main.querySelector("h1, h2, h3") ||
        main,
    );
  }

  // Links and forms with a target, a download or htmx attributes of their own are not ours.
  const leftAlone = (node) => node.getAttributeNames().some((name) => /^(target$|download$|(data-)?hx-)/.test(name));

  document.addEventListener("click", (event) => {
    const elsewhere = event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey;
    if (event.defaultPrevented || elsewhere) return;
    const clicked = event.target.closest("[data-embed-go], [data-embed-download], a[href]");
    if (!clicked) return;
    if (clicked.hasAttribute("data-embed-go")) {
      event.preventDefault();
      go(clicked.dataset.embedGo);
      return;
    }
    if (clicked.hasAttribute("data-embed-download")) {
      event.preventDefault();
      download(clicked);
      return;
    }
    const url = !leftAlone(clicked) && inside(clicked.getAttribute("href"), "pages/");
    if (!url) return;
    event.preventDefault();
    visit(url);
  });

  document.addEventListener("submit", (event) => {
    const form = event.target;
    // By attribute: a field that is named "action" or "method" hides the property.
    const own = (name) => event.submitter?.getAttribute(`form${name}`) ?? form.getAttribute(name) ?? "";
    const method = own("method").toUpperCase();
    const url = !leftAlone(form) && inside(own("action"), "pages/");
    if (event.defaultPrevented || !url || method === "DIALOG") return;
    event.preventDefault();
    const data = new FormData(form, event.submitter);
    // Outside multipart a file counts by its name, as in a browser's own submission.
    const fields = new URLSearchParams([...data].map(([name, value]) => [name, value.name ?? value]));
    if (method === "POST") {
      visit(url, { method, body: own("enctype").toLowerCase() === "multipart/form-data" ? data : fields });
    } else {
      url.search = fields;
      visit(url);
    }
  });

  // ---- Parts: htmx ----

  const submitting = new WeakSet();

  document.addEventListener("htmx:config:request", (event) => {
    const { ctx } = event.detail;
    if (!inside(ctx.request.action)) return; // such a request goes out without the session
    const form = ctx.sourceEvent?.type === "submit" ? ctx.sourceElement : null;
    if (submitting.has(form)) {
      event.preventDefault(); // htmx would queue the second press and send it after the first
      return;
    }
    // In place of a header on ctx.request, which htmx shows to every listener and prints with its errors.
    ctx.fetch = (address, init) => {
      const answer = send(address, init);
      if (form) submitting.add(form);
      return answer.finally(() => submitting.delete(form));
    };
  });

  // ---- Other apps of the workspace ----

  // The session goes along in the body of a form, so that it stands in no address; and the form is where no
  // script of the page can look into.
  function go(address) {
    if (!ways.includes(address)) return; // an app's own markup may say anything
    const form = element("form", { method: "post", action: address });
    form.append(element("input", { type: "hidden", name: "session", value: session }));
    const host = element("div", { hidden: true });
    attachShadow.call(host, { mode: "closed" }).append(form);
    document.body.append(host);
    submit.call(form);
    host.remove();
  }

  // ---- Images and downloads, which cannot carry a header themselves ----

  async function file(address) {
    return send(address)
      .then(async (response) => ({ response, blob: response.ok && (await response.blob().catch(lost)) }))
      .catch(() => ({})); // told by now
  }

  const sources = new WeakMap(); // image → the address it was last asked to show

  function fill() {
    for (const image of document.querySelectorAll("img[data-embed-src]")) {
      const source = image.dataset.embedSrc;
      if (sources.get(image) === source) continue;
      sources.set(image, source);
      file(source).then(({ blob }) => {
        if (!blob || sources.get(image) !== source) return;
        const address = URL.createObjectURL(blob);
        for (const done of ["load", "error"]) {
          image.addEventListener(done, () => URL.revokeObjectURL(address), { once: true });
        }
        image.src = address;
      });
    }
  }

  async function download(clicked) {
    if (clicked.ariaBusy === "true") return;
    clicked.ariaBusy = "true";
    const { response, blob } = await file(clicked.dataset.embedDownload);
    clicked.ariaBusy = null;
    if (!blob) return;
    const name = fileName(response) || clicked.dataset.embedFilename || response.url.split("/").pop();
    const link = element("a", { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), BLOB_LIFETIME);
  }

  function fileName(response) {
    const header = response.headers.get("Content-Disposition") ?? "";
    const [, extended] = /filename\*=UTF-8''([^;\s]+)/i.exec(header) ?? [];
    const [, quoted, bare] = /filename=(?:"((?:[^"\\]|\\.)*)"|([^;\s]+))/i.exec(header) ?? [];
    return extended ? decodeURIComponent(extended) : quoted?.replace(/\\(.)/g, "$1") ?? bare;
  }

  fill();
  new MutationObserver(fill).observe(document.body, {
    childList: true, subtree: true, attributes: true, attributeFilter: ["data-embed-src"],
  });

  // ---- The end of the session's time ----

  const deadline = performance.now() + expiresIn * 1000; // a clock that nobody can set back
  let timer;

  function watch() {
    clearTimeout(timer);
    const remaining = deadline - performance.now();
    if (remaining > 0) timer = setTimeout(watch, Math.min(remaining, LONGEST_TIMEOUT));
    else fail(EXPIRED);
  }

  watch();
  // Timers sleep with the computer and in hidden frames: look again on waking.
  document.addEventListener("visibilitychange", watch);
  window.addEventListener("pageshow", watch);

  // ---- For the app's own scripts ----

  window.embed = Object.freeze({
    viewer,
    // Like window.fetch, for addresses of this app alone; a relative one counts from the app's own.
    fetch: async (path, init) => send(new URL(path, root), init),
    // Show a page of the app, as a link to it would.
    page: async (name, params) => visit(new URL(`pages/${name}?${new URLSearchParams(params)}`, root)),
    // End the session on the server, then here.
    end: async () => {
      const response = await send(new URL("session", root), { method: "DELETE" });
      if (response.ok) fail(CLOSED);
    },
  });
})();
