// Everything that can be pressed, and the keys that do the same.
import { clamp, find, make, segment } from "./dom.js";
import { ZOOMS } from "./stage.js";
import { listenToPointers } from "./pointer.js";

const MODES = [["wipe", "Wipe"], ["side", "Side by side"], ["difference", "Difference"], ["flicker", "Flicker"]];
const GAINS = [1, 2, 4, 8, 16];
// Three flashes a second are the most that nobody is harmed by (WCAG 2.3.1).
const TEMPOS = [["0", "By hand"], ["1", "1"], ["2", "2"], ["3", "3"]];
const SPEEDS = [1, 0.5, 0.25];

export function control(data, player, stage) {
  const isClip = data.frames > 1;
  const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let tempo = isStill ? 0 : 2;
  let flipping = null;

  const letters = () => player.pair.map((index) => data.sides[index].badge);
  const setters = {};

  function setMode(mode) {
    setters.view(mode);
    stage.set({ mode });
    find("gain").hidden = mode !== "difference";
    find("tempo").hidden = mode !== "flicker";
    find("flip").hidden = mode === "difference" || mode === "side";
    find("wipe").hidden = mode !== "wipe";
    stage.element.classList.toggle("is-stacked", stage.isStacked);
    beat();
    label();
  }

  function beat() {
    clearInterval(flipping);
    if (stage.mode === "flicker" && tempo > 0) flipping = setInterval(flip, 1000 / tempo);
  }

  function flip() {
    stage.isFlipped = !stage.isFlipped;
    stage.refresh();
    label();
  }

  function label() {
    const [a, b] = letters();
    const named = (letter) => (data.sides.find((side) => side.badge === letter).note.includes("proxy") ? `${letter} · proxy` : letter);
    const [left, right] = (stage.isFlipped ? [b, a] : [a, b]).map(named);
    const texts = { wipe: [left, right], side: [named(a), named(b)], difference: [`|${a} − ${b}| × ${stage.gain}`, ""], flicker: [left, ""] }[stage.mode];
    ["chip-left", "chip-right"].forEach((id, index) => {
      find(id).textContent = texts[index];
      find(id).hidden = !texts[index];
    });
    const names = { wipe: "left and right of the wipe", side: "beside each other", difference: "their difference", flicker: "in turn" };
    find("canvas").setAttribute("aria-label", `${a} and ${b}, ${names[stage.mode]}${isClip ? `, frame ${player.frame + data.firstFrame}` : ""}`);
  }

  function setWipe(part) {
    stage.wipe = clamp(part, 0, 1);
    find("wipe").style.left = `${stage.wipe * 100}%`;
    find("wipe").setAttribute("aria-valuenow", Math.round(stage.wipe * 100));
    find("wipe").setAttribute("aria-valuetext", `${letters()[0]} on ${Math.round(stage.wipe * 100)} percent`);
    stage.refresh();
  }

  function zoomTo(zoom, anchor) {
    stage.zoomTo(zoom, anchor);
    stage.element.classList.toggle("is-zoomed", stage.zoom !== null);
    find("fit").setAttribute("aria-pressed", String(stage.zoom === null));
    find("pixels").setAttribute("aria-pressed", String(stage.zoom === 1));
  }
  const zoomIn = () => zoomTo(ZOOMS.find((zoom) => zoom > stage.scale * 1.01) ?? ZOOMS.at(-1), stage.loupe ?? stage.center);
  const zoomOut = () => zoomTo(ZOOMS.findLast((zoom) => zoom < stage.scale * 0.99) ?? ZOOMS[0], stage.loupe ?? stage.center);

  function setLoupe(point) {
    stage.loupe = point && point.map((value, axis) => clamp(value, 0, data.size[axis] - 1));
    stage.element.classList.toggle("is-loupe", point !== null);
    find("loupe").setAttribute("aria-pressed", String(point !== null));
    find("probe").hidden = point === null;
    stage.refresh();
  }
  const toggleLoupe = () => setLoupe(stage.loupe ? null : [...stage.center]);

  function probe() {
    if (!stage.loupe) return;
    const [x, y] = stage.loupe.map(Math.floor);
    const values = stage.values([x + 0.5, y + 0.5]);
    const parts = [`x ${x}  y ${y}`];
    letters().forEach((letter, index) => {
      const text = values ? values[index].map((value) => String(value).padStart(3, " ")).join(" ") : "not readable beside the page";
      parts.push(make("b", { className: `is-${letter.toLowerCase()}` }, `   ${letter} `), text);
    });
    find("probe").replaceChildren(...parts);
  }

  function setGain(gain) {
    setters.gain(String(gain));
    stage.set({ gain: Number(gain) });
    label();
  }
  function setTempo(value) {
    tempo = Number(value);
    beat();
  }
  function setScaling(scaling) {
    setters.scaling(scaling);
    stage.set({ scaling });
  }
  async function setPair(index) {
    setters.pair(String(index));
    await player.setPair(pairs[index]);
    setWipe(stage.wipe);
    label();
  }
  function setSpeed(speed) {
    player.speed = speed;
    find("speed").textContent = `Speed ${{ 1: "1×", 0.5: "½×", 0.25: "¼×" }[speed]}`;
    if (player.isPlaying) player.pause().then(() => player.play());
  }
  function setLoop(on) {
    player.isLooping = on;
    find("loop").setAttribute("aria-pressed", String(on));
  }
  const nextWorst = () => {
    const sorted = data.worst.map((one) => one.frame).sort((a, b) => a - b);
    const next = sorted.find((frame) => frame > player.frame) ?? sorted[0];
    if (next !== undefined) player.seek(next);
  };
  const step = (frames) => player.seek(player.frame + frames);
  const turn = (list, current) => list[(list.indexOf(current) + 1) % list.length];

  const pairs = data.sides.length > 2 ? [[0, 1], [0, 2], [1, 2]] : [[0, 1]];
  setters.view = segment("view", "View", MODES, "wipe", setMode);
  setters.pair = segment("pair", "Pair", pairs.map((pair, index) => [String(index), pair.map((side) => data.sides[side].badge).join(" | ")]), "0", setPair);
  setters.gain = segment("gain", "Gain", GAINS.map((gain) => [String(gain), `×${gain}`]), "4", setGain);
  segment("tempo", "Flips a second", TEMPOS, String(tempo), setTempo);
  setters.scaling = segment("scaling", "Enlarge", [["bicubic", "Bicubic"], ["nearest", "Nearest"]], "bicubic", setScaling);
  find("pair").hidden = pairs.length < 2;
  find("scaling").hidden = data.sides.every((side) => side.shown.join() === data.size.join());

  const press = (id, action) => find(id).addEventListener("click", action);
  press("zoom-in", zoomIn);
  press("zoom-out", zoomOut);
  press("fit", () => zoomTo(null));
  press("pixels", () => zoomTo(1, stage.loupe ?? stage.center));
  press("loupe", toggleLoupe);
  press("flip", flip);
  press("first", () => player.seek(0));
  press("back", () => step(-1));
  press("play", () => player.toggle());
  press("forth", () => step(1));
  press("last", () => player.seek(data.frames - 1));
  press("speed", () => setSpeed(turn(SPEEDS, player.speed)));
  press("loop", () => setLoop(!player.isLooping));
  press("help", () => find("keys").showModal());
  press("keys-close", () => find("keys").close());

  find("transport").hidden = !isClip;
  const scrub = find("scrub");
  scrub.max = data.frames - 1;
  scrub.addEventListener("input", () => player.seek(Number(scrub.value)));
  const number = find("number");
  number.addEventListener("change", () => {
    const wanted = Number.parseInt(number.value, 10);
    if (Number.isFinite(wanted)) player.seek(wanted - data.firstFrame);
    else number.value = player.frame + data.firstFrame;
  });
  for (const mark of [...data.marks, ...data.worst.map((one) => ({ kind: "worst", ...one }))]) {
    const tick = make("i", { className: mark.kind });
    tick.style.left = `${(mark.frame / Math.max(1, data.frames - 1)) * 100}%`;
    find("ticks").append(tick);
  }
  player.onChange(() => {
    const { frame } = player;
    scrub.value = frame;
    scrub.setAttribute("aria-valuetext", `frame ${frame + data.firstFrame}`);
    if (document.activeElement !== number || player.isPlaying) number.value = frame + data.firstFrame;
    const seconds = frame / (data.rate || 1);
    const minutes = String(Math.floor(seconds / 60)).padStart(2, "0");
    find("time").textContent = `${minutes}:${(seconds % 60).toFixed(3).padStart(6, "0")}`;
    find("play").setAttribute("aria-label", player.isPlaying ? "Pause" : "Play");
    find("play-icon").setAttribute("href", player.isPlaying ? "#i-pause" : "#i-play");
    label();
  });
  stage.onDraw(() => {
    find("zoom").value = `${Math.round(stage.scale * 100)} %`;
    stage.element.classList.toggle("is-stacked", stage.isStacked);
    for (const chip of stage.element.querySelectorAll(".chip")) {
      const [at, box] = [chip.getBoundingClientRect(), stage.element.getBoundingClientRect()];
      const lens = stage.loupeBox;
      const isApart = !lens || at.right - box.left < lens.left || at.left - box.left > lens.right || at.bottom - box.top < lens.top || at.top - box.top > lens.bottom;
      chip.classList.toggle("is-covered", !isApart);
    }
    probe();
  });
  number.addEventListener("keydown", (event) => event.key === "Enter" && number.blur());

  const wipe = find("wipe");
  wipe.addEventListener("keydown", (event) => {
    const step_ = { ArrowLeft: -0.01, ArrowDown: -0.01, ArrowRight: 0.01, ArrowUp: 0.01, PageUp: 0.1, PageDown: -0.1 }[event.key];
    const end = { Home: 0, End: 1 }[event.key];
    if (step_ === undefined && end === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    setWipe(end ?? stage.wipe + step_);
  });

  listenToPointers(stage, { wipe: setWipe, zoom: zoomTo, loupe: setLoupe });
  listenToKeys([
    ["← →", "one frame back, on", { ArrowLeft: () => step(-1), ArrowRight: () => step(1) }],
    ["Shift ← →", "ten frames", { "Shift+ArrowLeft": () => step(-10), "Shift+ArrowRight": () => step(10) }],
    ["Home End", "first, last frame", { Home: () => player.seek(0), End: () => player.seek(data.frames - 1) }],
    ["Space", "play, pause", { " ": () => player.toggle() }],
    ["E", "next of the worst frames", { e: nextWorst }],
    ["1 2 3 4", "wipe, side by side, difference, flicker", Object.fromEntries(MODES.map(([mode], index) => [String(index + 1), () => setMode(mode)]))],
    [", .", "move the wipe", { ",": () => setWipe(stage.wipe - 0.05), ".": () => setWipe(stage.wipe + 0.05) }],
    ["X", "flip the two", { x: flip }],
    ["G", "next gain of the difference", { g: () => setGain(turn(GAINS, stage.gain)) }],
    ["+ −", "zoom", { "+": zoomIn, "=": zoomIn, "-": zoomOut }],
    ["0 P", "all of the picture, its pixels", { 0: () => zoomTo(null), p: () => zoomTo(1, stage.loupe ?? stage.center) }],
    ["L", "loupe", { l: toggleLoupe }],
    ["W A S D", "move the picture, or the loupe by a pixel", Object.fromEntries([["w", 0, -1], ["a", -1, 0], ["s", 0, 1], ["d", 1, 0]].map(([key, x, y]) => [key, () => shift(x, y)]))],
    ["N", "enlarge by bicubic or nearest", { n: () => setScaling(stage.scaling === "nearest" ? "bicubic" : "nearest") }],
    ["V", "speed", { v: () => setSpeed(turn(SPEEDS, player.speed)) }],
    ["R", "loop", { r: () => setLoop(!player.isLooping) }],
    ["?", "these keys", { "?": () => find("keys").showModal() }],
  ]);

  function shift(x, y) {
    if (stage.loupe) setLoupe([stage.loupe[0] + x, stage.loupe[1] + y]);
    else if (stage.zoom !== null) stage.move(-60 * x, -60 * y);
  }

  setMode("wipe");
  setWipe(0.5);
}

function listenToKeys(rows) {
  const actions = Object.assign({}, ...rows.map((row) => row[2]));
  for (const [keys, text] of rows) {
    const shown = make("dt", {});
    for (const key of keys.split(" ")) shown.append(make("kbd", {}, key), " ");
    find("key-list").append(shown, make("dd", {}, text));
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || find("keys").open) return;
    const { target } = event;
    // What has a use for the key itself keeps it.
    const takesText = target.matches("input[type=text]");
    const takesArrows = target.matches("input[type=range], input[type=radio]") && /^(Arrow|Home|End|Page)/.test(event.key);
    const takesSpace = event.key === " " && target.matches("button, input");
    if (takesText || takesArrows || takesSpace) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const action = actions[event.shiftKey && key.length > 1 ? `Shift+${key}` : key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}
