// The frames of one side, each a canvas with its number. A video shows what it was asked for, or it is asked again.

const KEPT = 6;
const PATIENCE_MS = 400;

function canvasOf([width, height]) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

class StillTrack {
  constructor(side, address) {
    this.side = side;
    this.canvas = canvasOf(side.shown);
    this.image = new Image();
    this.image.src = address;
    this.latest = 0;
  }

  async open() {
    await this.image.decode();
    this.canvas.getContext("2d").drawImage(this.image, 0, 0);
  }

  show() {
    return Promise.resolve();
  }

  picture() {
    return this.canvas;
  }
}

class VideoTrack {
  constructor(side, address) {
    this.side = side;
    this.video = document.createElement("video");
    Object.assign(this.video, { muted: true, playsInline: true, preload: "auto", src: address });
    this.kept = Array.from({ length: KEPT }, () => ({ frame: -1, canvas: null }));
    this.offset = 0;
    this.latest = -1;
    this.wanted = -1;
    this.isPlaying = false;
    this.busy = null;
    this.onFrame = () => {};
    this.onEnd = () => {};
    // The last frame is sometimes left out.
    this.video.addEventListener("ended", () => this.onEnd());
  }

  async open() {
    const { video } = this;
    await new Promise((done, failed) => {
      video.addEventListener("loadeddata", done, { once: true });
      video.addEventListener("error", () => failed(new Error(video.error?.message || "it cannot be decoded")), { once: true });
      video.load();
    });
    // Some files begin later than at 0; what is on the screen now is their first frame.
    const first = await this.presented(() => {
      video.currentTime = 0;
    });
    this.offset = first ?? 0;
    this.keep(0);
  }

  // The time of the frame that is on the screen after `act`; null where the browser does not say.
  async presented(act) {
    const { video } = this;
    const seeked = new Promise((done) => video.addEventListener("seeked", done, { once: true }));
    let told = Promise.resolve(null);
    if (video.requestVideoFrameCallback) {
      told = new Promise((done) => video.requestVideoFrameCallback((_, facts) => done(facts.mediaTime)));
    }
    act();
    await seeked;
    return Promise.race([told, new Promise((done) => setTimeout(() => done(null), PATIENCE_MS))]);
  }

  frameAt(seconds) {
    return Math.round((seconds - this.offset) * this.side.rate);
  }

  keep(frame) {
    const slot = this.kept[((frame % KEPT) + KEPT) % KEPT];
    slot.canvas ??= canvasOf(this.side.shown);
    const [width, height] = this.side.shown;
    slot.canvas.getContext("2d", { alpha: false }).drawImage(this.video, 0, 0, width, height, 0, 0, width, height);
    slot.frame = frame;
    this.latest = frame;
  }

  picture(frame) {
    const slot = this.kept[((frame % KEPT) + KEPT) % KEPT];
    return slot.frame === frame ? slot.canvas : null;
  }

  // Asked for again while it works, it goes on to the newest wish when it is done.
  show(frame) {
    this.wanted = frame;
    this.busy ??= this.work().finally(() => {
      this.busy = null;
    });
    return this.busy;
  }

  async work() {
    while (this.picture(this.wanted) === null) {
      const frame = this.wanted;
      for (let tries = 0; tries < 3; tries++) {
        // The middle of a frame's time: at its borders rounding decides.
        const seconds = await this.presented(() => {
          this.video.currentTime = this.offset + (frame + 0.5 + tries * 0.1) / this.side.rate;
        });
        const found = seconds === null ? frame : this.frameAt(seconds);
        if (found === frame || tries === 2) {
          this.keep(frame);
          break;
        }
      }
    }
  }

  get hasEnded() {
    return this.video.ended;
  }

  async start(speed, frameRate, frame) {
    const { video } = this;
    video.playbackRate = (speed * frameRate) / this.side.rate;
    if (this.frameAt(video.currentTime - 0.5 / this.side.rate) !== frame) {
      await this.presented(() => {
        video.currentTime = this.offset + (frame + 0.5) / this.side.rate;
      });
    }
    this.latest = frame;
    this.isPlaying = true;
    this.listen();
    await this.run();
  }

  // A pause that comes before it has begun is no fault.
  run() {
    return this.video.play().catch(() => {});
  }

  listen() {
    const take = (seconds) => {
      if (!this.isPlaying) return;
      const frame = this.frameAt(seconds);
      if (frame !== this.latest) {
        this.keep(frame);
        this.onFrame();
      }
      this.listen();
    };
    if (this.video.requestVideoFrameCallback) {
      this.video.requestVideoFrameCallback((_, facts) => take(facts.mediaTime));
    } else {
      requestAnimationFrame(() => take(this.video.currentTime - 0.5 / this.side.rate));
    }
  }

  hold() {
    this.video.pause();
  }

  resume() {
    if (this.isPlaying && this.video.paused && !this.video.ended) this.run();
  }

  stop() {
    this.isPlaying = false;
    this.video.pause();
  }
}

export const trackOf = (side, address) =>
  side.kind === "image" ? new StillTrack(side, address) : new VideoTrack(side, address);
