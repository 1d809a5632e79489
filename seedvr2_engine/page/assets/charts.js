// Curves over the frames, drawn by uPlot; a click or an arrow key goes to the frame.
import { cssColor, find, make } from "./dom.js";

const DASH = { A: [7, 4], B: [], R: [2, 3] };
const HEIGHT_PX = 128;

const formatted = (value, unit) => {
  if (value === null || value === undefined) return "–";
  if (value === Infinity) return "equal";
  return `${value.toPrecision(4)}${unit === "dB" ? " dB" : ""}`;
};

export function readout(curve, frame) {
  return curve.series.map((series) => `${series.badge} ${formatted(series.values[frame], curve.unit)}`).join(", ");
}

function marksOn(plot, data) {
  const { ctx, bbox } = plot;
  ctx.save();
  for (const mark of data.marks) {
    const x = Math.round(plot.valToPos(mark.frame + data.firstFrame, "x", true)) + 0.5;
    ctx.strokeStyle = cssColor(mark.kind === "shot" ? "--ink" : "--edge-strong");
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash({ border: [3, 4], unit: [1, 3], shot: [] }[mark.kind].map((part) => part * devicePixelRatio));
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
  }
  ctx.restore();
}

function options(curve, data, width) {
  const axis = (extra) => ({
    stroke: () => cssColor("--soft"),
    font: "12px system-ui, sans-serif",
    grid: { stroke: () => cssColor("--grid"), width: 1 },
    ticks: { show: false },
    ...extra,
  });
  return {
    width,
    height: HEIGHT_PX,
    padding: [6, 8, 0, 0],
    legend: { show: false },
    cursor: { sync: { key: "frames" }, y: false, drag: { x: false, y: false }, points: { size: 6 } },
    scales: { x: { time: false } },
    axes: [axis({ size: 26, space: 60, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 50000] }), axis({ size: 54, space: 24 })],
    series: [
      {},
      ...curve.series.map((series) => ({
        stroke: () => cssColor(`--${series.badge.toLowerCase()}`),
        width: 1.75,
        dash: DASH[series.badge],
        points: { show: data.frames < 40, size: 4, fill: () => cssColor("--panel") },
      })),
    ],
    hooks: { draw: [(plot) => marksOn(plot, data)] },
  };
}

function chart(curve, data, player) {
  const values = curve.series.map((series) => {
    const value = make("b", {}, "–");
    const wrap = make("span", { className: `is-${series.badge.toLowerCase()}` }, series.badge, value);
    return { series, value, wrap };
  });
  const better = { higher: "Higher is closer.", lower: "Lower is closer.", neither: "" }[curve.better];
  const about = make("small", {}, `${curve.about} ${better}`.trim());
  const head = make("header", {}, make("h3", {}, `${curve.label}${curve.unit ? `, ${curve.unit}` : ""}`), about);
  head.append(make("div", { className: "values" }, ...values.map((one) => one.wrap)));
  const holder = make("div", {
    className: "plot",
    tabIndex: 0,
    role: "slider",
    "aria-label": `${curve.label} by frame`,
    "aria-valuemin": data.firstFrame,
    "aria-valuemax": data.firstFrame + data.frames - 1,
    "aria-valuenow": data.firstFrame,
  });
  const card = make("article", { className: "chart" }, head, holder);
  find("charts").append(card);

  const finite = (list) => list.map((value) => (Number.isFinite(value) ? value : null));
  const frames = Array.from({ length: data.frames }, (_, index) => index + data.firstFrame);
  const series = curve.series.map((one) => finite(one.values));
  const lineHead = make("div", { className: "head" });
  let plot = null;
  if (series.some((one) => one.some((value) => value !== null))) {
    plot = new uPlot(options(curve, data, holder.clientWidth), [frames, ...series], holder);
    plot.over.append(lineHead);
    plot.over.addEventListener("click", (event) => {
      const box = plot.over.getBoundingClientRect();
      player.seek(plot.posToIdx(event.clientX - box.left));
    });
    new ResizeObserver(() => plot.setSize({ width: holder.clientWidth, height: HEIGHT_PX })).observe(holder);
  } else {
    holder.append(make("p", { className: "note" }, "All frames are equal."));
  }
  holder.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageUp: 10, PageDown: -10 }[event.key];
    const end = { Home: 0, End: data.frames - 1 }[event.key];
    if (step === undefined && end === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    player.seek(end ?? player.frame + step);
  });
  const tell = () => {
    if (plot) lineHead.style.left = `${plot.valToPos(player.frame + data.firstFrame, "x")}px`;
    for (const one of values) one.value.textContent = formatted(one.series.values[player.frame], curve.unit);
    holder.setAttribute("aria-valuenow", player.frame + data.firstFrame);
    holder.setAttribute("aria-valuetext", `frame ${player.frame + data.firstFrame}: ${readout(curve, player.frame)}`);
  };
  return { tell, redraw: () => plot?.redraw(false) };
}

export function showCharts(data, player) {
  const charts = data.curves.map((curve) => chart(curve, data, player));
  const kinds = new Set(data.marks.map((mark) => mark.kind));
  if (kinds.size && charts.length) {
    const names = { border: "Dashed uprights: chunk borders", shot: "Solid uprights: shots", unit: "Dotted uprights: units" };
    find("charts").append(make("p", { className: "key" }, ...[...kinds].map((kind) => make("span", {}, names[kind]))));
  }
  const tell = () => charts.forEach((one) => one.tell());
  player.onChange(tell);
  // Widths change without the frame changing.
  new ResizeObserver(() => requestAnimationFrame(tell)).observe(find("charts"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((one) => one.redraw()));
}
