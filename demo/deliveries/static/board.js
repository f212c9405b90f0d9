"use strict";
// The clock and the van move by server-sent events.
(() => {
  const $ = (id) => document.getElementById(id);
  const stops = [...$("stops").children];
  new EventSource("/live").onmessage = ({ data }) => {
    const { time, progress } = JSON.parse(data);
    const passed = Math.floor(progress * stops.length);
    $("clock").textContent = time;
    $("clock").dateTime = time;
    $("done").style.width = $("truck").style.left = `${progress * 100}%`;
    const next = stops[(passed + 1) % stops.length].textContent;
    $("where").textContent = `Between ${stops[passed].textContent} and ${next}`;
    stops.forEach((stop, place) => stop.classList.toggle("passed", place <= passed));
  };
})();
