// The script of every frame: of open apps, of pages that wait for a token, and of refusals. It sends the session with
// every request of the app, swaps pages in place, renews the session, and reports errors to the viewer and to the host
// page. It stores the session nowhere in the browser: no cookie, no storage, no window.name, no attribute. It does not
// hide the session from scripts of the app, which could send any request with it: it opens this app and nothing else.
(() => {
  "use strict";

  const ACCEPT = "text/html;q=0.9, application/json"; // so that errors come as problem JSON
  const MAX_TIMEOUT_MS = 2 ** 31 - 1; // browsers run longer timers at once
  const BLOB_LIFETIME_MS = 60_000; // a browser may read a saved blob some time after the click
  const CHECK_MS = 20_000; // between checks of the session in a visible, idle frame
  const MAX_LEAD_MS = 60_000; // renew a session this long before its end, or a tenth of its life
  const MAX_JITTER = 1.5; // earlier by this factor at most, so that frames do not renew all at once
  const MAX_STALE = 3; // attempts with another token after a stale one
  const MAX_FAILURES = 6; // failures of network or server before the viewer must press a button
  const MAX_WAIT_SECONDS = 60; // longest Retry-After that the script waits for by itself
  const RECOVER_MS = 30_000; // until a covered frame tries again, doubled each time
  const MAX_RECOVER_MS = 300_000;
  const MAX_GROWTH = 8; // times that the content may grow in a row before the script looks for a loop
  const REST_MS = 200; // a host sets a frame's height within this time
  const MAX_TRAIL = 50; // pages whose scroll position the frame remembers
  const STEPS = Array.from({ length: 21 }, (_, step) => step / 20); // visible shares of an element
  const INVALID = '[aria-invalid]:not([aria-invalid="false"])';
  const THEMES = ["light", "dark", "auto"];
  const STALE = ["token_superseded", "token_used", "token_expired"];

  const EXPIRED = { status: 401, code: "session_expired", detail: "The session has expired. Open the app again." };
  const CLOSED = { status: 401, code: "session_revoked", detail: "The session was ended from inside the app." };
  const UNREACHABLE = { status: 0, code: "unreachable", detail: "The server could not be reached." };
  const REDIRECTED = { status: 0, code: "redirect_refused", detail: "The app redirected this request to an address that is not allowed." };
  const NO_TOKEN = { status: 0, code: "timeout", detail: "The host page gave no token in time.", retryable: true };

  // Saved before the app's scripts run, so that wrappers, such as those of monitoring scripts, log no session.
  const { fetch } = window;
  const { addEventListener } = EventTarget.prototype;
  const { postMessage } = MessagePort.prototype;

  // An element can hide a member of the document or the window from every script, by its name (HTML, named access):
  // <img name="getElementById">. Remove the name from an element like that.
  const HIDING = "form[name], img[name], iframe[name], embed[name], object:is([name], [id]), [id$=Event], [id$=Listener]";
  function unhide(page) {
    for (const found of Document.prototype.querySelectorAll.call(page, HIDING)) {
      for (const attribute of ["name", "id"]) {
        const name = Element.prototype.getAttribute.call(found, attribute);
        if (name in Document.prototype) Element.prototype.removeAttribute.call(found, attribute);
      }
    }
  }
  const names = { childList: true, subtree: true, attributes: true, attributeFilter: ["name", "id"] };
  new MutationObserver(() => unhide(document)).observe(document, names);

  const { nonce } = document.currentScript;
  const [boot, firstTexts] = window.embedBoot;
  delete window.embedBoot;

  const { base = "", parents } = boot;
  // Sent before the app's scripts can keep this page busy: the host treats a silent page as blank.
  if (boot.parent) {
    try {
      window.parent.postMessage({ type: "pat-embed:here" }, boot.parent);
    } catch {
      // Some browsers reject a custom scheme as a target. The host then waits for the answer to its call.
    }
  }
  const empty = !boot.session && !boot.problem; // embed.js made this frame and will hand it a token
  const root = new URL(`${base}/`, location.origin);
  let texts = firstTexts;
  let { language, locale, theme, problem = null, session = "", viewer = null } = boot;
  let main, notice, announcer; // elements of the shown page
  const life = new AbortController(); // aborted when the frame is over

  function resolve(address) {
    try {
      return new URL(address, document.baseURI);
    } catch {
      return null;
    }
  }

  // Return the URL if it belongs to this app (below `folder`), else null. Parsing resolves "..", "//host" and
  // backslashes. Encoded slashes, dots and percents are refused, since a proxy may decode them.
  function inside(address, folder = "") {
    const url = resolve(address);
    if (!url) return null;
    const ours = url.origin === root.origin && url.pathname.startsWith(root.pathname + folder);
    return ours && !/%(25|2e|2f|5c)/i.test(url.pathname) ? url : null;
  }

  const isRenewable = (code) => code === "session_expired" || code === "session_replaced";
  const swappable = (response) => response.ok || response.status === 422;
  const now = () => performance.now(); // a clock that cannot be set
  const between = (least, most) => least + Math.random() * (most - least);
  const when = (target, type, listener, options) => addEventListener.call(target, type, listener, options);

  function element(tag, properties, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  // Move the focus only if the frame has it already: never take it from the host page.
  function focus(target, options) {
    if (!document.hasFocus()) return;
    if (target.tabIndex < 0) target.tabIndex = -1;
    target.focus(options);
  }

  // ---- In sight ----

  // A frame as high as its content is its own viewport, so `fixed` and `sticky` do not follow the viewer there. Across
  // origins only an IntersectionObserver knows the visible part.
  function seeVisiblePart(take) {
    const observer = new IntersectionObserver(([entry]) => {
      observer.disconnect();
      take(entry.intersectionRect);
    });
    observer.observe(document.documentElement);
  }

  const clamp = (value, one, other) => Math.max(Math.min(one, other), Math.min(Math.max(one, other), value));

  // Move the part into the visible part of the frame, as often as it is cut off: to its top, or to its middle. The host's
  // page is never scrolled.
  const kept = new WeakSet();
  function keepInSight(part, { edge = 8, middle = false } = {}) {
    if (kept.has(part)) return;
    kept.add(part);
    let shift = 0;
    let placed = false;
    const isOver = () => !part.isConnected || part.open === false;
    const watcher = new IntersectionObserver((entries) => {
      if (isOver()) stop();
      else if (!placed || entries.some(({ target, intersectionRatio }) => target !== part || intersectionRatio < 1)) place();
    }, { threshold: STEPS });

    function stop() {
      kept.delete(part);
      watcher.disconnect();
      part.style.translate = "";
    }

    function place() {
      seeVisiblePart((seen) => {
        if (isOver() || !seen.height) return;
        const { top, bottom, height } = part.getBoundingClientRect();
        const gap = clamp((seen.height - height) / 2, 0, edge);
        const [first, last] = [seen.top + gap, seen.bottom - gap - height];
        const inside = top >= seen.top && bottom <= seen.bottom;
        let wanted = clamp(top, first, last);
        if (last >= first && middle && !placed) wanted = (first + last) / 2;
        else if (last >= first && !middle) wanted = inside ? top : first;
        placed = true;
        if (Math.abs(wanted - top) < 1) return;
        shift += wanted - top;
        part.style.translate = `0 ${shift}px`;
        watcher.unobserve(part); // so that it is compared with the place of then
        watcher.observe(part);
      });
    }

    watcher.observe(part);
    watcher.observe(document.documentElement);
  }

  // ---- The connection to embed.js in the host page ----

  let port = null; // set when embed.js has connected
  let host = null; // the origin of the host page
  let tokenTimeoutMs = 60_000; // for a token of the host
  let jitter = Math.random(); // the host's value, if it sends one, so that its frames renew together
  let questions = 0;
  let link = {}; // {page, params} at which the host opens the app
  let asked = 0; // the number of the host's last call for a page
  let endsWithHost = false; // whether the session ends when the host removes the frame
  let wantedLocale; // the locale that the host asked for last
  const waiting = new Map(); // id of a question → function that takes the answer
  const listeners = new Map(); // name → functions of the app's scripts
  let passOn = publish; // takes the host's events

  function connect(event) {
    const { source, origin, data, ports } = event;
    if (source !== window.parent || source === window || data?.type !== "pat-embed:connect" || ports.length !== 1) return;
    event.stopImmediatePropagation(); // the port is for this script
    if (!parents.includes(origin.toLowerCase()) && !parents.includes("*")) return; // Safari writes ids in capitals
    // Writing a page fires a load as well, after which embed.js connects again.
    const again = Boolean(port && session);
    [port] = ports; // the previous port stays open: messages may still arrive on it
    host = origin;
    port.onmessage = (event) => hear(event.data);
    for (const take of [...waiting.values()]) take({ problem: NO_TOKEN }); // asked through the previous port
    if (data.tokenTimeout > 0) tokenTimeoutMs = data.tokenTimeout + 5000;
    link = { page: data.page, params: data.params };
    ({ asked } = data);
    endsWithHost = data.endOnUnmount;
    if (data.jitter >= 0 && data.jitter <= 1) ({ jitter } = data);
    say("hello", { again: again || Boolean(boot.moved), problem: problem && describe(problem) });
    changeAppearance(data);
    if (again) return;
    if (session) {
      if (hasOpened) opened();
      watch(); // a host can now provide tokens
    } else if (problem) offer();
    else if (!renewing) open("initial");
  }

  const awaitCall = () => when(window, "message", connect, true);

  function say(type, fields) {
    if (port) postMessage.call(port, { type, ...fields });
  }

  const emit = (name, data) => say("event", { name, data, asked });

  function hear(message) {
    const { type, id, name, data, ...rest } = message ?? {};
    if (type === "token" || type === "no-token") waiting.get(id)?.(rest);
    else if (type === "dress") changeAppearance(rest);
    else if (type === "send") passOn(name, data);
    else if (type === "refresh") refresh();
    else if (type === "navigate") navigate(rest);
    else if (type === "end") endForHost().then((ok) => say("ended", { ok }));
  }

  function publish(name, data) {
    for (const listener of listeners.get(name) ?? []) attempt(listener, data);
  }

  function changeAppearance(change) {
    if (THEMES.includes(change.theme) && change.theme !== theme) {
      theme = change.theme;
      document.documentElement.dataset.theme = theme;
      publish("embed:theme", theme);
    }
    if (change.locale && change.locale !== locale) loadTexts(String(change.locale));
    if (change.autoHeight !== undefined) {
      measured = change.autoHeight ? measured ?? 0 : null;
      following = null;
    }
    fit();
  }

  async function loadTexts(wanted) {
    wantedLocale = wanted;
    const query = new URLSearchParams({ locale: wanted });
    const response = await fetch(`/embed-texts?${query}`, { credentials: "omit" }).catch(() => null);
    const found = response?.ok && (await response.json().catch(() => null));
    if (!found || wanted !== wantedLocale) return;
    ({ locale, language, texts } = found);
    publish("embed:locale", locale);
  }

  // ---- The session, and the next one ----

  let deadline = 0; // end of the session, as `now` counts
  let lifetime = 0; // ms from the session's start to its end
  let timer, checkTimer;
  let checkedAt = 0; // when the server last confirmed the session
  let renewing = null; // a promise of a renewal: true if it got a session
  let stopped = null; // the problem that a new token cannot fix
  let recovering = false; // true while a covered frame tries again by itself
  let recoveries = 0; // attempts of that kind in a row
  let recoverTimer;
  let endPause = () => {}; // ends the pause before the next attempt
  let expired = false; // true when the host has got the event
  let permissions = []; // what the app declares of the browser's features
  let credentials = "omit"; // an app that runs elsewhere needs its cookie

  function take(opening) {
    ({ session, viewer, permissions = [] } = opening);
    credentials = opening.upstream ? "same-origin" : "omit";
    hold(opening.expiresIn);
    lifetime = opening.expiresIn * 1000;
    stopped = null;
    expired = false;
    recoveries = 0;
    clearTimeout(recoverTimer);
  }

  function hold(seconds, from = now()) {
    checkedAt = from;
    deadline = from + seconds * 1000;
  }

  // Timers and clocks may stop while the computer sleeps or the frame is hidden. So a waking frame asks the server.
  function watch(reason) {
    clearTimeout(timer);
    if (!session) return;
    const left = deadline - now();
    if (left <= 0) {
      expire(reason);
      return;
    }
    const renewable = port && !stopped;
    const lead = Math.min(MAX_LEAD_MS, lifetime / 10) * (1 + jitter * (MAX_JITTER - 1));
    if (renewable && left <= lead && !document.hidden) renew(reason ?? "expiring");
    const next = renewable && left > lead ? left - lead : left;
    // Whole milliseconds: the rest of a rounding error would run the timer again at the same time.
    timer = setTimeout(watch, Math.min(Math.ceil(next), MAX_TIMEOUT_MS));
  }

  function expire(reason) {
    if (!port) {
      fail(EXPIRED);
      return;
    }
    if (!expired) emit("session:expired", {});
    expired = true;
    if (document.hidden) return; // renewed when the frame becomes visible
    if (stopped) {
      cover(stopped);
      return;
    }
    reconnecting(true);
    renew(reason ?? "expired");
  }

  async function check(reason) {
    clearTimeout(checkTimer);
    if (life.signal.aborted) return;
    checkTimer = setTimeout(check, CHECK_MS * between(0.9, 1.1));
    if (!reason && !expired) watch(); // a renewal that is due makes the check needless
    if (!session || document.hidden || renewing || expired || (!reason && now() - checkedAt < CHECK_MS / 4)) return;
    const [before, sentAt] = [session, now()];
    const response = await ask(new URL("session", root)).catch(() => null);
    const facts = response?.ok && (await response.json().catch(() => null));
    const found = response?.status === 401 && (await problemOf(response));
    if (session !== before) return; // a renewal came first
    if (facts) hold(facts.expiresIn, sentAt); // the computer may have slept until the answer came
    if (found && !(port && isRenewable(found.code))) {
      fail(found);
      return;
    }
    if (found) deadline = now();
    if (found || response?.ok) watch(reason);
    if (facts) upstream?.checked(facts);
  }

  function wake() {
    if (document.hidden || recover("visible")) return;
    watch("visible");
    check("visible");
  }

  // Try again without the viewer, under the cover. Return whether there is a reason to try.
  function recover(reason) {
    clearTimeout(recoverTimer);
    if (!stopped || !canRetry(stopped) || document.hidden) return false;
    stopped = null;
    recovering = true;
    renew(reason).finally(() => { recovering = false; });
    return true;
  }

  function reconnect() {
    endPause();
    recover("expired");
  }

  function recoverLater() {
    clearTimeout(recoverTimer);
    const ms = Math.min(RECOVER_MS * 2 ** recoveries++, MAX_RECOVER_MS);
    recoverTimer = setTimeout(recover, ms * between(0.5, 1), "expired");
  }

  // A host page reports a lost network as a failed token. Return the problem that the viewer has.
  async function tellNetwork(found) {
    if (found.code !== "fetch_token_failed" || found.status) return found;
    const reached = navigator.onLine && (await ask(new URL("session", root)).catch(() => null));
    return reached ? found : UNREACHABLE;
  }

  // Get a new session, one attempt at a time. Resolve to whether there is a valid one. The page does not change.
  function renew(reason) {
    renewing ??= replace(reason).finally(() => { renewing = null; });
    return renewing;
  }

  async function replace(reason) {
    const left = Math.floor((deadline - now()) / 1000);
    if (left > 0) emit("session:expiring", { expiresIn: left });
    try {
      const opening = await exchange(reason).catch(async (found) => { throw await tellNetwork(found); });
      if (opening.viewer.user.id !== viewer.user.id) {
        // Another user has signed in at the host and must not see this page, even if the host gives no other token.
        for (const each of [session, opening.session]) endSession(each);
        clear(state("embed-opening", texts.words.opening));
        say("restart");
        return false;
      }
      take(opening);
      cover(null);
      watch();
      upstream?.checked({});
      emit("session:renewed", { expiresIn: opening.expiresIn });
      return true;
    } catch (found) {
      if (life.signal.aborted) return false;
      const over = deadline <= now();
      const known = recovering && covered?.code === found.code;
      if (!known) report(found);
      stopped = over || !canRetry(found) ? found : null; // a live session is renewed at its end at the latest
      if (!over) watch();
      else if (!known) cover(found);
      if (over && canRetry(found)) recoverLater();
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
      if (!life.signal.aborted) refuse(found);
    } finally {
      renewing = null;
    }
  }

  // Exchange a token of the host for a session, or throw the problem.
  async function exchange(reason, forPage) {
    let stale = 0;
    for (let failures = 0; ; ) {
      try {
        const opening = await enter(await token(reason, stale > 0), forPage);
        if (!life.signal.aborted) return opening;
        await endSession(opening.session); // the frame has ended in the meantime
        throw CLOSED;
      } catch (found) {
        if (!found.code) throw found;
        if (STALE.includes(found.code) && stale < MAX_STALE) {
          await pause(between(100, 500) * 2 ** stale++); // other tabs of the host may mint too
        } else if (canRetry(found) && !recovering && !(forPage && found.code === "internal_error") && failures < MAX_FAILURES) {
          await pause(found.retryAfter > 0 ? found.retryAfter * 1000 + between(0, 500) : between(0.5, 1) * 1000 * 2 ** failures);
          failures++;
        } else throw found;
      }
    }
  }

  function pause(ms) {
    return new Promise((done) => {
      endPause = done;
      setTimeout(done, ms);
    });
  }

  // Return whether another attempt may succeed without the viewer.
  function canRetry({ status, retryable = status === 0 || status === 429 || status >= 500, retryAfter }) {
    return retryable && !(retryAfter > MAX_WAIT_SECONDS);
  }

  function token(reason, fresh) {
    return new Promise((resolve, reject) => {
      if (life.signal.aborted) throw CLOSED;
      const id = ++questions;
      const late = setTimeout(() => waiting.get(id)({ problem: NO_TOKEN }), tokenTimeoutMs);
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
      headers: { ...preferences(), Accept: "application/json", "Content-Type": "application/json" },
      body: JSON.stringify({
        accessToken,
        parentOrigin: host.toLowerCase(),
        ancestorOrigins: originsAround(),
        session: session || null,
        nonce: forPage,
        ...(forPage && link),
      }),
      mode: "same-origin",
      // The page's own connection. Without credentials, a browser opens another one.
      credentials: "same-origin",
      cache: "no-store",
      redirect: "error",
    }).catch(() => { throw UNREACHABLE; });
    if (!response.ok) throw await problemOf(response);
    const opening = await response.json().catch(() => { throw UNREACHABLE; });
    if (!opening.moveTo) return opening;
    if (life.signal.aborted) throw CLOSED;
    // Only a navigation lets this browser compare the pages around the frame with the token's origins.
    say("moving");
    location.replace(opening.moveTo);
    return new Promise(() => {});
  }

  // The origins of all pages around the frame, or null if the browser does not tell all of them.
  function originsAround() {
    const origins = [...(location.ancestorOrigins ?? [])].map((origin) => origin.toLowerCase());
    return origins.length && !origins.includes("null") ? origins : null;
  }

  // Write the page into this document, which keeps this script and its connection to the host.
  function install(opening) {
    ({ language, locale, theme } = opening);
    take(opening);
    shown = firstPage(link);
    say("written", { opens: Boolean(opening.upstream) }); // writing fires a load as well, and the app may be busy then
    document.open(); // removes all listeners of document and window
    awaitCall(); // before any script of the app listens
    // Runs when the page is parsed, before deferred scripts.
    when(document, "readystatechange", start, { once: true });
    document.write(opening.page);
    Document.prototype.close.call(document); // the page may have an element of this name
  }

  let hasOpened = false; // the page is complete, with the app's scripts

  function opened() {
    hasOpened = true;
    // Only Chromium tells a page what its iframe allows.
    const lacking = permissions.filter((name) => document.featurePolicy?.allowsFeature(name) === false);
    if (lacking.length) console.warn(`Add this to the iframe's attribute allow, if the app may use it: ${lacking.join("; ")}`);
    emit("loaded", { app: viewer.app ?? null, workspace: viewer.workspace, title: document.title, lacking });
  }

  // Show a page that the host asks for. Only names of pages reach `pages/`.
  function navigate({ page, params = "", ...rest }) {
    ({ asked } = rest);
    if (upstream) upstream.navigate({ page, params, ...rest });
    else if (session && viewer.app && /^[a-z0-9-]+$/.test(page)) visit(new URL(`pages/${page}?${new URLSearchParams(params)}`, root));
  }

  // End a session. The page may be gone before the answer comes. Resolve to whether it has ended.
  async function endSession(jwt = session) {
    if (!jwt) return true;
    const headers = { __proto__: null, authorization: `Bearer ${jwt}` };
    const init = { __proto__: null, method: "DELETE", headers, mode: "same-origin", credentials, keepalive: true };
    const response = await fetch(new URL("session", root), init).catch(() => null);
    return response?.ok || response?.status === 401;
  }

  // End the session for the host, and the one that an opening or a renewal brings.
  async function endForHost() {
    life.abort();
    for (const take of [...waiting.values()]) take({ problem: CLOSED });
    endPause();
    const ended = await endSession();
    await renewing?.catch(() => {});
    return ended;
  }

  function refresh() {
    if (session) renew("expiring");
    else say("restart");
  }

  // ---- Requests ----

  // The host's locale and theme, as headers.
  const preferences = () => ({ "Accept-Language": locale, "X-Embed-Theme": theme });

  // Fetch an address of this app as the viewer. A failed response is reported and returned. A failed request is
  // reported and rejects. Any other address throws a TypeError at once.
  function send(address, init) {
    const url = inside(address);
    if (!url) throw new TypeError(`Not an address of this app: ${address}`);
    return request(url, init);
  }

  async function request(url, init = {}) {
    const prepared = { ...init, headers: new Headers(init.headers), signal: untilEnd(init.signal) };
    const response = await askWithRenewal(url, prepared).catch(lost);
    if (response.type === "opaqueredirect") {
      fail(REDIRECTED);
      throw reported(new TypeError(REDIRECTED.detail));
    }
    checkedAt = now();
    if (!swappable(response)) fail(await problemOf(response));
    return response;
  }

  // A request that finds the session ended had no effect, so it can be sent again with the next session.
  async function askWithRenewal(url, init = {}) {
    if (expired && renewing) await renewing;
    const before = session;
    const response = await ask(url, init);
    if (response.status !== 401 || !port || stopped || init.body instanceof ReadableStream) return response;
    const { code } = await problemOf(response);
    return isRenewable(code) && (session !== before || (await renew("expired"))) ? ask(url, init) : response;
  }

  function ask(url, init = { signal: life.signal }) {
    // Without a prototype, so that a wrapper of a built-in does not log the session.
    const headers = { __proto__: null, "accept-language": locale, "x-embed-theme": theme };
    for (const [name, value] of new Headers(init.headers)) headers[name] = value;
    headers.accept = ACCEPT;
    headers.authorization = `Bearer ${session}`;
    return fetch(url, {
      __proto__: null,
      ...init,
      headers,
      mode: "same-origin",
      credentials,
      cache: "no-store",
      redirect: "manual", // a redirect would carry the session to an unchecked address
    });
  }

  // Return a signal that also ends with the frame. Browsers before 2024 have no AbortSignal.any.
  function untilEnd(signal) {
    if (!signal) return life.signal;
    const both = [life.signal, signal];
    if (AbortSignal.any) return AbortSignal.any(both);
    const control = new AbortController();
    for (const each of both) {
      if (each.aborted) control.abort(each.reason);
      else when(each, "abort", () => control.abort(each.reason), { once: true });
    }
    return control.signal;
  }

  const handled = new WeakSet(); // errors that the viewer has seen, and intended aborts
  function reported(error) {
    if (error instanceof Object) handled.add(error);
    return error;
  }

  // Report an interrupted request or body. An abort is intended and no failure.
  function lost(error) {
    if (error?.name !== "AbortError") fail(UNREACHABLE);
    throw reported(error);
  }

  // The end of a request of this script. An exception that no one has reported is a fault of the script.
  function settle(error) {
    if (handled.has(error)) return null;
    reportError(error);
    fail({ status: 0, code: "unknown", detail: String(error) });
    return null;
  }

  async function problemOf(response) {
    const { status, headers } = response;
    // A proxy or the app may answer without problem JSON.
    const known = headers.get("Content-Type")?.startsWith("application/problem+json");
    const found = known ? await response.clone().json().catch(() => ({})) : {};
    return {
      status,
      code: found.code ?? "unknown",
      detail: found.detail ?? texts.words.status.replace("{status}", status),
      requestId: found.requestId ?? headers.get("X-Request-Id"),
      retryAfter: Number(headers.get("Retry-After")) || null,
      limit: Number(headers.get("Upload-Limit")?.replace("max-size=", "")) || null, // in bytes
      traceback: found.traceback, // in development only
    };
  }

  // ---- Failures ----

  function fail(found) {
    if (life.signal.aborted) return;
    if (found.status !== 401) {
      report(found);
      notify(found);
    } else if (isRenewable(found.code) && port) {
      deadline = Math.min(deadline, now());
      watch();
    } else {
      if (found.code === "session_expired") emit("session:expired", {});
      else emit("session:revoked", { code: found.code });
      report(found);
      end(found);
    }
  }

  function describe({ status = 0, code, detail, requestId = null, retryAfter = null, retryable = texts.retry.includes(code) }) {
    return { status, code, message: detail, requestId, retryAfter, retryable };
  }

  // Send ToolJet's message, which any host page can listen for, and the event for embed.js.
  function report(found) {
    const { status: error, code, message, requestId } = describe(found);
    emit("error", describe(found));
    if (window.parent === window) return;
    // A frame of embed.js knows its parent. Other frames send the message to every allowed origin.
    for (const origin of host ? [host] : parents) {
      if (origin === "*" && empty) continue;
      try {
        window.parent.postMessage({ type: "TJ_EMBED_APP_LOGOUT", error, message, code, requestId }, origin);
      } catch {
        // Some browsers reject a custom scheme as a target. The other origins still get the message.
      }
    }
  }

  // Return heading and advice. An unknown code keeps the detail of its response.
  function words({ code, detail, limit }) {
    const [title, advice] = texts.codes[code] ?? texts.codes.unknown;
    if (limit) return [title, `${advice} ${texts.words.limit.replace("{size}", inWords(limit))}`];
    return code in texts.codes && code !== "unknown" ? [title, advice] : [title, detail ?? advice];
  }

  const inWords = (bytes) => (bytes < 2 ** 20 ? `${Math.floor(bytes / 1024)}\u00a0KB` : `${Math.floor(bytes / 2 ** 20)}\u00a0MB`);

  function notify(found) {
    const [title, advice] = found.code === "rate_limited" ? [texts.words.rate_limited, ""] : words(found);
    const wait = found.retryAfter && isRecoverable(found) ? texts.words.wait.replace("{seconds}", found.retryAfter) : "";
    // The advice for a fault asks for this number.
    const asked = found.requestId && (found.status >= 500 || !(found.code in texts.codes));
    showNotice(title, `${advice} ${wait}`.trim(), asked ? requestNumber(found) : "", found.traceback);
  }

  const trace = (traceback) => (traceback ? [element("pre", { className: "embed-trace", textContent: traceback, tabIndex: 0 })] : []);

  function showNotice(title, advice, reference, traceback) {
    const strong = element("strong", { textContent: title.replace(/\.?$/, ".") });
    const text = element("p", { lang: language }, strong, ` ${advice} `, reference);
    const before = document.activeElement;
    const dismiss = element("button", { type: "button", className: "button quiet", textContent: texts.words.dismiss });
    when(dismiss, "click", () => {
      made.remove();
      focus(main.contains(before) ? before : main);
    });
    const made = element("div", { className: "notice" }, text, dismiss, ...trace(traceback));
    const dialog = openDialog();
    notice.replaceChildren();
    if (dialog) {
      made.setAttribute("role", "alert");
      dialog.prepend(made);
    } else {
      notice.append(made);
      keepInSight(made);
    }
  }

  // Remove the page and the session, and show this instead.
  function clear(content) {
    session = "";
    upstream = null;
    clearTimeout(timer);
    clearTimeout(recoverTimer);
    life.abort();
    leavePage();
    pageListeners.clear();
    holdHeight();
    document.body.replaceChildren(content);
  }

  // End the frame and remove its page.
  function end(found) {
    problem = found;
    const made = panel(found, () => say("restart"));
    clear(made);
    document.title = words(found)[0];
    keepInSight(made);
    focus(made.querySelector("h1"), { preventScroll: true });
  }

  // Keep the frame high enough, so that the viewer still sees it if its top is out of sight.
  function holdHeight() {
    if (measured === null) return;
    document.body.style.minHeight = `${measured}px`;
    seeVisiblePart(({ top, bottom }) => { document.body.style.minHeight = top > 0 ? `${Math.ceil(bottom)}px` : ""; });
  }

  // Show the reason in the waiting page if it got no session.
  function refuse(found) {
    report(found);
    document.body.replaceChildren(panel(found, () => {
      document.body.replaceChildren(state("embed-opening", texts.words.opening));
      open("reload");
    }));
    document.title = words(found)[0];
  }

  // Offer to restart after the service has refused this page.
  function offer() {
    const button = document.getElementById("embed-retry");
    if (!button || !isRecoverable(problem)) return;
    button.hidden = false;
    document.querySelector(".by-hand")?.remove();
    when(button, "click", () => say("restart"));
  }

  let covered = null; // {code, part} of the cover
  let focused; // the element that had the focus before the cover

  // Cover the page, with what the viewer has typed, while there is no session. Null removes the cover.
  function cover(found) {
    const there = covered?.part;
    if (!there) focused = document.activeElement;
    for (const child of document.body.children) child.inert = Boolean(found);
    covered = null;
    there?.remove();
    document.body.style.minHeight = "";
    if (!found) {
      if (there && document.hasFocus()) focused?.focus();
      return;
    }
    const made = panel(found, () => {
      stopped = null;
      cover(null);
      renew("expired");
    });
    const part = element("dialog", { className: "embed-cover" }, made);
    const modal = openDialog();
    covered = { code: found.code, part };
    document.body.append(part);
    // Only a modal dialog is above an open one of the app, and it can take the focus.
    const display = () => { if (covered?.part === part) modal ? part.showModal() : part.show(); };
    when(part, "close", display); // a phone's button back closes it
    if (modal) display();
    else part.setAttribute("open", ""); // `show` would take the focus from the host page
    if (measured !== null) document.body.style.minHeight = `${part.scrollHeight}px`; // a short app may be lower
    keepInSight(made);
    focus(made.querySelector("h1"), { preventScroll: true });
  }

  // The app's topmost modal dialog, which makes everything else inert.
  const openDialog = () => [...document.querySelectorAll("dialog:modal")].pop();

  let line = null;

  function reconnecting(going) {
    line?.remove();
    if (!going) return;
    line = state("embed-reconnecting", texts.words.reconnecting);
    document.body.append(line);
    keepInSight(line);
  }

  let bar = null;

  // Show that a page is on its way. The style sheet waits before it shows the bar.
  function setBusy(going) {
    bar?.remove();
    if (going) main.setAttribute("aria-busy", "true");
    else main.removeAttribute("aria-busy");
    if (!going) return;
    bar = element("div", { className: "embed-progress" });
    document.body.append(bar);
    keepInSight(bar, { edge: 0 });
  }

  function state(className, text) {
    return element("div", { className, role: "status", lang: language }, element("span", { textContent: text }));
  }

  // Return whether a new token can help, for example after the viewer has signed in at the host again.
  const isRecoverable = ({ code }) => texts.retry.includes(code);

  // Return a panel: what happened, what to do, and a button if trying again can help. Without a host that has tokens,
  // the viewer must reload its page.
  function panel(found, retry, hasTokens = Boolean(port)) {
    const [title, advice] = words(found);
    const made = element("main", { className: "embed-refused" }, element("h1", { textContent: title }), element("p", { textContent: advice }));
    if (isRecoverable(found)) {
      made.append(hasTokens ? retryButton(found.retryAfter, retry) : element("p", { className: "by-hand", textContent: texts.words.reload }));
    }
    const reference = element("p", { className: "reference" }, element("span", { textContent: found.code }));
    if (found.requestId) reference.append(" ", requestNumber(found));
    made.append(reference, ...trace(found.traceback));
    made.lang = language;
    return made;
  }

  function requestNumber({ requestId }) {
    const [before, after] = texts.words.request.split("{id}");
    return element("span", {}, before, element("bdi", { className: "request-id", textContent: requestId }), after);
  }

  function retryButton(seconds, retry) {
    const button = element("button", { type: "button", className: "button primary" });
    const count = (left) => {
      button.disabled = left > 0;
      button.textContent = left > 0 ? texts.words.wait.replace("{seconds}", left) : texts.words.retry;
      if (left > 0) setTimeout(count, 1000, left - 1);
    };
    count(Math.min(Math.ceil(seconds ?? 0), MAX_WAIT_SECONDS));
    when(button, "click", retry);
    return button;
  }

  // ---- Pages: links and forms ----

  let visiting = null; // the page request in flight: {method, abort}
  const pageAddress = (name) => new URL(`pages/${name}`, root);
  const nameOf = (url) => decodeURIComponent(url.pathname.slice(pageAddress("").pathname.length));

  async function visit(url, { method = "GET", body } = {}) {
    if (visiting?.method === "POST") return; // a second click must not send the form twice
    visiting?.abort();
    const left = { ...shown, scroll: window.scrollY };
    const measuring = findVisibleTop();
    const control = new AbortController();
    const mine = (visiting = { method, abort: () => control.abort() });
    setBusy(true);
    const answer = await send(url, { method, body, signal: control.signal })
      .then(async (response) => ({ response, html: await response.text().catch(lost) }))
      .catch(settle);
    left.top = await measuring;
    if (visiting !== mine) return;
    visiting = null;
    setBusy(false);
    if (answer && swappable(answer.response) && answer.response.status !== 204) {
      const back = method === "GET" && !url.hash && trail.at(-1)?.address === url.href ? trail.pop() : null;
      if (!back && method === "GET" && left.address && left.address !== url.href) trail.push(left);
      if (trail.length > MAX_TRAIL) trail.shift();
      shown = { page: nameOf(url), params: url.searchParams, address: method === "GET" ? withoutHash(url.href) : null };
      show(answer.html, answer.response.status === 422, url.hash.slice(1), back && { ...back, from: left.address });
      // The answer to a form has no address.
      emit("navigate", { page: shown.page, params: method === "GET" ? url.search.slice(1) : null, title: document.title });
    }
  }

  function show(html, invalid, anchor, back) {
    const page = new DOMParser().parseFromString(html, "text/html");
    unhide(page);
    notice.replaceChildren();
    leavePage();
    main.replaceChildren(...page.body.childNodes);
    window.htmx?.process?.(main);
    document.title = page.title || document.title;
    announcer.textContent = document.title;
    enterPage();
    resetFit();
    if (back) {
      returnTo(back);
      return;
    }
    window.scrollTo(0, 0);
    focus(
      (invalid && (main.querySelector(INVALID) ?? main.querySelector('[role="alert"]'))) ||
        (anchor && document.getElementById(anchor)) ||
        main.querySelector("h1, h2, h3") ||
        main,
    );
  }

  // ---- The life of a page, for the app's scripts ----

  // Return the first page, which a link may have chosen.
  function firstPage({ page, params }) {
    const url = pageAddress(page || "index");
    url.search = params ?? "";
    return { page: nameOf(url), params: url.searchParams, address: url.href };
  }

  let shown = firstPage(boot.link ?? {});
  const pageListeners = new Map(); // listener → its clean-up of the shown page

  function attempt(work, ...given) {
    try {
      return work(...given);
    } catch (error) {
      reportError(error); // the others still run
      return null;
    }
  }

  function enterPageOf(listener) {
    const { page, params } = shown;
    const cleanUp = attempt(listener, { element: main, page, params: new URLSearchParams(params) });
    if (pageListeners.has(listener)) pageListeners.set(listener, cleanUp);
    else if (typeof cleanUp === "function") attempt(cleanUp); // it has removed itself
  }

  function leavePageOf(listener) {
    const cleanUp = pageListeners.get(listener);
    pageListeners.set(listener, null);
    if (typeof cleanUp === "function") attempt(cleanUp);
  }

  const enterPage = () => [...pageListeners.keys()].forEach(enterPageOf);
  const leavePage = () => [...pageListeners.keys()].forEach(leavePageOf);

  function addPageListener(listener) {
    if (pageListeners.has(listener)) leavePageOf(listener);
    pageListeners.set(listener, null);
    enterPageOf(listener);
    return () => {
      if (!pageListeners.has(listener)) return;
      leavePageOf(listener);
      pageListeners.delete(listener);
    };
  }

  // ---- Back to the page before ----

  // Resolve to the top of the visible part of a frame as high as its content. A hidden frame has none.
  async function findVisibleTop() {
    if (measured === null) return 0;
    return new Promise((done) => {
      seeVisiblePart(({ top }) => done(top));
      setTimeout(done, REST_MS, 0);
    });
  }

  const trail = []; // the pages that led to the shown one: {address, scroll, top}

  // Show the place that the viewer has left: the link to the page between has the focus again.
  function returnTo({ scroll, top, from }) {
    const link = [...main.querySelectorAll("a[href]")].find(({ href }) => href === from);
    focus(link ?? main.querySelector("h1, h2, h3") ?? main, { preventScroll: true });
    if (measured === null) window.scrollTo(0, scroll);
    else if (top > 0) say("scroll", { top }); // after the new height, which the host applies first
  }

  // An app puts `hx-ignore` around markup that users wrote. Nothing in it sends the session.
  const ignored = (node) => node.closest("[hx-ignore]") !== null;

  // Leave links and forms with a target, a download or htmx attributes to the browser and htmx.
  const leftAlone = (node) => ignored(node) || node.getAttributeNames().some((name) => /^(target$|download$|hx-)/.test(name));

  function clicked(event) {
    const elsewhere = event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey;
    if (event.defaultPrevented || elsewhere) return;
    const target = event.target.closest("[embed-download], a[*|href], area[href]");
    if (!target) return;
    if (target.hasAttribute("embed-download") && !ignored(target)) {
      event.preventDefault();
      download(target);
      return;
    }
    const url = !leftAlone(target) && inside(addressOf(target), "pages/");
    if (url) {
      event.preventDefault();
      visit(url);
      return;
    }
    const out = addressOut(target);
    if (!out) return;
    event.preventDefault();
    openTab(out);
  }

  const withoutHash = (address) => address.replace(/#.*/s, "");

  // Read attributes, since a link of SVG has other properties. An older drawing has the address in `xlink:href`.
  const addressOf = (link) => link.getAttribute("href") ?? link.getAttributeNS("http://www.w3.org/1999/xlink", "href") ?? "";

  // Return the link's address if it would replace the app in its frame, or would do nothing without allow-popups.
  function addressOut(link) {
    const url = resolve(addressOf(link));
    const opens = /^(_blank)?$/i.test(link.getAttribute("target") ?? "") && !link.hasAttribute("download");
    if (!opens || !/^https?:$/.test(url?.protocol)) return null;
    const isHere = [location.href, document.baseURI].some((own) => withoutHash(own) === withoutHash(url.href));
    return isHere ? null : url.href;
  }

  function openTab(address) {
    const tab = window.open("", "_blank");
    if (tab) {
      tab.opener = null; // the other site must not reach this frame
      tab.location.href = address;
      return;
    }
    const [title, advice] = texts.codes.left_app;
    showNotice(title, advice, element("bdi", { className: "request-id", textContent: address }));
    const { origin } = new URL(address);
    const detail = `A link to ${origin} cannot open a tab: the sandbox of the iframe has no allow-popups.`;
    emit("error", describe({ code: "left_app", detail }));
  }

  function submitted(event) {
    const form = event.target;
    // Read attributes, since a field named "action" or "method" hides the property.
    const own = (name) => event.submitter?.getAttribute(`form${name}`) ?? form.getAttribute(name) ?? "";
    const method = own("method").toUpperCase();
    const untrusted = event.submitter && ignored(event.submitter); // it may be outside its form
    const url = !untrusted && !leftAlone(form) && inside(own("action"), "pages/");
    if (event.defaultPrevented || !url || method === "DIALOG") return;
    event.preventDefault();
    const data = new FormData(form, event.submitter);
    // Outside multipart a file is sent as its name, as browsers do.
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
    if (!inside(ctx.request.action)) return; // this request is sent without the session
    const form = ctx.sourceEvent?.type === "submit" ? ctx.sourceElement : null;
    if (submitting.has(form)) {
      event.preventDefault(); // htmx would queue the second click and send it after the first
      return;
    }
    // htmx shows the headers of ctx.request to every listener and prints them with errors.
    ctx.fetch = (address, init) => {
      const answer = send(address, init);
      if (form) submitting.add(form);
      return answer.finally(() => submitting.delete(form));
    };
  }

  // ---- Images and downloads, which cannot carry a header themselves ----

  async function file(address) {
    const answer = await send(address)
      .then(async (response) => ({ response, blob: response.ok && (await response.blob().catch(lost)) }))
      .catch(settle);
    return answer ?? {};
  }

  const sources = new WeakMap(); // image → the address that it should show

  function fill() {
    for (const image of document.querySelectorAll("img[embed-src]")) {
      const source = image.getAttribute("embed-src");
      if (sources.get(image) === source || ignored(image)) continue;
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
    const { response, blob } = await file(target.getAttribute("embed-download"));
    target.ariaBusy = null;
    if (!blob) return;
    save(blob, fileName(response) || target.getAttribute("embed-filename") || response.url.split("/").pop());
  }

  function save(blob, name) {
    const link = element("a", { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), BLOB_LIFETIME_MS);
  }

  function fileName(response) {
    const header = response.headers.get("Content-Disposition") ?? "";
    const [, extended] = /filename\*=UTF-8''([^;\s]+)/i.exec(header) ?? [];
    const [, quoted, bare] = /filename=(?:"((?:[^"\\]|\\.)*)"|([^;\s]+))/i.exec(header) ?? [];
    return extended ? decodeURIComponent(extended) : quoted?.replace(/\\(.)/g, "$1") ?? bare;
  }

  // ---- The height of the content ----

  let measured = null; // the height last sent to the host; null if the host did not ask
  let growth = 0; // times that the content grew in a row
  let resting; // a timer that checks whether the height is stable
  let judging = null; // a timer, while the script looks for a loop
  let following = null; // {inner, height} of a page whose height depends on its frame

  // The root's own height leaves out positioned content.
  function contentHeight() {
    const ofApp = upstream?.measure();
    if (ofApp) return Math.ceil(ofApp);
    const { documentElement, body } = document;
    const { top, height } = documentElement.getBoundingClientRect();
    return Math.ceil(Math.max(height, body.getBoundingClientRect().top - top + body.scrollHeight));
  }

  let refitting = null;

  // Positioned content changes the size of no element around it.
  function refit() {
    if (measured !== null) refitting ??= requestAnimationFrame(() => {
      refitting = null;
      fit();
    });
  }

  const MOVES = "transitionend animationend toggle load focusin focusout pointerover pointerout".split(" ");

  function fit() {
    document.documentElement.toggleAttribute("data-auto-height", measured !== null);
    if (measured === null || judging || unstyled()) return;
    const height = contentHeight();
    if (following && height >= measured) {
      // Ignore growth that the frame's height has caused. Report other changes.
      const by = innerHeight === following.inner ? height - following.height : 0;
      following = { inner: innerHeight, height };
      if (by) size(Math.max(measured + by, 1));
      return;
    }
    following = null;
    if (height === measured) return;
    growth = height > measured ? growth + 1 : 0;
    if (growth > MAX_GROWTH) judging = setTimeout(judge, REST_MS, height);
    else size(height);
  }

  // Find out whether the content grows by itself, as in a transition, or because its frame grows. In the second case
  // each new height makes it grow again, without end.
  function judge(before) {
    const height = contentHeight();
    size(height);
    if (height > before) {
      judging = null;
      growth = MAX_GROWTH - 2; // check again soon
      return;
    }
    judging = setTimeout(() => {
      judging = null;
      if (contentHeight() > height) following = { inner: innerHeight, height: contentHeight() };
      fit();
    }, REST_MS);
  }

  function size(height) {
    if (measured === null || height === measured) return;
    measured = height;
    document.documentElement.style.setProperty("--embed-width", `${innerWidth}px`); // for print
    emit("resize", { height });
  }

  // A page whose height is stable in a resized frame cannot be in a loop.
  function rest() {
    clearTimeout(resting);
    resting = setTimeout(() => {
      if (measured === contentHeight() && Math.abs(innerHeight - measured) < 1) growth = 0;
    }, REST_MS);
  }

  // A page without its style sheets has another height.
  const unstyled = () => [...document.querySelectorAll('link[rel="stylesheet"]')].some(({ sheet }) => !sheet);

  // Start again with a new page.
  function resetFit() {
    growth = 0;
    following = null;
    fit();
  }

  // ---- For the app's own scripts ----

  const reserved = (name) => /^(waiting|ready|loaded|resize|navigate|page|error|session:.*|embed:.*)$/.test(name);

  const embed = Object.freeze({
    get viewer() { return viewer; },
    get theme() { return theme; },
    get locale() { return locale; },
    // Like window.fetch, but only for addresses of this app. Relative addresses start at the app's own.
    fetch: async (path, init) => send(new URL(path, root), init),
    // Show a page of the app, as a link does.
    page: async (name, params) => {
      const url = pageAddress(name);
      if (params) url.search = new URLSearchParams(params);
      return visit(url);
    },
    // Send an event to the host page, which listens with `frame.on(name, …)` of embed.js.
    send: (name, data) => {
      if (typeof name !== "string" || reserved(name)) throw new TypeError(`Not a name for an event of an app: ${name}`);
      say("app", { name, data });
    },
    // Listen to events of the host page (`frame.send(name, data)`), to "embed:theme" and "embed:locale", and to "page":
    // the shown page and each later one. A function that a "page" listener returns runs before its page goes. Return a
    // function that removes the listener.
    on: (name, listener) => {
      if (name === "page") return addPageListener(listener);
      const known = listeners.get(name) ?? new Set();
      listeners.set(name, known.add(listener));
      return () => known.delete(listener);
    },
    // End the session on the server, then in this frame.
    end: async () => {
      const response = await send(new URL("session", root), { method: "DELETE" });
      if (response.ok) fail(CLOSED);
    },
  });

  // ---- For launcher.js, on the launcher's page ----

  const launcher = Object.freeze({
    emit,
    report,
    panel,
    focus,
    onSend: (listener) => { passOn = listener; },
    // Ask the server if the launcher's own session is still valid. If not, the frame ends and reports that itself.
    isOpen: async () => {
      await check("visible");
      return !life.signal.aborted;
    },
    // Exchange the launcher's session for a code that opens the app. Resolve to the answer, or throw the problem.
    exchange: async (app) => {
      // The app's session ends with the launcher's, so renew this one first.
      const near = deadline - now() <= Math.min(MAX_LEAD_MS, lifetime / 10) * MAX_JITTER;
      if (near && port && !stopped) await renew("expiring");
      const response = await askWithRenewal(new URL(`apps/${app}`, root), { method: "POST" }).catch(() => UNREACHABLE);
      if (response.ok) return response.json();
      const found = response === UNREACHABLE ? response : await problemOf(response);
      if (found.status === 401) fail(found); // the launcher itself is over
      // The launcher may still list an app that the viewer has lost.
      if (/^app_(forbidden|not_found)$/.test(found.code)) Object.assign(found, { status: 401, code: "access_revoked" });
      throw { ...found, retryable: canRetry(found) };
    },
  });

  // ---- For gateway.js, on the page of an app that runs elsewhere ----

  let upstream = null; // its functions: {measure, navigate, checked}

  const gateway = Object.freeze({
    attach: (functions) => { upstream = functions; },
    link: () => (boot.session ? boot.link ?? {} : link),
    opened,
    notice: (found) => {
      report(found);
      notify(found);
    },
    problemOf,
    panel,
    report,
    refit,
    save,
    fileName,
    openTab,
    unreachable: UNREACHABLE,
    // Ask the server if the session is still valid, and await a renewal. Resolve to whether the frame is open.
    isOpen: async () => {
      await renewing;
      await check("visible");
      await renewing;
      return !life.signal.aborted && !expired;
    },
    // The app shows another page. `replace`: the browser has the step in its history already.
    moved: ({ page, params }) => {
      leavePage();
      shown = { page, params: new URLSearchParams(params), address: null };
      enterPage();
      say("event", { name: "navigate", data: { page, params, title: document.title }, asked, replace: true });
    },
    // End the frame for a reason that a new session cannot change.
    stop: (found) => {
      endSession();
      report(found);
      end(found);
    },
  });

  // ---- Start ----

  // Runs for the page that loaded this script, and for each page that is written into it.
  function start() {
    unhide(document);
    main = document.getElementById("embed-main");
    notice = document.getElementById("embed-notice");
    announcer = document.getElementById("embed-status");
    when(window, "load", fit);
    when(window, "resize", rest);
    new ResizeObserver(fit).observe(document.documentElement);
    new MutationObserver(refit).observe(document, { childList: true, subtree: true, characterData: true, attributes: true });
    for (const type of MOVES) when(document, type, refit, true);
    fit();
    if (!session) return;
    when(document, "click", clicked);
    when(document, "submit", submitted);
    when(document, "htmx:config:request", configured);
    when(document, "keydown", (event) => { if (covered && event.key === "Escape") event.preventDefault(); }, true);
    when(document, "visibilitychange", wake);
    when(window, "online", reconnect);
    when(window, "pageshow", (event) => event.persisted && wake());
    when(window, "pagehide", (event) => endsWithHost && !event.persisted && endSession());
    const observed = { childList: true, subtree: true, characterData: true, attributes: true, attributeFilter: ["embed-src", "open"] };
    new MutationObserver((changes) => {
      fill();
      for (const { target, attributeName } of changes) {
        if (attributeName === "open" && target !== covered?.part && target.matches("dialog:modal")) keepInSight(target, { middle: true });
      }
    }).observe(document.body, observed);
    fill();
    window.embed = embed;
    if (!viewer.app) window.embedLauncher = launcher;
    if (main.dataset.start) window.embedGateway = gateway; // gateway.js removes it
    else when(document, "DOMContentLoaded", opened); // the app's scripts have added their listeners by then
    check();
  }

  if (session) take(boot);
  awaitCall();
  if (document.readyState === "loading") when(document, "readystatechange", start, { once: true });
  else start();
  if (problem) report(problem);
})();
