"use strict";
// The customer's page. It opens an app with <pat-embed>, and fetches tokens from its own server side. It shows a
// refusal in a bare iframe, because the script would recover from most of them.
(() => {
  const $ = (id) => document.getElementById(id);
  const SANDBOX = "allow-scripts allow-same-origin allow-forms allow-downloads";
  // Codes after which a new token opens the app again.
  const REOPENABLE = new Map([
    ["token_missing", "The frame was reloaded, or the browser went back. The address no longer has the token."],
    ["session_expired", "The session in this frame has expired."],
    ["token_expired", "The token had expired."],
    ["token_superseded", "A newer token had replaced this one."],
    ["token_used", "This single-use token had already been used."],
    ["unavailable", "The service was unavailable for a moment."],
  ]);
  const UNREACHABLE = "This browser loads no script from the apps’ site. Safari does not know the names below localhost: "
    + "use Chrome, Edge or Firefox, or start the demo with make run PUBLIC_URL=http://127.0.0.1:5000.";
  const RELOAD_DEMO = new Set(["invalid_client", "scope_missing", "user_not_found", "app_not_found", "not_found"]);

  // Messages of a frame, and of the demo's Orders app.
  const EVENTS = ["waiting", "ready", "loaded", "resize", "navigate", "session:expiring", "session:renewed", "session:expired",
    "session:revoked", "error", "order:opened"];

  const links = [...document.querySelectorAll("[data-app]")];
  const radios = [...document.querySelectorAll("input[name=person]")];
  const regions = [...document.querySelectorAll("input[name=region]")];
  const cases = [...document.querySelectorAll("[data-case]")];
  const { script, workspace, tokenTimeout } = $("stage").dataset;

  let embed = null; // the <pat-embed> that is shown, or that replaces it once it has loaded
  let frame = null; // the bare iframe that is shown
  let frameOrigin = null; // the origin of its address
  let loaded = false; // whether the shown frame has loaded its first page
  let refused = false; // whether the shown frame has reported a refusal
  let asking = null; // the AbortController of the opening under way
  let minted = null; // the answer of the last mint for the <pat-embed>
  let over = 0; // the time when its session ends, by performance.now()
  let ticking; // the timer that shows the time left
  let overAgain = null; // the action of the button over a bare frame
  let waiting; // the timer of a button that cannot be pressed yet

  // Read messages only from the origins of frames. With {app}, each app has an origin of its own, and a
  // launcher leads from one to another.
  const [before, after] = $("stage").dataset.frames.split("{app}.");
  const heard = (origin) => origin === frameOrigin || (after && origin.startsWith(before) && origin.endsWith(`.${after}`));
  const chosen = (name) => document.querySelector(`input[name=${name}]:checked`).value;

  // ---- The page's address names person, app and region: #/ben/support or #/ana/orders/north.

  function choice() {
    const [, person, app, region] = location.hash.split("/");
    return {
      person: radios.some((radio) => radio.value === person) ? person : radios[0].value,
      app: links.some((link) => link.dataset.app === app) ? app : links[0].dataset.app,
      region: regions.some((radio) => radio.value === region) ? region : "",
    };
  }

  function address({ person, app, region }) {
    return `#/${person}/${app}${region && `/${region}`}`;
  }

  // The address must not name another person or app than the page shows.
  function correctAddress() {
    const meant = address(choice());
    if (location.hash.startsWith("#/") && location.hash !== meant) history.replaceState(null, "", meant);
  }

  function showChoice() {
    const { person, app, region } = choice();
    for (const radio of regions) radio.checked = radio.value === region;
    for (const radio of radios) {
      radio.checked = radio.value === person;
      if (radio.checked) $("hello").textContent = `Hello, ${radio.dataset.name.split(" ")[0]}`;
    }
    for (const link of links) {
      link.hash = address({ person, app: link.dataset.app, region });
      if (link.dataset.app !== app) { link.removeAttribute("aria-current"); continue; }
      link.setAttribute("aria-current", "page");
      $("app-about").textContent = link.dataset.about;
      $("regions").hidden = !("regions" in link.dataset);
    }
  }

  // ---- Open an app with embed.js, which calls fetchToken for each token.

  function open() {
    begin("normal");
    if (!customElements.get("pat-embed")) {
      show({ failed: UNREACHABLE });
      return;
    }
    const { person, app, region } = choice();
    const link = links.find((each) => each.dataset.app === app);
    const { name } = radios.find((radio) => radio.value === person).dataset;
    const regionName = region && "regions" in link.dataset ? $("regions").querySelector(":checked + span").textContent : "";
    const made = document.createElement("pat-embed");
    made.setAttribute(...(app === "all" ? ["workspace", workspace] : ["app", app]));
    made.setAttribute("title", `${link.textContent}, for ${name}`);
    made.setAttribute("theme", chosen("theme"));
    made.setAttribute("locale", chosen("locale"));
    made.setAttribute("token-timeout", tokenTimeout);
    made.toggleAttribute("auto-height", $("auto-height").checked);
    made.fetchToken = ({ reason, signal }) => fetchToken(made, { person, app, region }, reason, signal);
    for (const type of EVENTS) made.addEventListener(type, ({ detail }) => { if (made === embed) handleEvent(made, type, detail); });
    const who = `${link.textContent} as ${name}${regionName && `, ${regionName}`}`;
    $("stage-who").textContent = who;
    $("stage-where").textContent = new URL(script).origin;
    log("portal", `Opens ${who}`);
    embed = made;
    // The new frame stays behind the old one until it has content. The first one shows that it opens.
    made.classList.toggle("coming", $("stage-body").childElementCount > 0);
    $("stage-body").append(made);
    drivable(true);
    showTag();
  }

  // Get a token as a customer's page does: ask the server side, and pass on the mint's answer.
  async function fetchToken(made, who, reason, signal) {
    const entry = log("portal", "fetchToken, reason ", element("strong", "", reason));
    const say = (text) => {
      entry.append(element("small", "", text));
      scrollLog();
    };
    if (made === embed) state("mint-state", "asking…", "");
    let outcome;
    try {
      outcome = await ask("token", { ...who, session: chosen("session"), endpoint: chosen("endpoint") }, signal);
    } catch (error) {
      say(signal.aborted ? `No answer within ${tokenTimeout / 1000} s` : error.message);
      if (made === embed) state("mint-state", signal.aborted ? "no answer" : "failed", "bad");
      throw error;
    }
    if (made === embed) showExchange(outcome);
    const { answer } = outcome;
    if (!outcome.minted) {
      say(answer.line);
      if (made === embed) explain(answer);
      const retryable = !answer.status || answer.status === 429 || answer.status >= 500;
      throw Object.assign(new Error(answer.problem.detail ?? answer.line), { retryable, retryAfter: Number(answer.headers["Retry-After"]) || null });
    }
    minted = outcome.minted;
    if (made === embed) $("stage-where").textContent = new URL(minted.redirectUrl).origin;
    say(`${answer.line} · ${outcome.shownToken}`);
    return minted;
  }

  function handleEvent(made, type, detail) {
    logEvent(type, detail);
    if (type === "loaded") {
      // Only Orders listens to messages.
      sendable(detail.app?.slug === "orders");
      loaded = true;
      refused = false;
      arrive(made);
      countDown(minted.sessionExpiresIn);
      state("frame-state", "loaded", "ok");
      say(`${$("stage-who").textContent} is in the frame.`);
    } else if (type === "session:expiring") {
      countDown(detail.expiresIn);
    } else if (type === "session:renewed") {
      refused = false;
      countDown(detail.expiresIn);
      state("frame-state", "loaded", "ok");
      say("The session was renewed.");
    } else if (type === "session:expired" || type === "session:revoked") {
      refused = true;
      countDown(0);
      state("frame-state", type.split(":")[1], "bad");
    } else if (type === "error") {
      arrive(made);
      // Only these codes end the frame of an open app. After any other failure its page stays and shows the reason.
      if (loaded && !refused && detail.status !== 401 && detail.status !== 403) return;
      refused = true;
      countDown(0);
      state("frame-state", `${detail.status || ""} ${detail.code}`.trim(), "bad");
      say(`The frame says: ${detail.message}`);
    }
  }

  // Remove the previous content.
  function arrive(made) {
    made.classList.remove("coming");
    for (const child of [...$("stage-body").children]) if (child !== made) child.remove();
    $("stage-body").setAttribute("aria-busy", "false");
  }

  function explain({ problem, line }) {
    const reload = RELOAD_DEMO.has(problem.code);
    $("note").replaceChildren(`No token: ${problem.detail ?? line} `);
    if (reload) $("note").append("The demo’s data may have changed since it was loaded. Load it again: ", element("code", "", "flask --app app demo load"));
    $("note").hidden = false;
  }

  function countDown(seconds) {
    over = performance.now() + seconds * 1000;
    clearInterval(ticking);
    $("left").hidden = !seconds;
    if (!seconds) return;
    ticking = setInterval(tick, 1000);
    tick();
  }

  function tick() {
    const left = Math.max(0, Math.round((over - performance.now()) / 1000));
    $("left").textContent = `Session ${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
  }

  // ---- Code for a developer to copy.

  function showTag() {
    const attributes = [...embed.attributes].filter(({ name }) => name !== "class" && name !== "style");
    const written = attributes.map(({ name, value }) => `\n  ${name}${value && `="${escaped(value)}"`}`).join("");
    const [target] = attributes;
    const fetchToken = `({ ${target.name}, reason, signal }) => askMyBackEnd(${target.name}, reason, signal)`;
    $("html").textContent = `<script src="${script}" defer></script>
<pat-embed${written}></pat-embed>
<script type="module">
  document.querySelector("pat-embed").fetchToken =
    ${fetchToken};
</script>`;
    const orders = `
frame.on("order:opened", ({ number }) => console.log(number));
frame.send("filter", { status: "shipped" });`;
    $("call").textContent = `const frame = await PatEmbed.mount("#slot", {
  ${target.name}: "${target.value}",
  fetchToken: ${fetchToken},
  title: "${embed.title}",
  theme: "${chosen("theme")}",
  locale: "${chosen("locale")}",
  tokenTimeout: ${Number(tokenTimeout).toLocaleString("en").replace(",", "_")},
  autoHeight: ${$("auto-height").checked},
});
frame.on("error", ({ code, message }) => console.warn(code, message));${["orders", "all"].includes(target.value) ? orders : ""}`;
    $("call-figure").hidden = false;
  }

  const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll('"', "&quot;");

  // ---- A refusal: get an address from the server side, and frame it.

  async function refuse(kind) {
    const mine = begin(kind);
    let outcome;
    try {
      outcome = await ask("open", { ...choice(), case: kind }, mine.signal);
    } catch (error) {
      if (mine.signal.aborted) return; // a newer request has replaced this one
      outcome = { failed: error.message };
    }
    if (mine !== asking) return;
    show(outcome);
  }

  function begin(kind) {
    asking?.abort();
    asking = new AbortController();
    // Cancel a pending request.
    $("stage-body").querySelector(".coming")?.remove();
    embed = minted = null;
    loaded = refused = false;
    countDown(0);
    showChoice();
    busy(kind);
    return asking;
  }

  async function ask(what, options, signal) {
    const answer = await fetch(`/portal/${what}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(options),
      credentials: "omit",
      cache: "no-store",
      signal,
    }).catch((error) => {
      throw signal?.aborted ? error : new Error("The portal’s own server does not answer. Is it still running?");
    });
    const body = await answer.json().catch(() => ({}));
    if (answer.ok) return body;
    const retryAfter = Number(answer.headers.get("Retry-After")) || null;
    throw Object.assign(new Error(body.detail || `The portal’s own server answered ${answer.status}.`), { retryable: answer.status >= 500, retryAfter });
  }

  function busy(kind) {
    $("stage-body").setAttribute("aria-busy", "true");
    for (const button of cases) button.setAttribute("aria-current", String(button.dataset.case === kind));
    state("mint-state", "asking…", "");
    state("frame-state", "waiting", "");
    $("note").hidden = $("over").hidden = true;
    clearTimeout(waiting);
  }

  function show(outcome) {
    const stage = $("stage-body");
    frame = frameOrigin = null;
    drivable(false);
    stage.setAttribute("aria-busy", "false");
    if (outcome.failed) {
      $("stage-who").textContent = "Nothing was opened";
      $("stage-where").textContent = "";
      $("call-figure").hidden = true;
      state("mint-state", "no answer", "bad");
      state("frame-state", "no frame", "");
      stage.replaceChildren(failure("The portal could not ask", outcome.failed));
      say(outcome.failed);
      return;
    }
    showExchange(outcome);
    $("call-figure").hidden = true;
    if (!outcome.redirectUrl || !outcome.framed) {
      $("html").textContent = outcome.redirectUrl ? "No frame: the address is opened in a tab." : "No frame: there is no address to put in.";
    }
    const who = `${outcome.app.name} as ${outcome.person.name}${outcome.region && `, ${outcome.region}`}`;
    $("stage-who").textContent = who;
    $("stage-where").textContent = outcome.shownUrl ?? "";
    $("note").textContent = outcome.note;
    $("note").hidden = !outcome.note;
    if (!outcome.redirectUrl) {
      state("frame-state", "no frame", "");
      log("portal", `No token for ${who}`);
      stage.replaceChildren(refusedMint(outcome));
      return;
    }
    if (!outcome.framed) {
      state("frame-state", "in a tab of its own", "");
      log("portal", `A link for ${who}`);
      stage.replaceChildren(tabLink(outcome.redirectUrl));
      return;
    }
    put(outcome);
    $("html").textContent = asHtml(frame, outcome);
    say(`${who} is in the frame.`);
    if (outcome.againAfter) offerAgain(outcome, outcome.againAfter);
  }

  function put(outcome) {
    log("portal", `Framed ${$("stage-who").textContent}`);
    loaded = refused = false;
    frameOrigin = new URL(outcome.redirectUrl).origin;
    frame = makeFrame(outcome);
    state("frame-state", "loading…", "");
    $("stage-body").replaceChildren(frame);
  }

  // Frame the same address again after some seconds.
  function offerAgain(outcome, seconds) {
    const again = () => { $("over").hidden = true; put(outcome); };
    offer(seconds ? `The address can be used again in ${seconds} s.` : "The same address, a second time:", "Use it again", again);
    $("over-again").disabled = seconds > 0;
    if (seconds) waiting = setTimeout(() => offerAgain(outcome, seconds - 1), 1000);
    else say("The same address can be framed again now.");
  }

  function offer(text, button, action) {
    clearTimeout(waiting);
    $("over-text").textContent = text;
    $("over-again").textContent = button;
    $("over-again").disabled = false;
    $("over").hidden = false;
    overAgain = action;
  }

  // A new element for each opening: changing the address of an old one would add a step to the browser's Back.
  function makeFrame(outcome) {
    const made = document.createElement("iframe");
    made.title = `${outcome.app.name}, for ${outcome.person.name}`;
    made.setAttribute("sandbox", SANDBOX);
    made.setAttribute("allow", "");
    made.referrerPolicy = "no-referrer";
    made.src = outcome.redirectUrl;
    made.addEventListener("load", () => {
      if (made !== frame) return;
      loaded = true;
      if (!refused) state("frame-state", "loaded", "ok");
    });
    return made;
  }

  function asHtml(element, outcome) {
    const shown = { src: outcome.shownUrl };
    const lines = [...element.attributes].map(({ name, value }) => {
      return `\n  ${name}="${escaped(shown[name] ?? value)}"`;
    });
    return `<iframe${lines.join("")}></iframe>`;
  }

  function showExchange({ curl, answer }) {
    $("curl").textContent = curl ?? "Nothing was sent: this address was made up.";
    $("answer").textContent = answer?.body ?? "Nothing came back.";
    $("answer-head").replaceChildren(...Object.entries({ ...(answer && { Status: answer.line }), ...answer?.headers })
      .map(([name, value]) => element("div", "", element("dt", "", name), element("dd", "", value))));
    if (!answer) state("mint-state", "not asked", "");
    else state("mint-state", answer.line, answer.status < 300 ? "ok" : "bad");
  }

  function refusedMint({ answer, person, app }) {
    const problem = answer.problem;
    const title = answer.status ? "No token, so no frame" : "The portal’s server side got no answer";
    const panel = failure(title, problem.detail ?? problem.title ?? answer.line, answer.status && `${answer.status} ${problem.code ?? ""}`);
    if (RELOAD_DEMO.has(problem.code)) {
      panel.append(element("p", "", "The demo’s data may have changed since it was loaded. Load it again: ", element("code", "", "flask --app app demo load")));
    }
    panel.append(element("pre", "", answer.body));
    say(`The mint for ${person.name} and ${app.name} was refused: ${answer.line}.`);
    return panel;
  }

  function failure(title, text, chip) {
    const panel = element("div", "panel", element("h2", "", title), element("p", "", text));
    if (chip) panel.prepend(element("span", "state bad", chip));
    return panel;
  }

  function tabLink(url) {
    const link = element("a", "primary", "Open the address in a tab");
    link.href = url;
    link.target = "_blank";
    link.rel = "noopener noreferrer";
    const text = "The token is valid. But the browser tells the service that the address is not in a frame, so the service opens no session.";
    say("A link is ready that opens the address outside a frame.");
    return element("div", "panel", element("h2", "", "The same address, outside a frame"), element("p", "", text), link);
  }

  // ---- Listen to a bare frame. <pat-embed> has events of its own.

  addEventListener("message", (event) => {
    // Any page can post messages here. Only the shown frame counts, and only from its own origin.
    if (!frame || !heard(event.origin) || event.source !== frame.contentWindow) return;
    const message = event.data;
    if (typeof message !== "object" || message === null) return;
    logMessage(message, event.origin);
    if (message.type !== "TJ_EMBED_APP_LOGOUT") return;
    // Only these codes end the frame of an open app. After any other failure its page stays and shows the reason.
    if (loaded && message.error !== 401 && message.error !== 403) return;
    refused = true;
    state("frame-state", `${message.error} ${message.code}`, "bad");
    if (REOPENABLE.has(message.code)) {
      offer(REOPENABLE.get(message.code), "Open again", open);
    }
  });

  function logMessage(message, origin) {
    const known = message.type === "TJ_EMBED_APP_LOGOUT";
    const head = known ? `${message.error} ${message.code}` : String(message.type ?? "message");
    const entry = log("frame", element("strong", "", head), known ? String(message.message) : JSON.stringify(message));
    const facts = known ? [message.type, message.requestId && `request ${message.requestId}`] : [];
    entry.classList.toggle("bad", known);
    entry.append(element("small", "", [...facts, `from ${origin}`].filter(Boolean).join(" · ")));
    scrollLog();
  }

  function logEvent(type, detail) {
    const last = $("log").lastElementChild;
    const facts = type === "error" ? { ...detail, message: detail.message } : detail;
    const data = Object.entries(facts).filter(([, value]) => value !== null && value.length !== 0)
      .map(([name, value]) => `${name}: ${value.slug ?? value}`).join("\n");
    // A frame reports each step while it adjusts its height.
    if (type === "resize" && last?.dataset.type === type) {
      last.querySelector("code").textContent = data;
      return;
    }
    const entry = log("frame", element("strong", "", type), element("code", "", data));
    entry.dataset.type = type;
    entry.classList.toggle("bad", ["error", "session:expired", "session:revoked"].includes(type));
    entry.classList.toggle("own", type === "order:opened");
  }

  function log(source, ...parts) {
    const time = new Date().toLocaleTimeString([], { hour12: false });
    const entry = element("li", `from-${source}`, element("time", "", time), element("p", "", ...parts.flatMap((part) => [part, " "])));
    $("log").append(entry);
    scrollLog();
    return entry;
  }

  function scrollLog() {
    const box = $("log").parentElement;
    box.scrollTop = box.scrollHeight;
  }

  // ---- Small helpers. They set text as text, never as HTML.

  function element(name, className, ...children) {
    const made = document.createElement(name);
    if (className) made.className = className;
    made.append(...children);
    return made;
  }

  function state(id, text, look) {
    $(id).textContent = text;
    $(id).className = `state ${look}`;
  }

  function say(text) {
    $("said").textContent = text;
  }

  function showStage() {
    const { top } = $("stage").getBoundingClientRect();
    if (top >= 0 && top < innerHeight / 2) return;
    const smooth = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    $("stage").scrollIntoView({ behavior: smooth ? "smooth" : "auto" });
  }

  // ---- Control the frame.

  function drivable(can) {
    for (const each of document.querySelectorAll("#tools input, .drive :is(input, button)")) each.disabled = !can;
    sendable(can && choice().app === "orders");
  }

  function sendable(can) {
    $("filter").disabled = $("send").disabled = !can;
  }

  function renew() {
    embed?.frame?.refresh().catch(() => {}); // an event reports the failure
  }

  async function end() {
    if (!minted) return;
    const mine = embed;
    let text;
    try {
      const outcome = await ask("end", { tokenId: minted.tokenId });
      if (mine === embed) showExchange(outcome);
      text = outcome.answer.status === 204
        ? "The token is revoked, and its sessions have ended. An idle frame asks every 20 s; a frame in use notices at once."
        : outcome.answer.line;
    } catch (error) {
      text = error.message;
    }
    log("portal", text);
    say(text);
  }

  // ---- Controls.

  for (const radio of radios) {
    radio.addEventListener("change", () => { location.hash = address({ ...choice(), person: radio.value }); });
  }
  for (const radio of regions) {
    radio.addEventListener("change", () => { location.hash = address({ ...choice(), region: radio.value }); });
  }
  for (const link of links) {
    // A click on the current link does not change the address, but the visitor wants to open the app again.
    link.addEventListener("click", () => { if (link.hash === location.hash) open(); });
  }
  for (const button of cases) {
    button.addEventListener("click", () => { refuse(button.dataset.case); showStage(); });
  }
  for (const name of ["theme", "locale"]) {
    for (const radio of document.getElementsByName(name)) {
      radio.addEventListener("change", () => {
        embed?.setAttribute(name, radio.value);
        if (embed) showTag();
      });
    }
  }
  $("auto-height").addEventListener("change", () => { if (embed) open(); });
  // The setting applies to the next session, which starts now.
  for (const radio of document.getElementsByName("session")) radio.addEventListener("change", renew);
  $("renew").addEventListener("click", renew);
  $("end").addEventListener("click", end);
  $("message").addEventListener("submit", (event) => {
    event.preventDefault();
    const data = { status: $("filter").value };
    embed?.frame?.send("filter", data);
    log("portal", "send ", element("strong", "", "filter"), element("code", "", `status: ${data.status || "all"}`));
  });
  $("again").addEventListener("click", () => open());
  $("over-again").addEventListener("click", () => { $("stage").focus(); overAgain(); });
  $("clear").addEventListener("click", () => $("log").replaceChildren());
  addEventListener("hashchange", () => {
    if (!location.hash.startsWith("#/")) return;
    correctAddress();
    open();
  });

  // A first visit opens the app. Going back opens it too: the frame's token was used, and a page kept in
  // memory may have an ended session. <pat-embed> handles this itself.
  addEventListener("pageshow", (event) => {
    if (event.persisted && embed) return;
    const [visit] = performance.getEntriesByType("navigation");
    if (event.persisted || visit?.type === "back_forward") log("portal", "Back on this page: minting again");
    correctAddress();
    open();
  });
})();
