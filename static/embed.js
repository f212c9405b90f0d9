// pat-service: embeds an app in this page and keeps it open. Gives `PatEmbed.mount()` and <pat-embed>; /embed.d.ts has
// all of both. Nothing is stored, no cookie is read, and the token goes to the frame alone, by a port of its own.
(() => {
  "use strict";

  const VERSION = "1.0.0";
  const SANDBOX = "allow-scripts allow-same-origin allow-forms allow-downloads";
  const PARAMETER = "personal-access-token";
  const TRIES = 5; // for the first token; later ones the frame asks for
  const SHARED = 5000; // ms in which a mint serves other frames of the same app and source
  const HELLO = 5000; // ms from a frame's load to its first word
  const LOAD = 60_000; // ms for the load
  const RESTARTS = 3; // a minute, by itself
  const MENDED = /^(token_(missing|expired|superseded|used)|session_(expired|invalid))$/; // by another token
  const RESERVED = /^(ready|loaded|resize|navigate|error|session:.*|embed:.*)$/;
  const WORDS = {
    en: ["This content could not be opened.", "Try again"],
    es: ["No se pudo abrir este contenido.", "Intentar de nuevo"],
  };
  const jitter = Math.random(); // one for the page: frames that opened together renew together, by one mint
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  const object = (value) => typeof value === "object" && value !== null;

  class PatEmbedError extends Error {
    constructor(code, message, rest) {
      super(message);
      Object.assign(this, { name: "PatEmbedError", code, status: 0, retryable: false, requestId: null, retryAfter: null }, rest);
    }
  }

  // ---- Tokens ----

  const mints = []; // {source, app, workspace, answer, at, token}

  // Return {url, token, single}, of a mint that others share where that may be.
  function obtain(frame, reason, fresh) {
    const { app, workspace, tokenUrl, fetchToken } = frame.options;
    const source = fetchToken ?? tokenUrl;
    const now = performance.now();
    let mint = mints.find((each) => each.source === source && each.app === app && each.workspace === workspace);
    if (!mint || now - mint.at > SHARED || (fresh && mint.token === frame.token) || fresh === "always") {
      forget(mint);
      mint = { source, app, workspace, at: Infinity };
      mint.answer = ask(frame.options, reason).then((found) => {
        mint.at = performance.now();
        mint.token = found.token;
        if (found.single) forget(mint);
        return found;
      });
      mint.answer.catch(() => forget(mint));
      mints.push(mint);
      mint.for = frame;
    }
    // A token for one opening is for the frame that asked; any other asks for itself.
    return mint.answer.then((found) => {
      frame.token = found.token;
      return found.single && mint.for !== frame ? obtain(frame, reason, true) : found;
    });
  }

  function forget(mint) {
    if (mints.includes(mint)) mints.splice(mints.indexOf(mint), 1);
  }

  async function ask({ app, workspace, tokenUrl, fetchToken, tokenTimeout }, reason) {
    const control = new AbortController();
    const { signal } = control;
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => {
        reject(new PatEmbedError("timeout", `No token came within ${tokenTimeout} ms.`, { retryable: true }));
        control.abort();
      }, tokenTimeout);
    });
    try {
      const wish = { app, workspace, reason };
      return read(await Promise.race([fetchToken ? fetchToken({ ...wish, signal }) : post(tokenUrl, wish, signal), late]));
    } catch (error) {
      if (error instanceof PatEmbedError) throw error;
      const { message, retryable = true, retryAfter = null, status = 0, requestId = null } = error ?? {};
      throw new PatEmbedError("fetch_token_failed", `fetchToken failed: ${message ?? error}`, { cause: error, retryable, retryAfter, status, requestId });
    } finally {
      clearTimeout(timer);
    }
  }

  async function post(url, wish, signal) {
    let response;
    try {
      response = await fetch(url, {
        method: "POST", signal, credentials: "include", cache: "no-store",
        headers: { "Content-Type": "application/json", Accept: "application/json" }, body: JSON.stringify(wish),
      });
    } catch (cause) {
      throw new PatEmbedError("fetch_token_failed", `${url} could not be reached.`, { cause, retryable: true });
    }
    const { ok, status, headers } = response;
    const answer = await response.json().catch(() => null);
    if (ok) return answer;
    throw new PatEmbedError("fetch_token_failed", `${url} answered ${status}${answer?.detail ? `: ${answer.detail}` : "."}`, {
      cause: answer, status,
      retryable: status === 408 || status === 429 || status >= 500,
      retryAfter: Number(headers.get("Retry-After")) || null,
      requestId: answer?.requestId ?? headers.get("X-Request-Id"),
    });
  }

  // The frame's address is that of the mint's redirectUrl, without the token.
  function read(answer) {
    try {
      const url = new URL(answer.redirectUrl);
      const token = answer.personalAccessToken ?? url.searchParams.get(PARAMETER);
      if (!/^https?:$/.test(url.protocol) || typeof token !== "string" || !token) throw 0;
      return { url: `${url.origin}${url.pathname}/frame`, token, single: answer.singleUse === true };
    } catch {
      throw new PatEmbedError("fetch_token_failed", "What came for a token is not what the mint answers: it has no redirectUrl with a token.");
    }
  }

  // ---- A frame ----

  class Frame {
    #handlers = new Map();
    #port = null;
    #first = null; // the token that the frame's address came with
    #origin; // where the port goes
    #loads = 0;
    #restarts = [];
    #sent = []; // until the app is there
    #timer;
    #panel = null;
    #questions = new Map();
    #over = false;
    #waits; // an IntersectionObserver

    constructor(element, options, settle) {
      Object.assign(this, { element, options, iframe: null, token: null, settle });
      if (options.onError) this.on("error", options.onError);
      if (options.loading === "lazy") {
        this.#waits = new IntersectionObserver((entries) => {
          if (entries.some((entry) => entry.isIntersecting)) this.#begin();
        }, { rootMargin: "200px" });
        this.#waits.observe(element);
      } else this.#begin();
    }

    on(name, handler) {
      this.#handlers.set(name, (this.#handlers.get(name) ?? new Set()).add(handler));
      return () => this.off(name, handler);
    }

    off(name, handler) {
      this.#handlers.get(name)?.delete(handler);
    }

    send(name, data) {
      if (typeof name !== "string" || RESERVED.test(name)) throw new TypeError(`Not a name for an event of an app: ${name}`);
      const message = { type: "send", name, data };
      if (this.#sent) this.#sent.push(message);
      else this.#port.postMessage(message);
    }

    setTheme(theme) { this.#dress({ theme }); }
    setLocale(locale) { this.#dress({ locale }); }

    refresh() {
      return new Promise((resolve, reject) => {
        this.token = null;
        if (this.#sent) {
          this.on("loaded", () => resolve());
          if (this.iframe) this.#restart();
          else this.#begin();
          return;
        }
        const id = this.#questions.size + performance.now();
        this.#questions.set(id, (good) => (good ? resolve() : reject(new PatEmbedError("fetch_token_failed", "The session was not renewed: see the error event."))));
        this.#always = true;
        this.#port.postMessage({ type: "refresh", id });
      });
    }

    unmount() {
      this.#over = true;
      this.#waits?.disconnect();
      clearTimeout(this.#timer);
      this.#port?.close();
      this.iframe?.remove();
      this.#panel?.remove();
      for (const mint of [...mints]) if (mint.source === (this.options.fetchToken ?? this.options.tokenUrl)) forget(mint);
    }

    #always = false; // the next token is to be new

    #dress(wish) {
      Object.assign(this.options, wish);
      this.#port?.postMessage({ type: "dress", ...wish });
    }

    async #begin() {
      this.#waits?.disconnect();
      this.#panel?.remove();
      for (let tries = 1; !this.#over; tries++) {
        try {
          const found = await obtain(this, this.#loads ? "reload" : "initial", false);
          if (!this.#over) this.#place(found);
          return;
        } catch (error) {
          if (!error.retryable || error.retryAfter > 60 || tries >= TRIES) return this.#fail(error);
          await pause(error.retryAfter ? error.retryAfter * 1000 : 500 * 2 ** tries * (0.5 + Math.random() / 2));
        }
      }
    }

    #place(found) {
      const { options } = this;
      this.#first = found.token;
      this.#origin = new URL(found.url).origin;
      this.url = found.url;
      const query = new URLSearchParams({ theme: options.theme, ...(options.locale && { locale: options.locale }) });
      const address = `${found.url}?${query}`;
      this.#expect(LOAD);
      if (this.iframe) {
        this.iframe.contentWindow.location.replace(address); // adds no step to the browser's Back
        return;
      }
      const iframe = (this.iframe = document.createElement("iframe"));
      iframe.title = options.title ?? "";
      iframe.setAttribute("sandbox", options.sandbox);
      iframe.allow = options.allow;
      iframe.referrerPolicy = options.referrerPolicy;
      iframe.style.cssText = "display:block;width:100%;height:100%;border:0;color-scheme:normal";
      iframe.src = address;
      iframe.addEventListener("load", () => this.#connect());
      this.element.append(iframe);
    }

    // On each load: of the first page, of one that was reloaded, of another app of the workspace.
    #connect() {
      const { theme, locale, autoHeight, tokenTimeout } = this.options;
      const { port1, port2 } = new MessageChannel();
      this.#port?.close();
      this.#port = port1;
      port1.onmessage = ({ data }) => object(data) && this.#hear(data, port1);
      const call = { type: "pat-embed:connect", version: 1, theme, locale, autoHeight, tokenTimeout, jitter };
      this.iframe.contentWindow.postMessage(call, this.#origin, [port2]);
      this.#expect(HELLO);
    }

    #expect(ms) {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#blank(), ms);
    }

    // A frame that the browser keeps blank cannot say why. That its address answers says a little.
    async #blank() {
      const url = this.url;
      const there = await fetch(url, { mode: "no-cors", credentials: "omit" }).then(() => true, () => false);
      if (this.#over || url !== this.url) return;
      const { origin } = location;
      const advice = `On its server, \`flask --app app doctor --app ${this.options.app ?? "SLUG"} --parent ${origin}\` says what to change.`;
      this.iframe.remove();
      this.iframe = null;
      this.#fail(there
        ? new PatEmbedError("origin_not_allowed", `The frame stays blank: most likely ${origin}, or a page around it, may not frame the app. ${advice}`)
        : new PatEmbedError("timeout", `${url} does not answer. ${advice}`, { retryable: true }));
    }

    #hear(message, port) {
      const { type, id, name, data } = message;
      if (type === "hello") {
        clearTimeout(this.#timer);
        this.#loads++;
        this.#sent ??= [];
        this.#emit("ready", {});
        if (message.problem) this.#refused(message.problem);
      } else if (type === "want-token") this.#give(message, port);
      else if (type === "event" && RESERVED.test(name)) this.#told(name, object(data) ? data : {});
      else if (type === "app" && typeof name === "string" && !RESERVED.test(name)) this.#emit(name, data);
      else if (type === "restart") this.#restart();
      else if (type === "going") this.#follow(message.origin);
      else if (type === "refreshed") {
        this.#questions.get(id)?.(message.good);
        this.#questions.delete(id);
      }
    }

    #told(name, data) {
      if (name === "loaded") {
        const sent = this.#sent ?? [];
        this.#sent = null;
        for (const each of sent) this.#port.postMessage(each);
        if (this.options.title == null) this.iframe.title = String(data.title ?? "");
      } else if (name === "resize" && this.options.autoHeight && data.height > 0) {
        this.iframe.style.height = `${Math.ceil(data.height)}px`;
      } else if (name === "error") {
        const { code, message, ...rest } = data;
        data = new PatEmbedError(String(code), String(message), rest);
      }
      this.#emit(name, data);
    }

    #emit(name, data) {
      if (this.#over) return;
      for (const handler of this.#handlers.get(name) ?? []) {
        try {
          handler(data);
        } catch (error) {
          reportError(error);
        }
      }
      if (this.element instanceof PatEmbedElement) this.element.dispatchEvent(new CustomEvent(name, { detail: data }));
      if (name === "loaded") this.settle.resolve(this);
      if (name === "error") this.settle.reject(Object.assign(data, { frame: this }));
    }

    async #give({ id, reason, fresh }, port) {
      if (reason === "initial" && this.#loads > 1) reason = "reload";
      const first = !fresh && this.#first;
      const always = this.#always && "always";
      this.#first = null;
      this.#always = false;
      try {
        const found = first ? { token: first, url: this.url } : await obtain(this, reason, always || fresh);
        if (found.url !== this.url) this.#place(found); // the app has another address by now
        else port.postMessage({ type: "token", id, token: found.token });
      } catch (error) {
        const { code, message: detail, status, retryable, retryAfter, requestId } = error;
        port.postMessage({ type: "no-token", id, problem: { code, detail, status, retryable, retryAfter, requestId } });
      }
    }

    // The frame's first page is an error. Where another token mends it, a few times a minute, the frame begins again.
    #refused({ code, message, ...rest }) {
      const now = performance.now();
      this.#restarts = this.#restarts.filter((at) => now - at < 60_000);
      if (MENDED.test(code) && this.#restarts.length < RESTARTS) {
        this.#restarts.push(now);
        this.#restart();
      } else this.#emit("error", new PatEmbedError(code, message, rest));
    }

    #restart() {
      this.#first = null;
      this.#begin();
    }

    // From a launcher to an app and back the frame may change its host, below that of the launcher.
    #follow(origin) {
      const [from, to] = [new URL(this.url), new URL(origin)];
      if (to.protocol === from.protocol && `.${to.host}`.endsWith(`.${from.host}`)) this.#origin = to.origin;
    }

    // What no frame can show.
    #fail(error) {
      if (this.#over) return;
      console.warn(`pat-embed: ${error.code}: ${error.message}`);
      const [text, retry] = WORDS[this.options.locale?.slice(0, 2)] ?? WORDS.en;
      const panel = (this.#panel = document.createElement("div"));
      panel.setAttribute("role", "alert");
      panel.append(text);
      if (error.code !== "origin_not_allowed") {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = retry;
        button.onclick = () => this.#begin();
        panel.append(" ", button);
      }
      this.element.append(panel);
      this.#emit("error", error);
    }
  }

  // ---- How a page asks for one ----

  const DEFAULTS = {
    autoHeight: false, theme: "auto", tokenTimeout: 30_000, loading: "eager", sandbox: SANDBOX, allow: "", referrerPolicy: "no-referrer",
  };

  // Resolves once the app is there, and rejects with the first PatEmbedError if it does not come.
  function mount(target, options) {
    return new Promise((resolve, reject) => {
      const element = typeof target === "string" ? document.querySelector(target) : target;
      if (!(element instanceof Element)) throw new TypeError(`There is no ${target} to mount into.`);
      if (!options?.fetchToken && !options?.tokenUrl) throw new TypeError("fetchToken or tokenUrl is needed.");
      const given = Object.entries(options).filter(([, value]) => value !== undefined && value !== null);
      new Frame(element, { ...DEFAULTS, ...Object.fromEntries(given) }, { resolve, reject });
    });
  }

  class PatEmbedElement extends HTMLElement {
    static observedAttributes = ["app", "workspace", "token-url", "theme", "locale", "title"];
    #fetchToken = null;
    frame = null;

    get fetchToken() { return this.#fetchToken; }
    set fetchToken(value) {
      this.#fetchToken = value;
      this.#renew();
    }

    connectedCallback() {
      this.style.display ||= "block";
      this.#renew();
    }

    disconnectedCallback() { this.#end(); }

    attributeChangedCallback(name, before, value) {
      if (before === value) return;
      if (name === "theme") this.frame?.setTheme(value ?? "auto");
      else if (name === "locale") this.frame?.setLocale(value);
      else if (name !== "title") this.#renew();
      else if (this.frame?.iframe) this.frame.iframe.title = value ?? "";
    }

    #renew() {
      this.#end();
      const get = (name) => this.getAttribute(name) ?? undefined;
      const tokenUrl = get("token-url");
      if (!this.isConnected || !(tokenUrl || this.#fetchToken)) return;
      const options = {
        app: get("app"), workspace: get("workspace"), tokenUrl, fetchToken: this.#fetchToken ?? undefined,
        theme: get("theme"), locale: get("locale"), title: get("title"), loading: get("loading"),
        sandbox: get("sandbox"), allow: get("allow"), referrerPolicy: get("referrerpolicy"),
        autoHeight: this.hasAttribute("auto-height"), tokenTimeout: Number(get("token-timeout")) || undefined,
      };
      const given = Object.entries(options).filter(([, value]) => value !== undefined);
      this.frame = new Frame(this, { ...DEFAULTS, ...Object.fromEntries(given) }, { resolve() {}, reject() {} });
    }

    #end() {
      this.frame?.unmount();
      this.frame = null;
    }
  }

  globalThis.PatEmbed ??= Object.freeze({ version: VERSION, mount, PatEmbedError });
  if (!customElements.get("pat-embed")) customElements.define("pat-embed", PatEmbedElement);
})();
