"use strict";
// What the page around and this app tell each other, where it embeds by pat-service's script.
(() => {
  // frame.send("filter", { status: "shipped" }): show these orders alone.
  embed.on("filter", (data) => embed.page("index", { status: data?.status ?? "" }));

  document.addEventListener("click", (event) => {
    const link = event.target.closest(".row-link");
    // Prevented: it was not a press that asks for a tab of its own.
    if (link && event.defaultPrevented) embed.send("order:opened", { number: link.textContent });
  });
})();
