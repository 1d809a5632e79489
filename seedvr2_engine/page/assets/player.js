// One clock for all tracks: a frame counts as shown when each track of the pair has it.
import { clamp } from "./dom.js";

const MOST_LEAD = 3;
const STALLED_FRAMES = 8;

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

export class Player {
  constructor(data, tracks) {
    this.data = data;
    this.tracks = tracks;
    this.pair = [0, 1];
    this.frame = 0;
    this.isPlaying = false;
    this.isLooping = true;
    this.speed = 1;
    this.listeners = [];
    this.asked = 0;
    for (const track of tracks) {
      track.onFrame = () => this.advance();
      track.onEnd = () => this.isPlaying && this.chosen.every((one) => one.hasEnded) && this.end();
    }
  }

  onChange(listener) {
    this.listeners.push(listener);
  }

  tell() {
    for (const listener of this.listeners) listener(this);
  }

  get chosen() {
    return this.pair.map((index) => this.tracks[index]);
  }

  pictures() {
    return this.chosen.map((track) => track.picture(this.frame));
  }

  async seek(frame) {
    if (this.isPlaying) this.halt();
    const wanted = clamp(Math.round(frame), 0, this.data.frames - 1);
    const asked = ++this.asked;
    await Promise.all(this.chosen.map((track) => track.show(wanted)));
    if (asked !== this.asked) return;
    this.frame = wanted;
    this.tell();
  }

  async setPair(pair) {
    this.pair = pair;
    await this.seek(this.frame);
  }

  async play() {
    if (this.isPlaying || this.data.frames < 2) return;
    if (this.frame >= this.data.frames - 1) await this.seek(0);
    this.isPlaying = true;
    this.tell();
    const { speed, frame } = this;
    await Promise.all(this.chosen.map((track) => track.start(speed, this.data.rate, frame)));
  }

  halt() {
    this.isPlaying = false;
    for (const track of this.tracks) track.stop?.();
  }

  // What is on the screen when it stops may be a frame or two behind what was decoded: it is asked for again.
  async pause() {
    if (!this.isPlaying) return;
    this.halt();
    await this.seek(this.frame);
  }

  toggle() {
    return this.isPlaying ? this.pause() : this.play();
  }

  advance() {
    if (!this.isPlaying) return;
    const chosen = this.chosen;
    const latest = chosen.map((track) => track.latest);
    const least = Math.min(...latest);
    for (const [index, track] of chosen.entries()) {
      if (latest[index] - least >= MOST_LEAD) track.hold();
      else if (latest[index] === least) track.resume();
    }
    for (let frame = least; frame > this.frame; frame--) {
      if (chosen.every((track) => track.picture(frame) !== null)) {
        this.frame = frame;
        this.tell();
        break;
      }
    }
    if (least >= this.data.frames - 1) this.end();
    else if (least - this.frame >= STALLED_FRAMES) this.stepOn();
  }

  // On a machine that cannot keep up, the videos leave out different frames, and hardly any is there in both. Then the
  // clock says which frame is next, and both are asked for it.
  async stepOn() {
    for (const track of this.chosen) track.stop();
    const { frame: first, speed } = this;
    const perFrame = 1000 / (this.data.rate * speed);
    const began = performance.now();
    const asked = ++this.asked;
    while (this.isPlaying && asked === this.asked) {
      const due = first + Math.floor((performance.now() - began) / perFrame);
      const next = Math.min(Math.max(this.frame + 1, due), this.data.frames - 1);
      await Promise.all(this.chosen.map((track) => track.show(next)));
      if (!this.isPlaying || asked !== this.asked) return;
      this.frame = next;
      this.tell();
      if (next === this.data.frames - 1) {
        await pause(perFrame);
        if (this.isPlaying && asked === this.asked) await this.end();
        return;
      }
      await pause(Math.max(0, began + (next + 1 - first) * perFrame - performance.now()));
    }
  }

  async end() {
    this.halt();
    if (!this.isLooping) {
      await this.seek(this.data.frames - 1);
      return;
    }
    await this.seek(0);
    await this.play();
  }
}
