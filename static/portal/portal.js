"use strict";
// The customer's page: asks its own server side for an address, frames it, and listens to the frame.
(() => {
  const $ = (id) => document.getElementById(id);
  const SANDBOX = "allow-scripts allow-same-origin allow-forms allow-downloads";
  // What the portal can mend by itself: a new token opens the app again.
  const MENDABLE = new Map([
    ["token_missing", "The frame was reloaded, or went back. Its token had left the address, so it cannot open a second time."],
    ["session_expired", "The session in this frame is over."],
    ["token_expired", "That token was too old."],
    ["token_superseded", "That token was replaced by a newer one."],
    ["token_used", "That token was for one opening, and has had it."],
    ["unavailable", "The service was away for a moment."],
  ]);
  const RELOAD_DEMO = new Set(["invalid_client", "scope_missing", "user_not_found", "app_not_found", "not_found"]);

  const links = [...document.querySelectorAll("[data-app]")];
  const radios = [...document.querySelectorAll("input[name=person]")];
  const regions = [...document.querySelectorAll("input[name=region]")];
  const cases = [...document.querySelectorAll("[data-case]")];

  let frame = null; // the iframe that is shown
  let frameOrigin = null; // where it came from
  let loaded = false; // its first page is there
  let refused = false; // it has said so
  let asking = null; // the AbortController of the question under way
  let overAgain = null; // what the button over the frame does
  let waiting; // the timer of a button that cannot be pressed yet

  // Only where frames come from is listened to. With {app} in it each app has an origin of its own, and a launcher
  // leads from one to the next.
  const [before, after] = $("stage").dataset.frames.split("{app}.");
  const heard = (origin) => origin === frameOrigin || (after && origin.startsWith(before) && origin.endsWith(`.${after}`));

  // ---- Which person, app and region: the page's own address says, as #/ben/support or #/ana/orders/north.

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

  // ---- Ask the server side, then show what it says.

  async function open(kind = "normal") {
    asking?.abort();
    const mine = asking = new AbortController();
    showChoice();
    busy(kind);
    let outcome;
    try {
      outcome = await ask({ ...choice(), case: kind }, mine.signal);
    } catch (error) {
      if (mine.signal.aborted) return; // a newer question has taken over
      outcome = { failed: error.message };
    }
    if (mine !== asking) return;
    show(outcome);
  }

  async function ask(wish, signal) {
    const answer = await fetch("/portal/open", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(wish),
      credentials: "omit",
      cache: "no-store",
      signal,
    }).catch((error) => {
      throw signal.aborted ? error : new Error("The portal’s own server does not answer. Is it still running?");
    });
    const body = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(body.detail || `The portal’s own server answered ${answer.status}.`);
    return body;
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
    loaded = refused = false;
    stage.setAttribute("aria-busy", "false");
    if (outcome.failed) {
      $("stage-who").textContent = "Nothing was opened";
      $("stage-where").textContent = "";
      state("mint-state", "no answer", "bad");
      state("frame-state", "no frame", "");
      stage.replaceChildren(failure("The portal could not ask", outcome.failed));
      say(outcome.failed);
      return;
    }
    showExchange(outcome);
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

  // Frame the same address a second time, once so many seconds are over.
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
      const text = (shown[name] ?? value).replaceAll("&", "&amp;").replaceAll('"', "&quot;");
      return `\n  ${name}="${text}"`;
    });
    return `<iframe${lines.join("")}></iframe>`;
  }

  function showExchange({ curl, answer, redirectUrl, framed }) {
    $("curl").textContent = curl ?? "Nothing was sent: this address was made up.";
    $("answer").textContent = answer?.body ?? "Nothing came back.";
    $("answer-head").replaceChildren(...Object.entries({ ...(answer && { Status: answer.line }), ...answer?.headers })
      .map(([name, value]) => element("div", "", element("dt", "", name), element("dd", "", value))));
    if (!redirectUrl || !framed) {
      $("html").textContent = redirectUrl ? "No frame: the address is opened in a tab." : "No frame: there is no address to put in.";
    }
    if (!answer) state("mint-state", "not asked", "");
    else state("mint-state", answer.line, redirectUrl ? "ok" : "bad");
  }

  function refusedMint({ answer, person, app }) {
    const problem = answer.problem;
    const wait = answer.headers["Retry-After"];
    const title = answer.status ? "No token, so no frame" : "The portal’s server side got no answer";
    const panel = failure(title, problem.detail ?? problem.title ?? answer.line, answer.status && `${answer.status} ${problem.code ?? ""}`);
    if (wait) panel.append(element("p", "", `Retry-After says: try again in ${wait} seconds.`));
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
    const text = "The token is good, but the browser tells the service that this is no frame, and no session is opened.";
    say("A link is ready that opens the address outside a frame.");
    return element("div", "panel", element("h2", "", "The same address, outside a frame"), element("p", "", text), link);
  }

  // ---- Listen to the frame.

  addEventListener("message", (event) => {
    // Any page can post to this one. Only the frame that is shown counts, and only from where it was opened.
    if (!frame || !heard(event.origin) || event.source !== frame.contentWindow) return;
    const message = event.data;
    if (typeof message !== "object" || message === null) return;
    logMessage(message, event.origin);
    if (message.type !== "TJ_EMBED_APP_LOGOUT") return;
    // Of an app that is open, only these end the frame. After another failure its page is there, and says what failed.
    if (loaded && message.error !== 401 && message.error !== 403) return;
    refused = true;
    state("frame-state", `${message.error} ${message.code}`, "bad");
    if (MENDABLE.has(message.code)) {
      offer(MENDABLE.get(message.code), "Open again", open);
    }
  });

  function logMessage(message, origin) {
    const known = message.type === "TJ_EMBED_APP_LOGOUT";
    const head = known ? `${message.error} ${message.code}` : String(message.type ?? "message");
    const entry = log("frame", element("strong", "", head), known ? String(message.message) : JSON.stringify(message));
    const facts = known ? [message.type, message.requestId && `request ${message.requestId}`] : [];
    entry.append(element("small", "", [...facts, `from ${origin}`].filter(Boolean).join(" · ")));
    $("log").scrollTop = $("log").scrollHeight;
  }

  function log(source, ...parts) {
    const time = new Date().toLocaleTimeString([], { hour12: false });
    const entry = element("li", `from-${source}`, element("time", "", time), element("p", "", ...parts.flatMap((part) => [part, " "])));
    $("log").append(entry);
    $("log").scrollTop = $("log").scrollHeight;
    return entry;
  }

  // ---- Small helpers. Text is always set as text.

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

  // ---- What a person can do.

  for (const radio of radios) {
    radio.addEventListener("change", () => { location.hash = address({ ...choice(), person: radio.value }); });
  }
  for (const radio of regions) {
    radio.addEventListener("change", () => { location.hash = address({ ...choice(), region: radio.value }); });
  }
  for (const link of links) {
    // The same link again changes no address, but a person who presses it wants the app.
    link.addEventListener("click", () => { if (link.hash === location.hash) open(); });
  }
  for (const button of cases) {
    button.addEventListener("click", () => { open(button.dataset.case); showStage(); });
  }
  $("again").addEventListener("click", () => open());
  $("over-again").addEventListener("click", () => { $("stage").focus(); overAgain(); });
  $("clear").addEventListener("click", () => $("log").replaceChildren());
  addEventListener("hashchange", () => { if (location.hash.startsWith("#/")) open(); });

  // A first visit opens the app. So does coming Back: the frame's token was used and is no longer in its address,
  // and a page kept in memory may hold a session that has ended meanwhile.
  addEventListener("pageshow", (event) => {
    const [visit] = performance.getEntriesByType("navigation");
    if (event.persisted || visit?.type === "back_forward") log("portal", "Back on this page: minting again");
    open();
  });
})();
