// pat-service: embeds an app and keeps it open. Its API is in /embed.d.ts.
// It stores nothing and reads no cookie. Only the frame gets the token, through a MessagePort, and
// the service if it asks for reports of blank frames.
(() => {
  "use strict";

  const VERSION = "1.0.0";
  const SANDBOX = "allow-scripts allow-same-origin allow-forms allow-downloads";
  // Attempts to get the first token. The frame asks for later tokens itself.
  const MAX_ATTEMPTS = 5;
  // The attempts may wait for answers this long in all, or `tokenTimeout` if that is longer.
  const GIVE_UP_MS = 45_000;
  // An opening that takes longer than this says so.
  const SLOW_MS = 5000;
  // Frames with the same app and source share a mint until it has this age.
  const SHARED_MS = 5000;
  // Time for a frame to end its session.
  const END_TIMEOUT_MS = 5000;
  // Time for a frame's page to load, and then to say hello.
  const LOAD_TIMEOUT_MS = 60_000;
  const HELLO_TIMEOUT_MS = 5000;
  // A new token helps with these refusals. The script tries at most MAX_RESTARTS times a minute.
  const RECOVERABLE = /^(token_(missing|expired|superseded|used)|session_(expired|invalid))$/;
  const MAX_RESTARTS = 3;
  const RESERVED = /^(waiting|ready|loaded|resize|navigate|page|error|session:.*|embed:.*)$/;
  const WORDS = {
    en: {
      opening: "Opening…",
      slow: "Still opening. This takes longer than usual.",
      failed: "This content could not be opened.",
      later: "Try again in a moment.",
      reload: "Reload the page. If this happens again, contact the team that runs it.",
      retry: "Try again",
      left: "The app went to another page.",
      back: "Back to the app",
      old: "This browser is too old for this content. Update it, or use another browser.",
    },
    es: {
      opening: "Abriendo…",
      slow: "Sigue abriéndose. Tarda más de lo habitual.",
      failed: "No se pudo abrir este contenido.",
      later: "Inténtelo de nuevo en un momento.",
      reload: "Vuelva a cargar la página. Si ocurre de nuevo, avise al equipo que la gestiona.",
      retry: "Intentar de nuevo",
      left: "La aplicación pasó a otra página.",
      back: "Volver a la aplicación",
      old: "Este navegador es demasiado antiguo para este contenido. Actualícelo o use otro.",
    },
  };
  // For the parts around and below the iframe, in a shadow tree: the page's style sheets and policy do not reach them.
  const STYLE = `
    .box { display: grid; grid-template-columns: minmax(0, 1fr); inline-size: 100%; block-size: 100% }
    .box > *, ::slotted(iframe) { grid-area: 1 / 1 }
    .box:not(.app) ::slotted(iframe) { visibility: hidden }
    .app > .wait, .failed > .wait { display: none }
    [role=status], .card { box-sizing: border-box; min-block-size: 150px; padding: 1rem; font-size: .875rem; text-align: center }
    [role=status] { display: flex; flex-wrap: wrap; align-content: center; align-items: center; justify-content: center; gap: .75rem }
    [role=status]::before { content: ""; inline-size: 1.25em; block-size: 1.25em; box-sizing: border-box; border: 2px solid; border-block-start-color: transparent; border-radius: 50%; opacity: .5 }
    .card { align-self: start; inline-size: min(100%, 30rem); margin-inline: auto; padding: 1.5rem; border: 1px solid; border-color: color-mix(in srgb, currentColor 25%, transparent); border-radius: 8px }
    p { margin: 0 0 .5rem }
    button { margin: .5rem 0 1rem; padding: .5em 1.25em; border: 1px solid; border-radius: 6px; background: none; color: inherit; font: inherit; font-weight: 600; cursor: pointer }
    code { opacity: .75; font-size: .75rem }
    @media (prefers-reduced-motion: no-preference) {
      [role=status]::before { animation: turn 1s linear infinite }
      @keyframes turn { to { rotate: 1turn } }
    }`;
  // Chrome 103, Firefox 101 and Safari 16.4 have these, and the rest of what this script and the frames need.
  const MODERN = globalThis.AbortSignal?.timeout && Object.hasOwn && "adoptedStyleSheets" in document;
  // One value for the page, so that frames that opened together renew with one mint.
  const jitter = Math.random();

  class PatEmbedError extends Error {
    get name() {
      return "PatEmbedError";
    }

    constructor(code, message, rest) {
      super(message);
      Object.assign(this, { status: 0, retryable: false, retryAfter: null, requestId: null }, rest, { code });
    }

    toJSON() {
      return { ...this, message: this.message };
    }
  }

  function element(tag, properties, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }
  const warn = (message) => console.warn(`pat-embed: ${message}`);
  const failed = (message, rest) => new PatEmbedError("fetch_token_failed", message, rest);

  // Wait until a person can see the page: it may be prerendered, or in a background tab.
  async function visible() {
    while (document.prerendering || document.hidden) {
      await new Promise((done) => {
        for (const type of ["prerenderingchange", "visibilitychange"]) document.addEventListener(type, done, { once: true });
      });
    }
  }

  // ---- Tokens ----

  const mints = new Set();

  // Return {url, token, single} of a mint. Frames share it if they can, but never the stale token.
  async function obtain(frame, reason, stale, ms) {
    const { app, workspace, tokenUrl, fetchToken: source = tokenUrl } = frame.options;
    const same = (each) => each.app === app && each.workspace === workspace && each.source === source;
    let mint = [...mints].find(same);
    if (!mint || performance.now() - mint.at > SHARED_MS || (stale && mint.token === stale)) {
      mints.delete(mint);
      mint = { app, workspace, source, frame, answer: ask(frame.options, reason, ms) };
      mints.add(mint);
    }
    try {
      const found = await mint.answer;
      mint.at ??= performance.now();
      // A single-use token belongs to the frame that asked.
      if (found.single) mints.delete(mint);
      if (found.single && mint.frame !== frame) return obtain(frame, reason, undefined, ms);
      mint.token = found.token;
      return found;
    } catch (error) {
      mints.delete(mint);
      throw error;
    }
  }

  async function ask({ app, workspace, tokenUrl, fetchToken }, reason, ms) {
    const signal = AbortSignal.timeout(ms);
    const late = new Promise((_, reject) => signal.addEventListener("abort", reject));
    const request = { app, workspace, reason };
    try {
      return read(await Promise.race([fetchToken ? fetchToken({ ...request, signal }) : post(tokenUrl, request, signal), late]));
    } catch (error) {
      if (signal.aborted) throw new PatEmbedError("timeout", `No token came within ${Math.round(ms)} ms.`, { retryable: true });
      if (error instanceof PatEmbedError) throw error;
      const { message = error, retryable = true, retryAfter = null } = error ?? {};
      throw failed(`No token: ${message}`, { retryable, retryAfter });
    }
  }

  async function post(url, request, signal) {
    const response = await fetch(url, {
      method: "POST",
      credentials: "include",
      headers: { "Content-Type": "application/json", Accept: "application/json" },
      body: JSON.stringify(request),
      signal,
    });
    const { ok, status, headers } = response;
    const answer = await response.json().catch(() => null);
    if (ok) return answer;
    throw failed(`${url} answered ${status}${answer?.detail ? `: ${answer.detail}` : "."}`, {
      status,
      retryable: /^(408|429|5..)$/.test(status),
      retryAfter: Number(headers.get("Retry-After")) || null,
      requestId: answer?.requestId ?? null,
    });
  }

  // Return the address of a frame's page: redirectUrl without the token.
  function pageOf(redirectUrl) {
    const { protocol, origin, pathname } = new URL(redirectUrl);
    if (/^https?:$/.test(protocol)) return `${origin}${pathname}/frame`;
    throw new TypeError(`Not a redirectUrl: ${redirectUrl}`);
  }

  // A launcher gives its apps a one-time code.
  function read(answer) {
    try {
      const token = answer.personalAccessToken ?? new URL(answer.redirectUrl).searchParams.get("personal-access-token");
      if (/^(pat|otc)_\w+$/.test(token)) return { url: pageOf(answer.redirectUrl), token, single: answer.singleUse };
    } catch {}
    throw failed("The answer must be the mint's, with redirectUrl and personalAccessToken.");
  }

  // ---- What an element shows around its frame ----

  let sheet;
  try {
    sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
  } catch {} // an older browser shows the texts without a style
  const free = new WeakMap(); // element → its shadow tree, while no frame uses it

  // Return a shadow tree of the element, or of a new child: a list item and a table cell cannot have one.
  function shadowOf(target) {
    const root = free.get(target);
    free.delete(target);
    if (root) return root;
    try {
      return target.attachShadow({ mode: "open" });
    } catch {
      return target.appendChild(element("div")).attachShadow({ mode: "open" });
    }
  }

  // The states are `opening`, `app` and `failed`. Children of the element take the place of the text while it opens.
  class View {
    constructor(target, words) {
      this.target = target;
      this.root = shadowOf(target);
      this.text = element("span");
      const status = element("div", {}, this.text);
      status.setAttribute("role", "status");
      const wait = element("div", { className: "wait" }, element("slot", {}, status));
      this.box = element("div", { className: "box" }, wait, element("slot", { name: "pat-embed" }));
      if (sheet) this.root.adoptedStyleSheets = [sheet];
      this.root.replaceChildren(this.box);
      this.opening(words);
    }

    opening({ opening }) {
      this.text.textContent = opening;
      this.#set("opening");
    }

    app() {
      this.#set("app");
    }

    failed({ code, retryable }, words, retry) {
      const [title, advice, button] = {
        unsupported_browser: [words.old],
        left_app: [words.left, "", words.back],
      }[code] ?? [words.failed, retryable ? words.later : words.reload, retryable && words.retry];
      const parts = [element("p", {}, element("strong", { textContent: title }))];
      if (advice) parts.push(element("p", { textContent: advice }));
      if (button) parts.push(element("button", { type: "button", textContent: button, onclick: retry }), element("br"));
      this.#set("failed");
      this.card = element("div", { className: "card" }, ...parts, element("code", { textContent: code }));
      this.card.setAttribute("role", "alert");
      this.box.append(this.card);
    }

    remove() {
      const { host } = this.root;
      this.root.replaceChildren(element("slot"));
      if (host === this.target) free.set(host, this.root);
      else host.remove();
    }

    #set(state) {
      this.box.className = `box ${state}`;
      this.card?.remove();
    }
  }

  // ---- Pages of an app, and the page's address ----

  // The name of a page, or the path of a page in an app that runs elsewhere.
  const PAGE = /^([a-z0-9-]+|\/(?![/\\])[^\\?#]*)$/;
  // A longer link opens nothing.
  const MAX_LINK_CHARS = 2048;
  const queryOf = (params) => String(new URLSearchParams(params ?? ""));
  const same = (one, other) => one.page === other.page && queryOf(one.params) === queryOf(other.params);
  const frames = new Set();
  const synced = new Set(); // names of the parameters that frames keep in the page's address

  // Keeps the app's page in one parameter of the page's address: `name=<page>?<params>`, without it the first page.
  class Address {
    constructor(name, first, open) {
      this.name = name;
      this.first = first;
      this.page = this.read();
      // A change of the hash fires this event too.
      this.open = () => {
        const there = this.read();
        if (same(there, this.page)) return;
        this.page = there;
        open(there);
      };
      synced.add(name);
      addEventListener("popstate", this.open);
    }

    read() {
      const text = new URL(location.href).searchParams.get(this.name) ?? "";
      const [, page, params = ""] = /^([^?]*)(?:\?(.*))?$/s.exec(text);
      return PAGE.test(page) ? { page, params } : this.first;
    }

    // The answer to a form has no address: its params are null. `replace`: the browser's history has the step already.
    record({ page, params }, replace) {
      if (params === null || !(page.length + params.length <= MAX_LINK_CHARS)) return;
      this.page = { page, params };
      if (same(this.read(), this.page)) return;
      const url = new URL(location.href);
      if (same(this.first, this.page)) url.searchParams.delete(this.name);
      else url.searchParams.set(this.name, params ? `${page}?${params}` : page);
      try {
        history[replace ? "replaceState" : "pushState"](history.state, "", url);
      } catch ({ message }) {
        warn(`sync-url: ${message}`); // browsers limit the number of changes
      }
    }

    remove() {
      synced.delete(this.name);
      removeEventListener("popstate", this.open);
    }
  }

  // ---- A frame ----

  const failures = new WeakMap(); // element → its frame, while that shows an error

  class Frame {
    iframe = null;
    #token;
    #handlers = new Map();
    #promises = [];
    // The target origin of the port, at first that of `url`.
    #origin;
    #port;
    // A promise of the first token and its address, until the frame has the token.
    #first = null;
    #loads = 0;
    // Whether the next load belongs to a page that has sent a message. That page is connected, and not blank.
    #spoke;
    // Whether the page of the frame is one that this script has loaded.
    #opening;
    #restarts = [];
    // The host's messages until the app has loaded; null afterwards.
    #queue = [];
    #fresh = false;
    #timer;
    #view;
    #slow;
    #minted;
    // The page at which the app opens: {page, params}.
    #link;
    #address;
    // The number of the last call of `navigate`. An event that the frame sent before is about an older page.
    #asked = 0;
    #ended;
    // Whether the frame went to another page, and left its session behind.
    #left = false;
    #lazy;
    #beginning = null;
    #unmounted = false;

    constructor(target, { onError, ...options }) {
      this.element = target;
      this.options = { theme: "auto", locale: document.documentElement.lang, tokenTimeout: 30_000, sandbox: SANDBOX, referrerPolicy: "no-referrer", ...options };
      if (onError) this.on("error", onError);
      this.#view = new View(target, this.#words);
      this.#link = { page: options.page ?? "index", params: queryOf(options.params) };
      this.#sync();
      frames.add(this);
      addEventListener("message", this.#listen);
      if (options.loading !== "lazy") return void this.#begin();
      this.#lazy = new IntersectionObserver((entries) => {
        if (entries.some((entry) => entry.isIntersecting)) this.#begin();
      }, { rootMargin: "200px" });
      this.#lazy.observe(target);
    }

    on(name, handler) {
      this.#handlers.set(name, (this.#handlers.get(name) ?? new Set()).add(handler));
      return () => this.off(name, handler);
    }

    off(name, handler) {
      this.#handlers.get(name)?.delete(handler);
    }

    send(name, data) {
      if (RESERVED.test(name)) throw new TypeError(`Not a name for an app's event: ${name}`);
      const message = { type: "send", name: String(name), data };
      if (this.#queue) this.#queue.push(message);
      else this.#port.postMessage(message);
    }

    setTheme(theme) {
      this.#setAppearance({ theme });
    }

    setLocale(locale) {
      this.#setAppearance({ locale });
    }

    navigate(page, params) {
      this.#navigate(page, params, false);
    }

    #navigate(page, params, replace) {
      if (!this.options.app) throw new TypeError("A launcher has no pages: navigate needs a frame with an app.");
      if (!PAGE.test(page)) throw new TypeError(`Not a name of a page: ${page}`);
      this.#link = { page, params: queryOf(params) };
      const message = { type: "navigate", asked: ++this.#asked, replace, ...this.#link };
      if (!this.#queue) this.#port.postMessage(message);
      // Until the app is shown, only the last page counts.
      else if (this.#port) this.#queue = [...this.#queue.filter(({ type }) => type !== "navigate"), message];
    }

    async end() {
      if (this.iframe) this.iframe.style.visibility = "hidden";
      const isOpen = !this.#unmounted && this.#port?.heard;
      const ended = isOpen ? await new Promise((done) => {
        this.#ended = done;
        this.#port.postMessage({ type: "end" });
        setTimeout(done, END_TIMEOUT_MS, false);
      }) : !this.#left;
      this.unmount();
      if (this.element.frame === this) this.element.frame = null;
      if (!ended) throw new PatEmbedError("unreachable", "The session could not be ended. It ends when it expires.", { retryable: true });
    }

    refresh() {
      this.#fresh = true;
      if (this.#queue) this.#begin();
      else this.#port.postMessage({ type: "refresh" });
      return this.settled();
    }

    unmount() {
      // The element may belong to another frame by now.
      if (this.#unmounted) return;
      this.#unmounted = true;
      failures.delete(this.element);
      frames.delete(this);
      this.#address?.remove();
      this.#lazy?.disconnect();
      removeEventListener("message", this.#listen);
      clearTimeout(this.#timer);
      clearTimeout(this.#slow);
      this.#port?.close();
      this.iframe?.remove();
      this.#view.remove();
      for (const { reject } of this.#promises) reject(new DOMException("The frame was unmounted.", "AbortError"));
      // The next frame may belong to another user.
      mints.clear();
    }

    // Return a promise that resolves when the app has loaded or renewed, and rejects with the first error.
    settled() {
      return new Promise((resolve, reject) => this.#promises.push({ resolve, reject }));
    }

    #setAppearance(change) {
      Object.assign(this.options, change);
      this.#port?.postMessage({ type: "dress", ...change });
    }

    #begin() {
      this.#beginning ??= this.#open().finally(() => { this.#beginning = null; });
    }

    async #open() {
      this.#lazy?.disconnect();
      failures.delete(this.element);
      this.#view.opening(this.#words);
      await visible();
      if (this.#unmounted) return;
      if (!MODERN) return this.#fail(new PatEmbedError("unsupported_browser", "This browser lacks features that frames need. The docs of embed.js list the oldest versions."));
      this.#expectApp();
      const first = this.#mint();
      const early = this.iframe ? null : this.#early();
      if (early) this.#load({ url: early }, first);
      const found = await first;
      this.#minted = true;
      // A frame that loaded early asks for the token itself, unless the mint names another address.
      if (found && !this.#unmounted && !(early && found.url === this.url)) this.#load(found);
      else if (!found && early) this.#drop();
    }

    // Return the page that can load while the token is fetched.
    #early() {
      try {
        return this.options.frame && pageOf(this.options.frame);
      } catch (error) {
        warn(`frame: ${error.message}`);
      }
    }

    // Return a token and its address. Show the error if there is none.
    async #mint() {
      const { tokenTimeout } = this.options;
      const [reason, fresh] = this.#loads ? ["reload", true] : ["initial"];
      this.#minted = false;
      for (let tries = 1, left = Math.max(GIVE_UP_MS, tokenTimeout); !this.#unmounted; tries++) {
        await visible();
        if (this.#unmounted) return;
        const from = performance.now();
        try {
          // The previous token cannot help, so ask for a fresh one.
          return await this.#obtain(reason, fresh, Math.min(tokenTimeout, left));
        } catch (error) {
          const pause = 1000 * (error.retryAfter ?? 2 ** tries * (0.25 + jitter / 4));
          left -= performance.now() - from + (error.retryAfter ? 0 : pause);
          if (!error.retryable || error.retryAfter > 60 || tries === MAX_ATTEMPTS || left < 1000) return void this.#fail(error);
          warn(`${error.message} Trying again.`);
          await new Promise((done) => setTimeout(done, pause));
        }
      }
    }

    #sync() {
      const { app, syncUrl } = this.options;
      if (syncUrl === undefined || !app) return;
      const name = typeof syncUrl === "string" && syncUrl || app;
      if (synced.has(name)) return warn(`sync-url: another frame uses the parameter ${name}. Give this one another name.`);
      this.#address = new Address(name, this.#link, (link) => this.#navigate(link.page, link.params, true));
      this.#link = this.#address.read();
    }

    get #words() {
      return WORDS[this.options.locale?.slice(0, 2)] ?? WORDS.en;
    }

    // Say that the opening takes long, to the viewer and to the page.
    #expectApp() {
      clearTimeout(this.#slow);
      this.#slow = setTimeout(() => {
        this.#view.text.textContent = this.#words.slow;
        this.#emit("waiting", { for: this.#minted ? "frame" : "token" });
      }, SLOW_MS);
    }

    #showApp() {
      clearTimeout(this.#slow);
      this.#view.app();
    }

    async #obtain(reason, fresh = this.#fresh, ms = this.options.tokenTimeout) {
      this.#fresh = false;
      const found = await obtain(this, reason, fresh && this.#token, ms);
      this.#token = found.token;
      return found;
    }

    #load(found, first = Promise.resolve(found)) {
      const { url } = found;
      const { theme, locale, app, workspace, title = app ?? workspace, sandbox, allow = "", referrerPolicy } = this.options;
      const address = `${url}?${new URLSearchParams({ theme, ...(locale && { locale }), parent: location.origin })}`;
      this.url = url;
      this.#first = first;
      this.#origin = new URL(url).origin;
      this.#port?.close();
      this.#port = null;
      this.#queue ??= [];
      this.#spoke = false;
      this.#opening = true;
      this.#left = false;
      this.#expect(LOAD_TIMEOUT_MS);
      // `replace` adds no step to the browser's Back.
      if (this.iframe) return this.iframe.contentWindow.location.replace(address);
      const style = "display:block;width:100%;height:100%;border:0";
      const slot = "pat-embed";
      this.iframe = element("iframe", { title, sandbox, allow, referrerPolicy, style, slot, src: address, onload: () => this.#loaded() });
      this.#view.root.host.append(this.iframe);
    }

    // Runs after each load: of the first page, of a reloaded page, or of the address that the frame moved to.
    #loaded() {
      if (!this.#spoke) this.#connect();
      this.#spoke = false;
    }

    #connect() {
      const { theme, locale, autoHeight, tokenTimeout, endOnUnmount } = this.options;
      const { page, params } = this.#link;
      const { port1: port, port2 } = new MessageChannel();
      // Leave the previous port open: messages of the frame may still arrive on it.
      this.#port = port;
      port.url = this.url;
      port.onmessage = ({ data }) => this.#receive(data, port);
      const link = { page: page === "index" ? null : page, params };
      this.iframe.contentWindow.postMessage(
        { type: "pat-embed:connect", version: 1, theme, locale, autoHeight, tokenTimeout, jitter, endOnUnmount, asked: this.#asked, ...link }, this.#origin, [port2],
      );
      this.#expect(HELLO_TIMEOUT_MS);
    }

    #drop() {
      clearTimeout(this.#timer);
      this.#port?.close();
      this.iframe?.remove();
      this.iframe = this.#port = null;
      this.#queue ??= [];
    }

    #expect(ms) {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#reportBlank(ms === HELLO_TIMEOUT_MS), ms);
    }

    // A blocked frame loads but sends nothing. If its address answers, framing is not allowed.
    async #reportBlank(loaded) {
      const { url } = this;
      const { origin } = location;
      const around = [origin, ...(location.ancestorOrigins ?? [])].filter((origin) => origin !== "null");
      await this.#first;
      const left = loaded && !this.#opening;
      const page = loaded && !left && await fetch(`${url}?parent=${encodeURIComponent(origin)}`, { credentials: "omit" }).then((answer) => answer.text(), () => null);
      if (this.#unmounted || this.#spoke || this.#port?.heard || url !== this.url || !this.iframe) return;
      this.#drop();
      this.#left = left && !this.options.endOnUnmount;
      if (left) return this.#fail(new PatEmbedError("left_app", "A link or a script of the app led its frame to another page."));
      const { app, workspace } = this.options;
      if (/"reports": ?true/.test(page) && /^pat_/.test(this.#token)) this.#tellService(around);
      const target = app ? `--app ${app}` : `--workspace ${workspace}`;
      const advice = `\`flask --app app doctor ${target} --parent ${around.join(" --parent ")}\` says what to change.`;
      // The page names this origin if it may be the parent. It does not know the pages around this one.
      this.#fail(!page || (window === top && /"parent":/.test(page))
        ? new PatEmbedError("timeout", `${url} does not answer in time${page ? ", although it has loaded: the network is slow, or a proxy or CDN rewrites it" : ""}. ${advice}`, { retryable: true })
        : new PatEmbedError("origin_not_allowed", `The frame is blank: ${origin}, or a page around it, may not frame the app. ${advice}`));
    }

    // Tell the service which page it does not allow, so that its console can name the page. The token shows that the
    // report is about this app.
    #tellService(around) {
      const body = JSON.stringify({ token: this.#token, around });
      const request = { method: "POST", mode: "no-cors", credentials: "omit", keepalive: true, body };
      fetch(this.url.replace(/frame$/, "blank"), request).catch(() => {});
    }

    // The script of a frame's page runs before the page has loaded.
    #listen = ({ source, origin, data }) => {
      if (source !== this.iframe?.contentWindow || origin !== this.#origin || data?.type !== "pat-embed:here") return;
      if (this.#port && !this.#port.heard) return void (this.#port.heard = true); // the load came first
      this.#connect();
      this.#spoke = this.#port.heard = true;
    };

    #receive({ type, name, data, ...rest }, port) {
      if (type === "hello") {
        if (port !== this.#port) return;
        clearTimeout(this.#timer);
        port.heard = true;
        this.#opening = false;
        if (rest.again) return;
        this.#loads++;
        this.#queue ??= [];
        this.#emit("ready", {});
        // A page that loaded early may be the wrong one.
        if (rest.problem) Promise.resolve(this.#first).then(() => port === this.#port && this.#recover(rest.problem));
      } else if (type === "written") {
        this.#spoke = port === this.#port;
        if (!rest.opens) this.#showApp();
      } else if (type === "moving") this.#opening = true;
      else if (type === "want-token") this.#sendToken(rest, port);
      else if (type === "event" && RESERVED.test(name)) this.#handleEvent(name, data, rest);
      else if (type === "app" && !RESERVED.test(name)) this.#emit(name, data);
      else if (type === "scroll") this.#scroll(Number(rest.top));
      else if (type === "restart") this.#begin();
      else if (type === "ended") this.#ended?.(rest.ok);
    }

    // Bring this place of the frame to the top of the window, if the viewer is in the frame. Firefox and Safari let no
    // frame of another site do so.
    #scroll(top) {
      const { iframe } = this;
      if (iframe.getRootNode().activeElement !== iframe) return;
      iframe.style.scrollMarginTop = `${-top}px`;
      iframe.scrollIntoView({ behavior: "instant" });
      iframe.style.scrollMarginTop = "";
    }

    #handleEvent(name, data, { asked, replace } = {}) {
      if (/^(loaded|error|session:revoked)$/.test(name)) this.#showApp();
      if (name === "loaded") {
        for (const message of this.#queue ?? []) this.#port.postMessage(message);
        this.#queue = null;
        this.iframe.title = this.options.title ?? data.title;
      } else if (name === "navigate") {
        if (asked === this.#asked) this.#address?.record(data, replace);
      } else if (name === "resize") this.iframe.style.height = `${data.height}px`;
      else if (name === "error") data = new PatEmbedError(data.code, data.message, data);
      this.#emit(name, data);
    }

    #emit(name, data) {
      if (this.#unmounted) return;
      const { onEvent } = this.options;
      for (const handler of [onEvent?.bind(null, name), ...(this.#handlers.get(name) ?? [])]) {
        try {
          handler?.(data);
        } catch (error) {
          reportError(error);
        }
      }
      if (this.element instanceof PatEmbedElement) this.element.dispatchEvent(new CustomEvent(name, { detail: data }));
      if (!/^(loaded|session:renewed|error)$/.test(name)) return;
      for (const { resolve, reject } of this.#promises.splice(0)) name === "error" ? reject(data) : resolve(this);
    }

    async #sendToken({ id, reason, fresh }, port) {
      const first = !fresh && this.#first;
      try {
        const found = await (first || this.#obtain(reason === "initial" && this.#loads > 1 ? "reload" : reason, fresh || undefined));
        if (this.#first === first) this.#first = null;
        if (!found) return; // the host page shows why
        const { url, token } = found;
        if (url === port.url) port.postMessage({ type: "token", id, token });
        // The app's address has changed.
        else if (port === this.#port) this.#load({ url, token });
      } catch (error) {
        port.postMessage({ type: "no-token", id, problem: { ...error, detail: error.message } });
      }
    }

    #recover(problem) {
      const now = performance.now();
      this.#restarts = this.#restarts.filter((at) => now - at < 60_000);
      if (!RECOVERABLE.test(problem.code) || this.#restarts.length === MAX_RESTARTS) return this.#handleEvent("error", problem);
      this.#restarts.push(now);
      this.#begin();
    }

    // Show an error in the host page, since no frame can show it.
    #fail(error) {
      if (this.#unmounted) return;
      clearTimeout(this.#slow);
      warn(`${error.code}: ${error.message}`);
      failures.set(this.element, this);
      this.#view.failed(error, this.#words, () => this.#begin());
      this.#emit("error", error);
    }
  }

  // ---- The public API ----

  const given = (options) => Object.fromEntries(Object.entries(options).filter(([, value]) => value != null));

  async function mount(target, options = {}) {
    const element = typeof target === "string" ? document.querySelector(target) : target;
    if (!(element instanceof Element)) throw new TypeError(`Nothing to mount into: ${target}`);
    const { app, workspace, fetchToken, tokenUrl } = options;
    if (!app && !workspace) throw new TypeError("app or workspace is needed");
    if (fetchToken ? typeof fetchToken !== "function" : !tokenUrl) throw new TypeError("fetchToken or tokenUrl is needed");
    const { signal, ...rest } = options;
    signal?.throwIfAborted();
    failures.get(element)?.unmount();
    const frame = new Frame(element, given(rest));
    signal?.addEventListener("abort", () => frame.unmount(), { once: true });
    return frame.settled();
  }

  async function endAll() {
    const ends = await Promise.allSettled([...frames].map((frame) => frame.end()));
    for (const { reason } of ends) if (reason) throw reason;
  }

  class PatEmbedElement extends HTMLElement {
    static observedAttributes = ["app", "workspace", "token-url", "theme", "locale", "title", "page", "params"];
    frame = null;
    #fetchToken;
    #moving;

    get fetchToken() {
      return this.#fetchToken;
    }

    set fetchToken(value) {
      this.#fetchToken = value;
      this.#remount();
    }

    connectedCallback() {
      // A page may set the property before this script has loaded.
      if (this.hasOwnProperty("fetchToken")) {
        this.#fetchToken = this.fetchToken;
        delete this.fetchToken;
      }
      this.#remount();
    }

    // `moveBefore` keeps the frame's page.
    connectedMoveCallback() {}

    disconnectedCallback() {
      this.frame?.unmount();
      this.frame = null;
    }

    attributeChangedCallback(name, before, value) {
      if (!this.frame || before === value) return;
      if (name === "theme") this.frame.setTheme(value ?? "auto");
      else if (name === "locale") this.frame.setLocale(value);
      else if (name === "page" || name === "params") this.#navigate();
      else if (name !== "title") this.#remount();
      else if (this.frame.iframe) this.frame.iframe.title = value ?? "";
    }

    // Once for both attributes, as a page may change them one after the other.
    #navigate() {
      const { frame } = this;
      this.#moving ??= Promise.resolve().then(() => {
        this.#moving = null;
        if (frame === this.frame) frame.navigate(this.getAttribute("page") ?? "index", this.getAttribute("params"));
      }).catch(({ message }) => warn(message));
    }

    #remount() {
      this.disconnectedCallback();
      const get = (name) => this.getAttribute(name);
      const options = { fetchToken: this.#fetchToken, tokenUrl: get("token-url"), referrerPolicy: get("referrerpolicy") };
      if (!this.isConnected) return;
      if (!options.fetchToken && !options.tokenUrl) {
        // The page may still set fetchToken.
        setTimeout(() => this.isConnected && !this.frame && warn("token-url or fetchToken is needed"), 1000);
        return;
      }
      for (const name of ["app", "workspace", "frame", "theme", "locale", "title", "loading", "sandbox", "allow"]) options[name] = get(name);
      for (const name of ["page", "params"]) options[name] = get(name);
      options.syncUrl = get("sync-url");
      options.autoHeight = this.hasAttribute("auto-height");
      options.endOnUnmount = this.hasAttribute("end-on-unmount");
      options.tokenTimeout = Number(get("token-timeout")) || null;
      this.frame = new Frame(this, given(options));
    }
  }

  globalThis.PatEmbed ??= Object.freeze({
    version: VERSION,
    mount,
    endAll,
    PatEmbedError,
  });
  try {
    // `:where` has no specificity, so that the page's own styles win.
    const display = new CSSStyleSheet();
    display.replaceSync(":where(pat-embed:not([hidden])){display:block}");
    document.adoptedStyleSheets.push(display);
  } catch {}
  customElements.get("pat-embed") ?? customElements.define("pat-embed", PatEmbedElement);
})();
