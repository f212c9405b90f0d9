// The page around an app that runs elsewhere. The app is in an inner frame of this origin, behind the same proxy, and
// knows nothing of this page. This script follows the app from outside: its height, title, path and downloads, and the
// refusals of the proxy. Scripts of the app can reach this page, so no secret is in it: frame.js keeps session and port
// in its closure, and this script takes the functions of frame.js before the app loads.
(() => {
  "use strict";

  const FIRST_HEIGHT = 600; // px of the app's window at first, so that a low frame does not squeeze the app
  const FIRST_MS = 500; // how long the window keeps this height if the host does not resize the frame
  const MIN_HEIGHT = 100; // px; some apps are not laid out in a lower window
  const CALM_MS = 300; // a new page has been built if its height does not change for this time
  const BUILD_MS = 5000; // or at the latest after this time
  const REST_FACTOR = 10; // pause after a measurement, as a multiple of its duration
  const PROBE = 8; // px by which the window grows for a moment, to find the parts that fill it
  const MAX_PROBES = 5; // in QUIET_MS, since an app hears of each
  const QUIET_MS = 10_000;
  const MAX_QUIET_MS = 300_000;
  const POLL_MS = 50; // until the document of the next page is there
  const MAX_POLL_MS = 60_000; // a navigation may be a download, which brings no page
  const WATCH_MS = 500; // between looks for changes that no observer reports, such as those in a shadow tree
  const LOOK_MS = 5000; // between checks of the session after requests of the app that were refused
  const RETRY_MS = 5000; // until a page that could not be shown loads again, doubled each time
  const MAX_RETRY_MS = 60_000;
  const MAX_RELOADS = 2; // of a refused page in a row, before the viewer sees the reason
  const OURS = /^\/(embed-(apps|static|texts|workspaces)|internal)(\/|$)/i; // paths of the service
  const DOWN = [502, 503, 504]; // statuses of a proxy that does not reach the app
  const REPLACED = "canvas, embed, iframe, img, input, object, svg, textarea, video"; // content without a height of its own
  const MOVES = "transitionend animationend toggle load".split(" ");

  const BLOCKED = { status: 0, code: "cookies_blocked", detail: "The browser keeps no cookie in this frame, which the app needs." };
  const LED_OUT = { status: 0, code: "redirect_refused", detail: "The app led its frame to another site." };

  const frame = window.embedGateway;
  delete window.embedGateway;
  const { fetch } = window;
  const [outer, opening] = ["embed-main", "embed-opening"].map((id) => document.getElementById(id));
  const start = new URL(outer.dataset.start, location.origin);
  const ownTitle = document.title;
  const inner = Object.assign(document.createElement("iframe"), { title: ownTitle, allow: outer.dataset.allow });

  let page = null; // the document of the app that this script follows
  let isShown = false; // whether the viewer sees the app
  let hasOpened = false; // whether the app has been shown once

  // ---- The app's pages ----

  let arriving, waitingUntil; // a timer that waits for the next document
  let wanted = frame.link(); // the link that is loading: {page, params}
  let home = null; // path and query at which the first page has led to
  let path = null; // path and query of the shown page

  // Return the address of a page, or null. The service has checked the first one; the host page may send any other.
  function addressOf({ page: name, params }) {
    const isPath = /^\/(?![/\\])[^\\?#]*$/.test(name);
    if (!isPath && (name ?? "index") !== "index") return null;
    const url = new URL(isPath ? name : start, location.origin);
    if (isPath || params) url.search = params ?? "";
    const isOurs = url.origin !== location.origin || url.pathname.startsWith("//") || OURS.test(decode(url.pathname));
    return isOurs ? null : url.href;
  }

  function decode(text) {
    try {
      return decodeURIComponent(text);
    } catch {
      return text;
    }
  }

  function navigate({ page: name, params, replace }) {
    const address = addressOf({ page: name, params });
    if (!address) return;
    wanted = { page: name, params };
    if (replace) load(address);
    else {
      inner.contentWindow.location.assign(address);
      wait();
    }
  }

  // `replace` adds no step to the browser's history.
  function load(address) {
    inner.contentWindow.location.replace(address);
    wait();
  }

  // The app can be used before its images have loaded, so the event `load` comes too late.
  function wait() {
    waitingUntil = performance.now() + MAX_POLL_MS;
    poll();
  }

  function poll() {
    clearTimeout(arriving);
    if (performance.now() < waitingUntil) arriving = setTimeout(poll, POLL_MS);
    const next = inner.contentDocument;
    if (next && next !== page && next.URL !== "about:blank" && next.readyState !== "loading") arrive(next);
  }

  function loaded() {
    const next = inner.contentDocument;
    if (!next) setTimeout(() => inner.contentDocument || arrive(null), POLL_MS); // the browser's own page about an error
    else if (next.URL !== "about:blank" && next !== page) arrive(next);
  }

  function arrive(next) {
    clearTimeout(arriving);
    page = next;
    if (!page) {
      if (!ledOut()) pause(frame.unreachable);
      return;
    }
    const view = inner.contentWindow;
    view.addEventListener("pagehide", wait);
    const status = view.performance.getEntriesByType("navigation")[0]?.responseStatus;
    const code = page.querySelector('meta[name="embed-code"]')?.content;
    if (DOWN.includes(status) || /^(unavailable$|upstream_)/.test(code)) {
      pause({ status, code: code ?? "upstream_unreachable", detail: `The proxy did not get the app's page (${status}).` });
    } else if (code) refused(code, status);
    else enter(view);
  }

  function enter(view) {
    reloads = pauses = 0;
    follow(view);
    hideApp(false);
    update(true);
    if (!hasOpened) frame.opened();
    hasOpened = true;
  }

  // Show the app, or the opening state in its place.
  function hideApp(isHidden) {
    panel?.remove();
    panel = null;
    isShown = !isHidden;
    opening.hidden = !isHidden;
    outer.toggleAttribute("data-shown", isShown);
    frame.refit();
  }

  // The app has led its frame to another site, which the policy of this page blocks.
  let out = null; // {address, at}
  document.addEventListener("securitypolicyviolation", ({ effectiveDirective, blockedURI }) => {
    if (effectiveDirective === "frame-src") out = { address: blockedURI, isFirst: !out || performance.now() - out.at > QUIET_MS, at: performance.now() };
  });

  function ledOut() {
    if (!out) return false;
    if (path && out.isFirst) {
      frame.openTab(out.address);
      load(path);
    } else pause(LED_OUT);
    return true;
  }

  // ---- What keeps the app from being shown ----

  let panel = null; // takes the app's place
  let reported = null; // the code that the host knows
  let reloads = 0, pauses = 0;
  let isStuck = false; // whether a refused page waits for the next session
  let retryTimer;

  function pause(found) {
    hideApp(true);
    opening.hidden = true;
    panel = frame.panel(found, retry, true);
    outer.append(panel);
    if (!pauses || reported !== found.code) frame.report(found);
    reported = found.code;
    clearTimeout(retryTimer);
    if (found !== LED_OUT) retryTimer = setTimeout(retry, Math.min(RETRY_MS * 2 ** pauses, MAX_RETRY_MS));
    pauses++;
    frame.refit();
  }

  function retry() {
    clearTimeout(retryTimer);
    if (!inner.isConnected) return;
    // Without the hash, since a change of the hash alone loads nothing.
    load(page?.URL.replace(/#.*/, "") ?? addressOf(wanted ?? {}) ?? start.href);
  }

  // The proxy has refused the page. With a valid session, it may have been for a cookie that has been renewed since.
  async function refused(code, status = 403) {
    hideApp(true);
    isStuck = !(await frame.isOpen());
    if (isStuck) return; // frame.js shows the reason, or `checked` comes after a renewal
    if (reloads++ < MAX_RELOADS) retry();
    else pause({ status, code: code === "rate_limited" ? code : "unknown", detail: `The proxy refused the app's page: ${code}.` });
  }

  let missing = 0; // answers in a row to requests without the cookie

  function checked({ cookie }) {
    missing = cookie === false ? missing + 1 : 0;
    if (missing > 1) frame.stop(BLOCKED);
    else if (missing) frame.isOpen(); // the answer has set the cookie again
    else if (isStuck) {
      isStuck = false;
      retry();
    }
  }

  let lookedAt = -LOOK_MS;

  // A request of the app has been refused, by the proxy or by the app itself.
  function suspect(entries) {
    if (performance.now() - lookedAt < LOOK_MS || !entries.some(({ responseStatus }) => responseStatus === 401)) return;
    lookedAt = performance.now();
    frame.isOpen();
  }

  // ---- Following a page ----

  const mutations = new MutationObserver(changed);
  const everything = { childList: true, subtree: true, characterData: true, attributes: true };

  function follow(view) {
    mutations.disconnect();
    mutations.observe(page, everything);
    const sizes = new view.ResizeObserver(changed);
    arrivedAt = changedAt = performance.now();
    for (const each of [page.documentElement, page.body]) if (each) sizes.observe(each);
    for (const type of MOVES) view.addEventListener(type, look, true);
    for (const type of ["popstate", "hashchange"]) view.addEventListener(type, look);
    view.addEventListener("click", clicked);
    new view.PerformanceObserver((list) => suspect(list.getEntries())).observe({ type: "resource", buffered: true });
    catchDetached(view.HTMLAnchorElement.prototype);
  }

  let looking = null;
  let calmTimer;

  function changed() {
    look();
    clearTimeout(calmTimer);
    calmTimer = setTimeout(look, CALM_MS);
  }

  function look() {
    looking ??= requestAnimationFrame(() => {
      looking = null;
      update();
    });
  }

  function update(isNew = false) {
    if (!isShown || inner.contentDocument !== page) return;
    document.title = page.title || ownTitle;
    const { pathname, search } = inner.contentWindow.location;
    const now = pathname + search;
    if (isNew && wanted && (wanted.page ?? "index") === "index" && !wanted.params) home = now;
    if (now !== path || (isNew && wanted)) {
      const isFirst = path === null;
      path = now;
      const own = now === home ? { page: "index" } : { page: pathname, params: search.slice(1) };
      const { page: name = "index", params = "" } = (isNew && wanted) || own;
      if (!isFirst) frame.moved({ page: name ?? "index", params });
    }
    if (isNew) wanted = null;
    if (performance.now() >= restUntil) frame.refit();
  }

  setInterval(look, WATCH_MS);

  // ---- Links and downloads ----

  function clicked(event) {
    const elsewhere = event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey;
    const link = event.composedPath().find(({ localName, href }) => localName === "a" && typeof href === "string" && href);
    if (!link || elsewhere || event.defaultPrevented) return;
    if (isFile(link)) {
      event.preventDefault();
      download(link);
    } else if (/^(_self)?$/i.test(link.target) && !/^(about|blob|data|javascript):$/.test(link.protocol) && link.origin !== location.origin) {
      event.preventDefault();
      frame.openTab(link.href);
    }
  }

  // Chromium sends the request of a download without the frame's cookies.
  const isFile = (link) => link.hasAttribute("download") && link.origin === location.origin && /^https?:$/.test(link.protocol);

  async function download({ href, download: name }) {
    const get = () => fetch(href, { credentials: "same-origin" }).catch(() => null);
    let response = await get();
    if (response?.status === 401 && (await frame.isOpen())) response = await get();
    const blob = response?.ok && (await response.blob().catch(() => null));
    if (blob) frame.save(blob, frame.fileName(response) || name || decode(new URL(response.url).pathname.split("/").pop()) || "download");
    else frame.notice(response && !response.ok ? await frame.problemOf(response) : frame.unreachable);
  }

  // A click on a link outside the document reaches no listener of the window.
  function catchDetached(prototype) {
    const { click, dispatchEvent } = prototype;
    prototype.click = function () {
      if (!this.isConnected && isFile(this)) download(this);
      else click.call(this);
    };
    prototype.dispatchEvent = function (event) {
      if (this.isConnected || event?.type !== "click" || !isFile(this)) return dispatchEvent.call(this, event);
      download(this);
      return true;
    };
  }

  // ---- The height of the app ----

  // The window of the app is as high as the frame. If the content does not fit, the frame grows by what is missing. Else it
  // shrinks to the content, without the parts that only fill the window.
  function measure() {
    if (!isShown || !page?.body || inner.contentDocument !== page) return null;
    const begun = performance.now();
    const view = inner.contentWindow;
    const scroller = findScroller(view);
    const over = scroller.scrollHeight - scroller.clientHeight;
    const height = Math.max(view.innerHeight + (over > 0 ? over : -findSlack(scroller)), MIN_HEIGHT);
    const now = performance.now();
    restUntil = now + (now - begun) * REST_FACTOR;
    if (height !== raw) [raw, changedAt] = [height, now];
    const age = now - arrivedAt;
    const isBuilding = age < BUILD_MS && now - changedAt < CALM_MS;
    // While a page is built, the frame only grows, so that it does not flicker.
    measured = isBuilding ? Math.max(height, measured || innerHeight) : steady(height);
    if (inner.style.height && !isBuilding && (height > MIN_HEIGHT || age > BUILD_MS)) releasing ??= setTimeout(release, FIRST_MS);
    return measured;
  }

  let restUntil = 0; // an app with very many elements is measured less often
  let measured = 0;
  let releasing = null;
  let arrivedAt = 0; // when the page came
  let raw = 0, changedAt = 0; // the height of its content, and when that changed

  let lost = { height: 0, at: 0, until: 0, times: 0 }; // the last shrinking

  // If the content needs more again at once after a shrinking, it does not shrink for some time.
  function steady(height) {
    const now = performance.now();
    if (height < measured) {
      if (now < lost.until) return measured;
      lost = { ...lost, height: measured, at: now };
    } else if (height >= lost.height && now - lost.at < CALM_MS) {
      const times = lost.times + 1;
      lost = { height: 0, at: 0, until: now + Math.min(QUIET_MS * 2 ** times, MAX_QUIET_MS), times };
    }
    return height;
  }

  // From now on the window of the app is as high as the frame.
  function release() {
    clearTimeout(releasing);
    inner.style.height = "";
    look();
  }

  window.addEventListener("resize", () => {
    if (releasing && inner.style.height && innerHeight === Math.ceil(measured)) release();
    else look();
  });

  const rootOf = () => page.scrollingElement ?? page.documentElement;
  const childrenOf = (element) => [...(element.shadowRoot?.children ?? []), ...element.children];
  const styleOf = (element) => inner.contentWindow.getComputedStyle(element);

  // Return the root if it overflows, else the largest element that scrolls and has at least half of the window's height.
  function findScroller(view) {
    const root = rootOf();
    if (root.scrollHeight > root.clientHeight) return root;
    const isBodyFree = styleOf(page.documentElement).overflowY === "visible"; // then the body's overflow is the root's
    let [found, area] = [root, 0];
    const visit = (parent) => {
      for (const child of childrenOf(parent)) {
        const { clientWidth, clientHeight } = child;
        // A part without a height may have content outside the flow.
        if ((clientHeight > 1 && clientHeight < view.innerHeight / 2) || child.matches(REPLACED)) continue;
        const scrolls = /^(auto|scroll)$/.test(styleOf(child).overflowY) && !(child === page.body && isBodyFree);
        if (!scrolls) visit(child);
        else if (clientWidth * clientHeight > area) [found, area] = [child, clientWidth * clientHeight];
      }
    };
    visit(page.documentElement);
    return found;
  }

  // Return the height between the content's end and the end of the scroller.
  function findSlack(scroller) {
    const isRoot = scroller === rootOf();
    const top = isRoot ? 0 : scroller.getBoundingClientRect().top + scroller.clientTop;
    const edge = top + scroller.clientHeight;
    const loose = isRoot ? findLoose(edge) : [];
    classify([...(isRoot ? [page.documentElement, page.body, ...reaching(page.body, edge)] : reaching(scroller, edge)), ...loose]);
    const bottom = isRoot ? endOfRoot(edge, loose) : endOf(scroller, edge);
    return Math.max(Math.floor(edge - Math.max(bottom, top)), 0);
  }

  // Parts that reach the end: they fill the space, move with its end, or stay as they are.
  const kinds = new WeakMap();
  let probes = [];

  function classify(parts) {
    const unknown = parts.filter((part) => !kinds.has(part));
    probes = probes.filter((at) => performance.now() - at < QUIET_MS);
    if (!unknown.length || probes.length === MAX_PROBES) return;
    probes.push(performance.now());
    const sizes = () => unknown.map((part) => [sizeOf(part), lowOf(part)]);
    const { height } = inner.style;
    const before = sizes();
    inner.style.height = `${inner.contentWindow.innerHeight + PROBE}px`;
    sizes().forEach(([size, low], index) => {
      const kind = size > before[index][0] ? "fills" : low > before[index][1] ? "moves" : "stays";
      kinds.set(unknown[index], kind);
    });
    inner.style.height = height;
  }

  function* partsOf(parent) {
    for (const child of childrenOf(parent)) {
      const { display, position } = styleOf(child);
      if (display === "contents") yield* partsOf(child);
      else if (display !== "none" && position !== "fixed") yield child;
    }
  }

  function* reaching(parent, edge) {
    for (const part of partsOf(parent)) {
      if (lowOf(part) + marginOf(part) < edge - 1) continue;
      yield part;
      if (!part.matches(REPLACED)) yield* reaching(part, endOfContentBox(part));
    }
  }

  const px = (text) => parseFloat(text) || 0;
  const sizeOf = (part) => part.getBoundingClientRect().height;
  const marginOf = (part) => Math.max(px(styleOf(part).marginBottom), 0);

  // The end of a part, with what sticks out of it. The root's scrollHeight is never less than the window.
  function lowOf(part) {
    const { top, bottom } = part.getBoundingClientRect();
    const sticksOut = part !== page.documentElement && part !== rootOf() && styleOf(part).overflowY === "visible";
    return sticksOut ? Math.max(bottom, top + part.scrollHeight) : bottom;
  }

  function endOfContentBox(part) {
    const { paddingBottom, borderBottomWidth } = styleOf(part);
    return part.getBoundingClientRect().bottom - px(paddingBottom) - px(borderBottomWidth);
  }

  // Return the parts outside the flow below the end of the body: no part around them is as high as they are.
  function findLoose(edge) {
    const end = Math.min(page.body.getBoundingClientRect().bottom, edge - 1);
    const isLow = (part) => {
      const { bottom, height } = part.getBoundingClientRect();
      return height > 0 && bottom <= edge + 1 && bottom > end;
    };
    return [...page.body.querySelectorAll("*")].filter((part) => isLow(part) && styleOf(part).position === "absolute" && !isClipped(part));
  }

  function isClipped(part) {
    const { bottom } = part.getBoundingClientRect();
    for (let around = part.parentElement; around && around !== page.body; around = around.parentElement) {
      if (styleOf(around).overflowY !== "visible" && around.getBoundingClientRect().bottom < bottom - 1) return true;
    }
    return false;
  }

  function endOfRoot(edge, loose) {
    const { documentElement, body } = page;
    const own = kinds.get(documentElement) === "fills" ? 0 : lowOf(documentElement);
    const isFilled = kinds.get(body) === "fills" && lowOf(body) >= edge - 1 - marginOf(body);
    const flow = isFilled ? endOf(body, endOfContentBox(body)) + marginOf(body) : lowOf(body);
    return Math.max(own, endOfParts(loose, flow, edge));
  }

  // Return the end of what is in the part, with the part's own padding.
  function endOf(part, edge) {
    const { paddingBottom, borderBottomWidth } = styleOf(part);
    const from = Math.max(part.getBoundingClientRect().top, endOfText(part));
    return endOfParts(partsOf(part), from, edge) + px(paddingBottom) + px(borderBottomWidth);
  }

  function endOfParts(parts, from, edge) {
    let [end, pushed] = [from, 0];
    for (const part of parts) {
      const [low, margin] = [lowOf(part), marginOf(part)];
      const kind = low + margin < edge - 1 ? "stays" : kinds.get(part);
      if (kind === "moves") pushed = Math.max(pushed, sizeOf(part) + margin);
      else if (kind === "fills" && !part.matches(REPLACED)) end = Math.max(end, endOf(part, endOfContentBox(part)) + margin);
      else end = Math.max(end, low + margin);
    }
    return end + pushed;
  }

  function endOfText(part) {
    const range = page.createRange();
    const ends = [...part.childNodes].filter(({ nodeType, data }) => nodeType === Node.TEXT_NODE && data.trim()).map((text) => {
      range.selectNode(text);
      return range.getBoundingClientRect().bottom;
    });
    return Math.max(0, ...ends);
  }

  // ---- Start ----

  frame.attach({ measure, navigate, checked });
  outer.append(inner);
  inner.addEventListener("load", loaded);
  if (document.documentElement.hasAttribute("data-auto-height")) inner.style.height = `${FIRST_HEIGHT}px`;
  load(addressOf(wanted) ?? start.href);
  frame.isOpen();
})();
