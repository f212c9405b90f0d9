// The script of every frame: of an app that is open, of a page that waits for a token, of a refusal. It sends the
// session with every request below the app's own address, swaps pages in place, renews the session while the page
// stays, and tells the person and the page around what went wrong. docs/host/embed-js.md has the protocol.
// The session lives in this closure alone: no cookie, no storage, no window.name, no attribute.
(() => {
  "use strict";

  const ACCEPT = "text/html;q=0.9, application/json"; // so that errors come as problem JSON
  const LONGEST_TIMEOUT = 2 ** 31 - 1; // ms; a browser fires a longer one at once
  const BLOB_LIFETIME = 60_000; // ms; a browser may read a saved blob some time after the click
  const LOOK = 20_000; // ms between looks at the session of a frame that is seen and idle
  const MOST_LEAD = 60_000; // ms before its end that a session is renewed, or a tenth of its life
  const MOST_STALE = 3; // tries with another token, where one was replaced before it was used
  const MOST_FAILURES = 6; // of the network, or of a server: then a person has to press
  const LONGEST_WAIT = 60; // s that a Retry-After is waited for without a person
  const MOST_GROWTH = 8; // times that the content may grow in a row before it is asked why
  const REST = 200; // ms in which a host has given a frame its height
  const INVALID = '[aria-invalid]:not([aria-invalid="false"])';
  const THEMES = ["light", "dark", "auto"];
  const STALE = ["token_superseded", "token_used", "token_expired"];

  const EXPIRED = { status: 401, code: "session_expired", detail: "The session has expired. Open the app again." };
  const CLOSED = { status: 401, code: "session_revoked", detail: "The session was ended from inside the app." };
  const UNREACHABLE = { status: 0, code: "unreachable", detail: "The server could not be reached." };
  const REDIRECTED = { status: 0, code: "redirect_refused", detail: "The app sent this request elsewhere, where it may not go." };
  const NO_TOKEN = { status: 0, code: "timeout", detail: "The page around gave no token in time.", retryable: true };

  // Taken before the app's scripts run: one that wraps them later would see the session.
  const fetch = window.fetch;
  const { submit } = HTMLFormElement.prototype;
  const { attachShadow } = Element.prototype;
  const { postMessage } = MessagePort.prototype;
  const { set } = Headers.prototype;
  const { nonce } = document.currentScript;
  const block = document.getElementById("embed-boot");
  const boot = JSON.parse(block.textContent);
  block.remove();

  const { base = "", parents } = boot;
  // Before a script of the app can keep this page busy: its host takes one that is silent for blank.
  if (boot.parent) {
    try {
      window.parent.postMessage({ type: "pat-embed:here" }, boot.parent);
    } catch {
      // A custom scheme, which some browsers take for no target: the host waits a few seconds for the answer to its call.
    }
  }
  const empty = !boot.session && !boot.problem; // made by the host's script, to be handed a token
  const root = new URL(`${base}/`, location.origin);
  let texts = JSON.parse(document.getElementById("embed-texts").textContent);
  let { language, locale, theme, problem = null, session = "", ways = [], viewer = null } = boot;
  let main, notice, announcer; // of the page that is shown
  let life; // an AbortController, aborted when the frame is over

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
  const now = () => performance.now(); // a clock that nobody can set
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  const between = (least, most) => least + Math.random() * (most - least);
  const when = (target, type, listener) => target.addEventListener(type, listener);

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

  // ---- The line to the script of the page around ----

  let port = null; // once that script has called
  let host = null; // the origin that it called from
  let patience = 60_000; // ms that it may take for a token
  let jitter = Math.random(); // the host's own where it gives one, so that its frames are renewed together
  let questions = 0;
  let speaking; // the locale that was wished for last
  const waiting = new Map(); // number of a question → what takes the answer
  const listeners = new Map(); // name → functions of the app's scripts

  function connect(event) {
    const { source, origin, data, ports } = event;
    if (source !== window.parent || source === window || data?.type !== "pat-embed:connect" || ports.length !== 1) return;
    event.stopImmediatePropagation(); // the port brings tokens: a script of the app must not get hold of it
    if (!parents.includes(origin.toLowerCase()) && !parents.includes("*")) return; // Safari writes ids in capitals
    // To write a page is a load as well, after which the host's script calls once more.
    const again = Boolean(port && session);
    [port] = ports; // the one before stays open: something may still be on its way
    host = origin;
    port.onmessage = (event) => hear(event.data);
    for (const take of [...waiting.values()]) take({ problem: NO_TOKEN }); // asked on a line that is no more
    if (data.tokenTimeout > 0) patience = data.tokenTimeout + 5000;
    if (data.jitter >= 0 && data.jitter <= 1) ({ jitter } = data);
    say("hello", { again, problem: problem && told(problem) });
    dress(data);
    if (again) return;
    if (session) {
      opened();
      watch(); // there is somebody to ask for a token now
    } else if (problem) offer();
    else if (!renewing) open("initial");
  }

  const awaitCall = () => window.addEventListener("message", connect, true);

  function say(type, fields) {
    if (port) postMessage.call(port, { type, ...fields });
  }

  const emit = (name, data) => say("event", { name, data });

  function hear(message) {
    const { type, id, name, data, ...rest } = message ?? {};
    if (type === "token" || type === "no-token") waiting.get(id)?.(rest);
    else if (type === "dress") dress(rest);
    else if (type === "send") publish(name, data);
    else if (type === "refresh") refresh();
  }

  function publish(name, data) {
    for (const listener of listeners.get(name) ?? []) {
      try {
        listener(data);
      } catch (error) {
        reportError(error); // one that fails keeps nobody else from hearing
      }
    }
  }

  function dress(wish) {
    if (THEMES.includes(wish.theme) && wish.theme !== theme) {
      theme = wish.theme;
      document.documentElement.dataset.theme = theme;
      publish("embed:theme", theme);
    }
    if (wish.locale && wish.locale !== locale) speak(String(wish.locale));
    if (wish.autoHeight !== undefined) {
      measured = wish.autoHeight ? 0 : null;
      following = null;
    }
    fit();
  }

  async function speak(wished) {
    speaking = wished;
    const query = new URLSearchParams({ locale: wished });
    const response = await fetch(`/embed-texts?${query}`, { credentials: "omit" }).catch(() => null);
    const found = response?.ok && (await response.json().catch(() => null));
    if (!found || wished !== speaking) return;
    ({ locale, language, texts } = found);
    publish("embed:locale", locale);
  }

  // ---- The session, and the next one ----

  let deadline = 0; // of the session, by `now`
  let lifetime = 0; // ms of the session, when it began
  let timer, looking;
  let heardAt = 0; // when the server last answered for the session
  let renewing = null; // a promise: is the session good?
  let stopped = null; // the problem that another token would not mend
  let expired = false; // has it been said?

  function take(opening) {
    ({ session, viewer } = opening);
    hold(opening.expiresIn);
    lifetime = opening.expiresIn * 1000;
    stopped = null;
    expired = false;
  }

  function hold(seconds) {
    heardAt = now();
    deadline = heardAt + seconds * 1000;
  }

  // Timers sleep with the computer and in hidden frames, and a browser's clock may sleep as well: on waking the
  // server is asked.
  function watch(reason) {
    clearTimeout(timer);
    if (!session) return;
    const left = deadline - now();
    if (left <= 0) {
      expire(reason);
      return;
    }
    const renewable = port && !stopped;
    const lead = Math.min(MOST_LEAD, lifetime / 10) * (1 + jitter / 2);
    if (renewable && left <= lead && !document.hidden) renew(reason ?? "expiring");
    const next = renewable && left > lead ? left - lead : left;
    timer = setTimeout(watch, Math.min(next, LONGEST_TIMEOUT));
  }

  function expire(reason) {
    if (!port) {
      fail(EXPIRED);
      return;
    }
    if (!expired) emit("session:expired", {});
    expired = true;
    if (document.hidden) return; // nobody needs it: on waking
    if (stopped) {
      cover(stopped);
      return;
    }
    reconnecting(true);
    renew(reason ?? "expired");
  }

  async function look(reason) {
    clearTimeout(looking);
    if (life.signal.aborted) return;
    looking = setTimeout(look, LOOK * between(0.9, 1.1));
    if (!session || document.hidden || renewing || expired || (!reason && now() - heardAt < LOOK / 4)) return;
    const before = session;
    const response = await ask(new URL("session", root)).catch(() => null);
    if (session !== before) return; // renewed meanwhile
    if (response?.ok) {
      const facts = await response.json().catch(() => null);
      if (facts) hold(facts.expiresIn);
      watch(reason);
    } else if (response?.status === 401) {
      const found = await problemOf(response);
      if (port && found.code === "session_expired") {
        deadline = now();
        watch(reason);
      } else fail(found);
    }
  }

  function wake() {
    if (document.hidden) return;
    if (stopped && again(stopped)) {
      stopped = null;
      cover(null);
    }
    watch("visible");
    look("visible");
  }

  // Get another session, one attempt at a time, and tell whether there is a good one. The page stays as it is.
  function renew(reason) {
    renewing ??= replace(reason).finally(() => { renewing = null; });
    return renewing;
  }

  async function replace(reason) {
    const left = Math.floor((deadline - now()) / 1000);
    if (left > 0) emit("session:expiring", { expiresIn: left });
    try {
      const opening = await exchange(reason);
      if (life.signal.aborted) return false; // ended meanwhile
      if (opening.viewer.user.id !== viewer.user.id) {
        // Somebody else has signed in at the host: what stands here is not theirs.
        say("restart");
        return false;
      }
      take(opening);
      cover(null);
      watch();
      emit("session:renewed", { expiresIn: opening.expiresIn });
      return true;
    } catch (found) {
      tell(found);
      const over = deadline <= now();
      stopped = over || !again(found) ? found : null; // a session that lives on is renewed at its end at the latest
      if (over) cover(found);
      else watch();
      return false;
    } finally {
      reconnecting(false);
    }
  }

  async function open(reason) {
    renewing = exchange(reason, nonce);
    try {
      install(await renewing);
    } catch (found) {
      refuse(found);
    } finally {
      renewing = null;
    }
  }

  // Return what the server opens for a token of the host, or throw the problem.
  async function exchange(reason, forPage) {
    let stale = 0;
    for (let failures = 0; ; ) {
      try {
        return await enter(await token(reason, stale > 0), forPage);
      } catch (found) {
        if (!found.code) throw found;
        if (STALE.includes(found.code) && stale < MOST_STALE) {
          await pause(between(100, 500) * 2 ** stale++); // other tabs of the host mint too
        } else if (again(found) && failures < MOST_FAILURES) {
          await pause(found.retryAfter > 0 ? found.retryAfter * 1000 + between(0, 500) : between(0.5, 1) * 1000 * 2 ** failures);
          failures++;
        } else throw found;
      }
    }
  }

  // Can the same thing go well in a moment, without anybody's doing?
  function again({ status, retryable = status === 0 || status === 429 || status >= 500, retryAfter }) {
    return retryable && !(retryAfter > LONGEST_WAIT);
  }

  function token(reason, fresh) {
    return new Promise((resolve, reject) => {
      const id = ++questions;
      const late = setTimeout(() => waiting.get(id)({ problem: NO_TOKEN }), patience);
      waiting.set(id, (answer) => {
        clearTimeout(late);
        waiting.delete(id);
        if (answer.token) resolve(answer.token);
        else reject(answer.problem ?? NO_TOKEN);
      });
      say("want-token", { id, reason, fresh });
    });
  }

  async function enter(accessToken, forPage) {
    const response = await fetch(new URL("frame", root), {
      method: "POST",
      headers: { ...wishes(), Accept: "application/json", "Content-Type": "application/json" },
      body: JSON.stringify({ accessToken, parentOrigin: host.toLowerCase(), nonce: forPage }),
      mode: "same-origin",
      credentials: "omit",
      cache: "no-store",
      redirect: "error",
    }).catch(() => { throw UNREACHABLE; });
    if (!response.ok) throw await problemOf(response);
    return response.json().catch(() => { throw UNREACHABLE; });
  }

  // The page is written into this document, whose script, and with it the line to the host, goes on.
  function install(opening) {
    ({ ways, language, locale, theme } = opening);
    take(opening);
    say("written"); // to write is a load as well, and the app may be busy then
    document.open(); // takes all listeners of the document and the window away
    awaitCall(); // before any script of the app can
    // When all is parsed, and before a script that is deferred.
    document.addEventListener("readystatechange", start, { once: true });
    document.write(opening.page);
    document.close();
  }

  function opened() {
    emit("loaded", { app: viewer.app ?? null, workspace: viewer.workspace, title: document.title });
  }

  function refresh() {
    if (session) renew("expiring");
    else say("restart");
  }

  // ---- Requests ----

  // What the host wishes for, as the server reads it.
  const wishes = () => ({ "Accept-Language": locale, "X-Embed-Theme": theme });

  // Fetch an address of this app as the viewer. An answer that failed is told and returned; a request that
  // failed is told and rejects. Any other address throws a TypeError at once, and nothing is sent.
  function send(address, init) {
    const url = inside(address);
    if (!url) throw new TypeError(`Not an address of this app: ${address}`);
    return request(url, init);
  }

  async function request(url, init = {}) {
    if (expired && renewing) await renewing;
    const before = session;
    let response = await ask(url, init).catch(lost);
    if (response.status === 401 && port && !stopped && !(init.body instanceof ReadableStream)) {
      const { code } = await problemOf(response);
      // A refusal did nothing, so that the same request may come again with the next session.
      if (code === "session_expired" && (session !== before || (await renew("expired")))) response = await ask(url, init).catch(lost);
    }
    if (response.type === "opaqueredirect") {
      fail(REDIRECTED);
      throw new TypeError(REDIRECTED.detail);
    }
    heardAt = now();
    if (!swappable(response)) fail(await problemOf(response));
    return response;
  }

  function ask(url, init = {}) {
    const headers = new Headers(init.headers);
    for (const [name, value] of Object.entries(wishes())) if (!headers.has(name)) headers.set(name, value);
    set.call(headers, "Accept", ACCEPT);
    set.call(headers, "Authorization", `Bearer ${session}`);
    return fetch(url, {
      ...init,
      headers,
      mode: "same-origin",
      credentials: "omit",
      cache: "no-store",
      redirect: "manual", // following one would carry the session to an address that nobody has checked
      signal: AbortSignal.any([life.signal, init.signal].filter(Boolean)),
    });
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
    const found = known ? await response.clone().json().catch(() => ({})) : {};
    return {
      status,
      code: found.code ?? "unknown",
      detail: found.detail ?? texts.words.status.replace("{status}", status),
      requestId: found.requestId ?? headers.get("X-Request-Id"),
      retryAfter: Number(headers.get("Retry-After")) || null,
    };
  }

  // ---- Failures ----

  function fail(found) {
    if (life.signal.aborted) return;
    if (found.status !== 401) {
      tell(found);
      notify(found);
    } else if (found.code === "session_expired" && port) {
      deadline = Math.min(deadline, now());
      watch();
    } else {
      if (found.code === "session_expired") emit("session:expired", {});
      else emit("session:revoked", { code: found.code });
      tell(found);
      end(found);
    }
  }

  function told({ status = 0, code, detail, requestId = null, retryAfter = null, retryable = texts.retry.includes(code) }) {
    return { status, code, message: detail, requestId, retryAfter, retryable };
  }

  // ToolJet's message, which any page can listen for, and the event for the host's script.
  function tell(found) {
    const { status: error, code, message, requestId } = told(found);
    emit("error", told(found));
    if (window.parent === window) return;
    // A frame of the host's script knows its one parent; else each that may frame the app is told.
    for (const origin of host ? [host] : parents) {
      if (origin === "*" && empty) continue;
      try {
        window.parent.postMessage({ type: "TJ_EMBED_APP_LOGOUT", error, message, code, requestId }, origin);
      } catch {
        // Some browsers take no custom scheme for a target; the other origins are told all the same.
      }
    }
  }

  // Heading and advice. What has no code of ours is told in the words of whoever answered.
  function words({ code, detail }) {
    const [title, advice] = texts.codes[code] ?? texts.codes.unknown;
    return code in texts.codes && code !== "unknown" ? [title, advice] : [title, detail ?? advice];
  }

  function notify(found) {
    const [title, advice] = found.code === "rate_limited" ? [texts.words.rate_limited, ""] : words(found);
    const wait = found.retryAfter ? texts.words.wait.replace("{seconds}", found.retryAfter) : "";
    const text = element("p", { lang: language }, element("strong", { textContent: title.replace(/\.?$/, ".") }), ` ${advice} ${wait}`.trimEnd());
    const before = document.activeElement;
    const dismiss = element("button", { type: "button", className: "button quiet", textContent: texts.words.dismiss });
    when(dismiss, "click", () => {
      notice.replaceChildren();
      focus(main.contains(before) ? before : main);
    });
    notice.replaceChildren(element("div", { className: "notice" }, text, dismiss));
  }

  // The frame is over: what it showed is gone.
  function end(found) {
    // Who may open this app no longer may go back to their others, if the session is one of a workspace.
    const bar = found.code === "access_revoked" ? document.querySelector("body > .embed-bar") : null;
    if (!bar) session = "";
    problem = found;
    clearTimeout(timer);
    life.abort();
    document.body.replaceChildren(...[bar, panel(found, () => say("restart"))].filter(Boolean));
    document.title = words(found)[0];
    focus(document.querySelector("h1"));
  }

  // No session came: the page that waits says why.
  function refuse(found) {
    tell(found);
    document.body.replaceChildren(panel(found, () => {
      document.body.replaceChildren(state("embed-opening", texts.words.opening));
      open("reload");
    }));
    document.title = words(found)[0];
  }

  // The service refused this page; the host's script can begin again.
  function offer() {
    const button = document.getElementById("embed-retry");
    if (!button || !mendable(problem)) return;
    button.hidden = false;
    document.querySelector(".by-hand")?.remove();
    when(button, "click", () => say("restart"));
  }

  let left; // what had the focus

  // The session is over and no other has come. What a person has typed waits behind this; null takes it away.
  function cover(found) {
    const there = document.querySelector(".embed-cover");
    if (!there) left = document.activeElement;
    for (const child of document.body.children) child.inert = Boolean(found);
    there?.remove();
    if (!found) {
      if (there && document.hasFocus()) left?.focus();
      return;
    }
    const made = panel(found, () => {
      stopped = null;
      cover(null);
      renew("expired");
    });
    document.body.append(element("div", { className: "embed-cover" }, made));
    focus(made.querySelector("h1"));
  }

  function reconnecting(going) {
    document.querySelector(".embed-reconnecting")?.remove();
    if (going) document.body.append(state("embed-reconnecting", texts.words.reconnecting));
  }

  function state(className, text) {
    return element("div", { className, role: "status", lang: language }, element("span", { textContent: text }));
  }

  // May another token help, after a person has done something about it, such as to sign in at the host again?
  const mendable = ({ code }) => texts.retry.includes(code);

  // What happened, what to do, and where it may help and the host can be asked, a button to try again.
  function panel(found, retry) {
    const [title, advice] = words(found);
    const made = element("main", { className: "embed-refused" }, element("h1", { textContent: title }), element("p", { textContent: advice }));
    if (mendable(found)) {
      made.append(port ? retryButton(found.retryAfter, retry) : element("p", { className: "by-hand", textContent: texts.words.reload }));
    }
    const reference = element("p", { className: "reference" }, element("span", { textContent: found.code }));
    if (found.requestId) {
      const [before, after] = texts.words.request.split("{id}");
      reference.append(" ", element("span", {}, before, element("bdi", { className: "request-id", textContent: found.requestId }), after));
    }
    made.append(reference);
    made.lang = language;
    return made;
  }

  function retryButton(seconds, retry) {
    const button = element("button", { type: "button", className: "button primary" });
    const count = (left) => {
      button.disabled = left > 0;
      button.textContent = left > 0 ? texts.words.wait.replace("{seconds}", left) : texts.words.retry;
      if (left > 0) setTimeout(count, 1000, left - 1);
    };
    count(Math.min(Math.ceil(seconds ?? 0), LONGEST_WAIT));
    when(button, "click", retry);
    return button;
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
      emit("navigate", { page: decodeURIComponent(url.pathname.slice(root.pathname.length + "pages/".length)), title: document.title });
    }
  }

  function show(html, invalid, anchor) {
    const page = new DOMParser().parseFromString(html, "text/html");
    notice.replaceChildren();
    main.replaceChildren(...page.body.childNodes);
    window.htmx?.process(main);
    fitAnew();
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

  function clicked(event) {
    const elsewhere = event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey;
    if (event.defaultPrevented || elsewhere) return;
    const target = event.target.closest("[data-embed-go], [data-embed-download], a[href]");
    if (!target) return;
    if (target.hasAttribute("data-embed-go")) {
      event.preventDefault();
      go(target.dataset.embedGo);
      return;
    }
    if (target.hasAttribute("data-embed-download")) {
      event.preventDefault();
      download(target);
      return;
    }
    const url = !leftAlone(target) && inside(target.getAttribute("href"), "pages/");
    if (!url) return;
    event.preventDefault();
    visit(url);
  }

  function submitted(event) {
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
  }

  // ---- Parts: htmx ----

  const submitting = new WeakSet();

  function configured(event) {
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
  }

  // ---- Other apps of the workspace ----

  // The session goes along in the body of a form, so that it stands in no address; and the form is where no
  // script of the page can look into.
  function go(address) {
    if (!ways.includes(address)) return; // an app's own markup may say anything
    say("going", { origin: new URL(address, location.href).origin });
    const query = new URLSearchParams({ theme, locale, ...(host && { parent: host }) });
    const form = element("form", { method: "post", action: `${address}?${query}` });
    form.append(element("input", { type: "hidden", name: "session", value: session }));
    const cloak = element("div", { hidden: true });
    attachShadow.call(cloak, { mode: "closed" }).append(form);
    document.body.append(cloak);
    submit.call(form);
    cloak.remove();
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

  async function download(target) {
    if (target.ariaBusy === "true") return;
    target.ariaBusy = "true";
    const { response, blob } = await file(target.dataset.embedDownload);
    target.ariaBusy = null;
    if (!blob) return;
    const name = fileName(response) || target.dataset.embedFilename || response.url.split("/").pop();
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

  // ---- The height of the content ----

  let measured = null; // the height that the host was told; null where it did not ask
  let growth = 0; // times that it grew in a row, without a rest
  let resting; // a timer, until it is seen to stand still
  let judging = null; // a timer, while it is found out why it grows
  let following = null; // {inner, height} of a page that is as high as its frame, and more

  const contentHeight = () => Math.ceil(document.documentElement.getBoundingClientRect().height);

  function fit() {
    document.documentElement.toggleAttribute("data-auto-height", measured !== null);
    if (measured === null || judging || unstyled()) return;
    const height = contentHeight();
    if (following && height >= measured) {
      // What its frame's height has done to it must not be told again; what changed by itself is.
      const by = innerHeight === following.inner ? height - following.height : 0;
      following = { inner: innerHeight, height };
      if (by) size(Math.max(measured + by, 1));
      return;
    }
    following = null;
    if (height === measured) return;
    growth = height > measured ? growth + 1 : 0;
    if (growth > MOST_GROWTH) judging = setTimeout(judge, REST, height);
    else size(height);
  }

  // Does it grow by itself, as in a transition? Else it is given one more height: one that then grows again does so
  // because its frame does, and would for ever.
  function judge(before) {
    const height = contentHeight();
    size(height);
    if (height > before) {
      judging = null;
      growth = MOST_GROWTH - 2; // it is asked again soon
      return;
    }
    judging = setTimeout(() => {
      judging = null;
      if (contentHeight() > height) following = { inner: innerHeight, height: contentHeight() };
      fit();
    }, REST);
  }

  function size(height) {
    if (measured === null || height === measured) return;
    measured = height;
    emit("resize", { height });
  }

  // What stands still in a frame that has followed is no loop, however slowly that would go.
  function rest() {
    clearTimeout(resting);
    resting = setTimeout(() => {
      if (measured === contentHeight() && Math.abs(innerHeight - measured) < 1) growth = 0;
    }, REST);
  }

  // Without its sheets a page has another height.
  const unstyled = () => [...document.querySelectorAll('link[rel="stylesheet"]')].some(({ sheet }) => !sheet);

  // Another page may be another matter.
  function fitAnew() {
    growth = 0;
    following = null;
    fit();
  }

  // ---- For the app's own scripts ----

  const reserved = (name) => /^(ready|loaded|resize|navigate|error|session:.*|embed:.*)$/.test(name);

  const embed = Object.freeze({
    get viewer() { return viewer; },
    get theme() { return theme; },
    get locale() { return locale; },
    // Like window.fetch, for addresses of this app alone; a relative one counts from the app's own.
    fetch: async (path, init) => send(new URL(path, root), init),
    // Show a page of the app, as a link to it would.
    page: async (name, params) => visit(new URL(`pages/${name}?${new URLSearchParams(params)}`, root)),
    // Tell the page around, if it embeds by our script: its `frame.on(name, …)` hears it.
    send: (name, data) => {
      if (typeof name !== "string" || reserved(name)) throw new TypeError(`Not a name for an event of an app: ${name}`);
      say("app", { name, data });
    },
    // Hear what the page around sends by `frame.send(name, data)`, and "embed:theme" and "embed:locale". Returns a
    // function that ends it.
    on: (name, listener) => {
      const known = listeners.get(name) ?? new Set();
      listeners.set(name, known.add(listener));
      return () => known.delete(listener);
    },
    // End the session on the server, then here.
    end: async () => {
      const response = await send(new URL("session", root), { method: "DELETE" });
      if (response.ok) fail(CLOSED);
    },
  });

  // ---- Start ----

  // With the page that this script came with, and with each that is written into it.
  function start() {
    life = new AbortController();
    main = document.getElementById("embed-main");
    notice = document.getElementById("embed-notice");
    announcer = document.getElementById("embed-status");
    when(window, "load", fit);
    when(window, "resize", rest);
    new ResizeObserver(fit).observe(document.documentElement);
    fit();
    if (!session) return;
    when(document, "click", clicked);
    when(document, "submit", submitted);
    when(document, "htmx:config:request", configured);
    when(document, "visibilitychange", wake);
    when(window, "pageshow", (event) => event.persisted && wake());
    const observed = { childList: true, subtree: true, characterData: true, attributes: true, attributeFilter: ["data-embed-src"] };
    new MutationObserver(fill).observe(document.body, observed);
    fill();
    window.embed = embed;
    when(document, "DOMContentLoaded", opened); // the app's scripts listen by then
    watch();
    look();
  }

  if (session) take(boot);
  awaitCall();
  start();
  if (problem) tell(problem);
})();
