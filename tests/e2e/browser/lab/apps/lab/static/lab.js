// An app's script that runs after the service's own, and searches the page for a session or a token.
(() => {
  "use strict";
  const JWT = /eyJ[\w-]+\.[\w-]+\.[\w-]+/;
  const PAT = /pat_[0-9a-f]{72}/;
  let found;
  let seen;

  function look(value, path, depth) {
    if (typeof value === "string" && JWT.test(value)) found.push(path);
    if (typeof value === "function" && JWT.test(Function.prototype.toString.call(value))) found.push(path);
    if (value instanceof Promise) value.catch(() => {});
    if (!value || !/object|function/.test(typeof value) || seen.has(value) || depth > 5) return;
    seen.add(value);
    for (const name of Reflect.ownKeys(value)) {
      try {
        look(value[name], `${path}.${String(name)}`, depth + 1);
      } catch {
        // A getter of the browser that needs another `this`.
      }
    }
  }

  window.search = () => {
    found = [];
    seen = new Set();
    look(window, "window", 0);
    if (JWT.test(document.documentElement.outerHTML)) found.push("document");
    if (PAT.test(document.documentElement.outerHTML + location.href + document.referrer)) found.push("token");
    return found;
  };

  window.earlyEvents = [];
  window.embed?.on("filter", (data) => window.earlyEvents.push(data));

  // A script that draws on each page, as chart libraries do, and cleans up.
  window.heard = [];
  window.timers = 0;
  window.embed?.on("page", ({ element, page, params }) => {
    window.heard.push(`enter ${page}?${params}`);
    const chart = element.appendChild(document.createElement("canvas"));
    const timer = setInterval(() => chart.getContext("2d").fillRect(0, 0, 9, 9), 1000);
    window.timers++;
    return () => {
      window.heard.push(`leave ${page}, ${element.contains(chart) ? "with" : "without"} its chart`);
      clearInterval(timer);
      window.timers--;
    };
  });

  // Every listener of the window receives all messages to it.
  window.windowMessages = [];
  addEventListener("message", ({ data, ports }) => window.windowMessages.push([data?.type, ports.length]));

  // A wrapper like those of monitoring scripts.
  window.wrapped = [];
  const { fetch } = window;
  window.fetch = (...args) => {
    window.wrapped.push(args);
    return fetch(...args);
  };
})();
