"use strict";
// The chart of the overview. The table below it has the same numbers.
(() => {
  const HEIGHT = 240; // px
  const COLOURS = ["--brand", "--ok", "--bad", "--warn"];
  /** @type {any} */
  let chart = null;
  /** @type {ResizeObserver | null} */
  let observer = null;

  /** @param {string} name */
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  /** @param {any} series @param {number} place */
  function makeSeries(series, place) {
    const stroke = colour(COLOURS[place]);
    return { label: series.name, stroke, fill: `${stroke}1f`, width: 2, points: { show: false } };
  }

  /** @param {number} seconds @param {boolean} withHour */
  function write(seconds, withHour) {
    const moment = new Date(seconds * 1000);
    const hour = moment.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
    const day = moment.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
    return withHour ? `${day}, ${hour}` : hour === "00:00" ? day : hour;
  }

  function draw() {
    const figure = /** @type {HTMLElement | null} */ (document.querySelector("[data-chart]"));
    chart?.destroy();
    observer?.disconnect();
    chart = null;
    if (!figure) return;
    const { starts, series } = JSON.parse(figure.dataset.chart ?? "{}");
    const place = /** @type {HTMLElement} */ (figure.querySelector(".chart-place"));
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const times = (/** @type {any} */ _, /** @type {number[]} */ splits) => splits.map((split) => write(split, false));
    const whole = (/** @type {any} */ _, /** @type {number[]} */ splits) => splits.map((split) => (Number.isInteger(split) ? split : ""));
    chart = new /** @type {any} */ (window).uPlot({
      width: place.clientWidth,
      height: HEIGHT,
      scales: {
        x: { range: () => [starts[0], starts[starts.length - 1]] },
        y: { range: (/** @type {any} */ _, /** @type {number} */ __, /** @type {number} */ most) => [0, Math.max(4, most * 1.1)] },
      },
      axes: [{ ...axis, grid: { show: false }, space: 64, values: times }, { ...axis, size: 44, values: whole }],
      series: [
        { label: "From", value: (/** @type {any} */ _, /** @type {number | null} */ seconds) => (seconds === null ? "–" : write(seconds, true)) },
        ...series.map(makeSeries),
      ],
      cursor: { drag: { x: false, y: false } },
      legend: { live: true },
    }, [starts, ...series.map((/** @type {any} */ one) => one.values)], place);
    observer = new ResizeObserver(() => chart?.setSize({ width: place.clientWidth, height: HEIGHT }));
    observer.observe(place);
  }

  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  document.addEventListener("htmx:after:swap", draw);
})();
