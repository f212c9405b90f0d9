"use strict";
// Events between this app and a host page with embed.js.
(() => {
  // frame.send("filter", { status: "shipped" }) shows only these orders.
  embed.on("filter", (data) => embed.page("index", { status: data?.status ?? "" }));

  document.addEventListener("click", (event) => {
    const link = event.target.closest(".row-link");
    // Not prevented: the viewer opens the link in a new tab.
    if (link && event.defaultPrevented) embed.send("order:opened", { number: link.textContent });
  });
})();
