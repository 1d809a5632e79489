// The pictures on the screen: which part of them, how large, and one over, beside or against the other.
import { clamp, find } from "./dom.js";
import { bicubic } from "./enlarge.js";

export const ZOOMS = [0.125, 0.25, 0.5, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32];
const LOUPE_TIMES = 8;
const SETTLED_MS = 140;

export class Stage {
  constructor(data, player) {
    this.data = data;
    this.player = player;
    this.element = find("stage");
    this.canvas = find("canvas");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.probing = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", {
      willReadFrequently: true,
    });
    this.mode = "wipe";
    this.wipe = 0.5;
    this.gain = 4;
    this.scaling = "bicubic";
    this.isFlipped = false;
    this.zoom = null; // Device pixels for a pixel of the picture; null: as large as fits.
    this.center = data.size.map((edge) => edge / 2);
    this.loupe = null; // The pixel under it.
    this.scratch = new Map();
    this.exact = new Map(); // Badge -> what was enlarged exactly: { frame, canvas }.
    this.listeners = [];
    this.isTainted = false;
    player.onChange(() => this.refresh());
    new ResizeObserver(() => this.resize()).observe(this.element);
    window.addEventListener("resize", () => this.resize());
  }

  onDraw(listener) {
    this.listeners.push(listener);
  }

  set(changes) {
    Object.assign(this, changes);
    if ("mode" in changes) this.isFlipped = false;
    this.resize();
  }

  get isStacked() {
    if (this.mode !== "side") return false;
    const [width, height] = this.data.size;
    const room = this.element.clientWidth;
    return Math.min(room / width, this.heightLimit / 2 / height) > Math.min(room / 2 / width, this.heightLimit / height);
  }

  get heightLimit() {
    return Math.max(240, window.innerHeight * (window.innerWidth < 700 ? 0.72 : 0.62));
  }

  resize() {
    const [width, height] = this.data.size;
    const room = this.element.clientWidth;
    if (!room) return;
    const wanted = ((room * height) / width) * (this.isStacked ? 2 : 1);
    this.element.style.height = `${Math.round(clamp(wanted, 220, this.heightLimit))}px`;
    const ratio = window.devicePixelRatio || 1;
    const size = [Math.round(room * ratio), Math.round(this.element.clientHeight * ratio)];
    if (this.canvas.width !== size[0] || this.canvas.height !== size[1]) {
      [this.canvas.width, this.canvas.height] = size;
    }
    this.refresh();
  }

  // Rectangles in device pixels, and which of the pair each shows.
  get panes() {
    const { width, height } = this.canvas;
    if (this.mode !== "side") return [{ left: 0, top: 0, width, height, side: null }];
    const gap = 2;
    if (this.isStacked) {
      const half = (height - gap) / 2;
      return [0, 1].map((side) => ({ left: 0, top: side * (half + gap), width, height: half, side }));
    }
    const half = (width - gap) / 2;
    return [0, 1].map((side) => ({ left: side * (half + gap), top: 0, width: half, height, side }));
  }

  get scale() {
    const [pane] = this.panes;
    const [width, height] = this.data.size;
    return this.zoom ?? Math.min(pane.width / width, pane.height / height);
  }

  // Where the picture's corner lies in a pane, on whole device pixels.
  corner(pane) {
    const scale = this.scale;
    return this.data.size.map((edge, axis) => {
      const [from, room] = axis ? [pane.top, pane.height] : [pane.left, pane.width];
      const half = room / 2 / scale;
      if (edge * scale <= room) this.center[axis] = edge / 2;
      else this.center[axis] = clamp(this.center[axis], half, edge - half);
      return Math.round(from + room / 2 - this.center[axis] * scale);
    });
  }

  // A point of the page as a point of the picture.
  at(clientX, clientY) {
    const box = this.canvas.getBoundingClientRect();
    const ratio = this.canvas.width / box.width;
    const [x, y] = [(clientX - box.left) * ratio, (clientY - box.top) * ratio];
    const pane = this.panes.find((one) => x < one.left + one.width && y < one.top + one.height) ?? this.panes.at(-1);
    const corner = this.corner(pane);
    return [(x - corner[0]) / this.scale, (y - corner[1]) / this.scale];
  }

  zoomTo(zoom, anchor = null) {
    const before = this.scale;
    this.zoom = zoom === null ? null : clamp(zoom, ZOOMS[0], ZOOMS.at(-1));
    if (anchor && zoom !== null) {
      const times = before / this.zoom;
      this.center = this.center.map((middle, axis) => anchor[axis] + (middle - anchor[axis]) * times);
    }
    this.resize();
  }

  move(dx, dy) {
    const ratio = this.canvas.width / this.canvas.clientWidth;
    this.center = [this.center[0] - (dx * ratio) / this.scale, this.center[1] - (dy * ratio) / this.scale];
    this.refresh();
  }

  refresh() {
    this.pending ??= requestAnimationFrame(() => {
      this.pending = null;
      this.draw();
    });
  }

  canvasOf(name) {
    if (!this.scratch.has(name)) {
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = this.data.size;
      this.scratch.set(name, canvas);
    }
    return this.scratch.get(name);
  }

  // One of the pair, in its own pixels, or enlarged to the picture's size where that is asked for.
  picture(index) {
    const picture = this.player.pictures()[index];
    const [width, height] = this.data.size;
    if (!picture || (picture.width === width && picture.height === height) || this.scaling === "nearest") return picture;
    const { badge } = this.data.sides[this.player.pair[index]];
    const known = this.exact.get(badge);
    if (known?.frame === this.player.frame) return known.canvas;
    this.settle();
    const target = this.canvasOf(`smooth ${badge}`);
    const context = target.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, 0, 0, width, height);
    return target;
  }

  // The browser's own interpolation is shown at once; the exact one takes its place when the frame stays.
  settle() {
    clearTimeout(this.settling);
    if (this.isTainted) return;
    this.settling = setTimeout(() => {
      if (this.player.isPlaying) return;
      for (const [index, picture] of this.player.pictures().entries()) this.enlarge(index, picture);
      this.draw();
    }, SETTLED_MS);
  }

  enlarge(index, picture) {
    const size = this.data.size;
    if (!picture || (picture.width === size[0] && picture.height === size[1])) return;
    const { badge } = this.data.sides[this.player.pair[index]];
    const own = [picture.width, picture.height];
    try {
      const pixels = picture.getContext("2d").getImageData(0, 0, ...own).data;
      const canvas = this.canvasOf(`exact ${badge}`);
      canvas.getContext("2d").putImageData(new ImageData(bicubic(pixels, own, size), ...size), 0, 0);
      this.exact.set(badge, { frame: this.player.frame, canvas });
    } catch {
      this.isTainted = true; // Files beside the page may be looked at, but not read.
    }
  }

  difference() {
    const [width, height] = this.data.size;
    const canvas = this.canvasOf("difference");
    const context = canvas.getContext("2d", { alpha: false });
    context.imageSmoothingEnabled = false;
    context.globalCompositeOperation = "copy";
    context.drawImage(this.picture(0), 0, 0, width, height);
    context.globalCompositeOperation = "difference";
    context.drawImage(this.picture(1), 0, 0, width, height);
    context.globalCompositeOperation = "lighter";
    for (let gain = 1; gain < this.gain; gain *= 2) context.drawImage(canvas, 0, 0);
    context.globalCompositeOperation = "source-over";
    return canvas;
  }

  place(picture, pane, { left = pane.left, width = pane.width } = {}) {
    if (!picture) return;
    const { context, scale } = this;
    const corner = this.corner(pane);
    context.save();
    context.beginPath();
    context.rect(left, pane.top, width, pane.height);
    context.clip();
    context.imageSmoothingEnabled = scale * (this.data.size[0] / picture.width) < 1;
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, ...corner, this.data.size[0] * scale, this.data.size[1] * scale);
    context.restore();
  }

  draw() {
    const { context, canvas, mode } = this;
    context.fillStyle = "#0c0d0f";
    context.fillRect(0, 0, canvas.width, canvas.height);
    if (this.player.pictures().some((picture) => !picture)) return;
    const [pane] = this.panes;
    if (mode === "side") {
      for (const one of this.panes) this.place(this.picture(one.side), one);
    } else if (mode === "difference") {
      this.place(this.difference(), pane);
    } else if (mode === "flicker") {
      this.place(this.picture(this.isFlipped ? 1 : 0), pane);
    } else {
      const edge = Math.round(this.wipe * pane.width);
      const [left, right] = this.isFlipped ? [1, 0] : [0, 1];
      this.place(this.picture(right), pane, { left: edge, width: pane.width - edge });
      this.place(this.picture(left), pane, { left: 0, width: edge });
      const line = Math.max(2, Math.round(2 * (window.devicePixelRatio || 1)));
      context.fillStyle = "#000a";
      context.fillRect(edge - line, 0, 2 * line, canvas.height);
      context.fillStyle = "#fff";
      context.fillRect(edge - line / 2, 0, line, canvas.height);
    }
    this.loupeBox = this.loupe ? this.drawLoupe() : null;
    for (const listener of this.listeners) listener(this);
  }

  // Both pictures around one pixel, side by side, beside the place they are of.
  drawLoupe() {
    const { context, canvas } = this;
    const ratio = window.devicePixelRatio || 1;
    const times = Math.max(LOUPE_TIMES * ratio, this.scale * 2);
    const edge = Math.round(Math.min(150 * ratio, canvas.width * 0.32, canvas.height * 0.42));
    const point = this.loupe.map((value, axis) => clamp(Math.floor(value), 0, this.data.size[axis] - 1));
    const corner = this.corner(this.panes[0]);
    const here = point.map((value, axis) => corner[axis] + (value + 0.5) * this.scale);
    const gap = Math.round(22 * ratio);
    const left = here[0] + gap + 2 * edge < canvas.width ? here[0] + gap : here[0] - gap - 2 * edge;
    const top = here[1] + gap + edge < canvas.height ? here[1] + gap : here[1] - gap - edge;
    const place = [clamp(left, 4, canvas.width - 2 * edge - 4), clamp(top, 4, canvas.height - edge - 4)].map(Math.round);
    for (const side of [0, 1]) {
      const x = place[0] + side * edge;
      const picture = this.picture(side);
      context.save();
      context.beginPath();
      context.rect(x, place[1], edge, edge);
      context.clip();
      context.fillStyle = "#0c0d0f";
      context.fillRect(x, place[1], edge, edge);
      context.imageSmoothingEnabled = false;
      const from = point.map((value, axis) => [x, place[1]][axis] + edge / 2 - (value + 0.5) * times);
      context.drawImage(picture, ...from, this.data.size[0] * times, this.data.size[1] * times);
      context.restore();
      context.lineWidth = Math.max(1, ratio);
      for (const [color, grow] of [["#000", 1], ["#fff", 0]]) {
        context.strokeStyle = color;
        const half = times / 2 + grow * ratio;
        context.strokeRect(x + edge / 2 - half, place[1] + edge / 2 - half, 2 * half, 2 * half);
        context.strokeRect(x + 0.5 - grow, place[1] + 0.5 - grow, edge - 1 + 2 * grow, edge - 1 + 2 * grow);
      }
      context.font = `600 ${12 * ratio}px system-ui, sans-serif`;
      const { badge } = this.data.sides[this.player.pair[side]];
      context.lineWidth = 3 * ratio;
      context.strokeStyle = "#000";
      context.strokeText(badge, x + 7 * ratio, place[1] + 17 * ratio);
      context.fillStyle = "#fff";
      context.fillText(badge, x + 7 * ratio, place[1] + 17 * ratio);
    }
    return { left: place[0] / ratio, top: place[1] / ratio, right: (place[0] + 2 * edge) / ratio, bottom: (place[1] + edge) / ratio };
  }

  // The values of a pixel of the picture in both, 0 to 255; null where files beside the page may not be read.
  values([x, y]) {
    const [width, height] = this.data.size;
    try {
      return [0, 1].map((index) => {
        const picture = this.picture(index);
        const at = [Math.floor((x / width) * picture.width), Math.floor((y / height) * picture.height)];
        this.probing.drawImage(picture, ...at, 1, 1, 0, 0, 1, 1);
        return [...this.probing.getImageData(0, 0, 1, 1).data.slice(0, 3)];
      });
    } catch {
      this.isTainted = true;
      return null;
    }
  }
}
