// Records the canvas as a WebM video or a GIF, and the controls for it.

import { GIFEncoder, applyPalette, quantize } from "gifenc";

const MIN_WIDTH = { webm: 512, gif: 256 }; // smaller images are enlarged
const MAX_GIF_FRAMES = 600;
const MAX_COLORS = 256;
const MIN_DELAY = 2; // of a GIF frame, in hundredths of a second: browsers show shorter ones slowly
const COUNTDOWN_SECONDS = 3;
const FRAMES_PER_PAUSE = 10; // encoded before the page may react

const find = (id) => document.getElementById(id);

class Recorder {
  static formats() {
    const hasWebm = typeof MediaRecorder !== "undefined" && MediaRecorder.isTypeSupported("video/webm");
    return hasWebm ? ["webm", "gif"] : ["gif"];
  }

  // canvas: element with the current frame.
  constructor(canvas) {
    this.source = canvas;
    this.canvas = document.createElement("canvas");
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.format = null;
  }

  get isRunning() {
    return this.format !== null;
  }

  // format: "webm" or "gif".
  start(format, isSmooth) {
    const zoom = Math.ceil(MIN_WIDTH[format] / this.source.width);
    [this.canvas.width, this.canvas.height] = [this.source.width * zoom, this.source.height * zoom];
    this.parts = [];
    this.frames = [];
    if (format === "webm") {
      this.recorder = new MediaRecorder(this.canvas.captureStream(30), { mimeType: "video/webm" });
      this.recorder.ondataavailable = ({ data }) => this.parts.push(data);
      this.recorder.start();
    }
    this.format = format;
    this.add(isSmooth);
  }

  // Add the current frame.
  add(isSmooth) {
    if (this.format === "webm") this.#draw(isSmooth, this.source);
    else this.frames.push({ image: createImageBitmap(this.source), isSmooth, time: performance.now() });
  }

  get isFull() {
    return this.frames.length >= MAX_GIF_FRAMES;
  }

  // Save the recording.
  async stop() {
    const format = this.format;
    this.format = null;
    save(format === "gif" ? await this.#gif(performance.now()) : await this.#webm(), `dance.${format}`);
  }

  #draw(isSmooth, image) {
    this.context.imageSmoothingEnabled = isSmooth;
    this.context.drawImage(image, 0, 0, this.canvas.width, this.canvas.height);
  }

  async #webm() {
    await new Promise((resolve) => {
      this.recorder.onstop = resolve;
      this.recorder.stop();
    });
    this.recorder.stream.getTracks().forEach((track) => track.stop());
    return new Blob(this.parts, { type: "video/webm" });
  }

  async #gif(end) {
    const { width, height } = this.canvas;
    const encoder = GIFEncoder();
    const start = this.frames[0].time;
    let shown = 0; // hundredths of a second so far
    for (const [index, { image, isSmooth }] of this.frames.entries()) {
      const until = Math.round(((this.frames[index + 1]?.time ?? end) - start) / 10);
      if (until - shown < MIN_DELAY) continue;
      this.#draw(isSmooth, await image);
      const { data } = this.context.getImageData(0, 0, width, height);
      const palette = quantize(data, MAX_COLORS);
      encoder.writeFrame(applyPalette(data, palette), width, height, { palette, delay: 10 * (until - shown) });
      shown = until;
      if (index % FRAMES_PER_PAUSE === 0) await new Promise((resolve) => setTimeout(resolve));
    }
    encoder.finish();
    return new Blob([encoder.bytes()], { type: "image/gif" });
  }
}

export class RecordControls {
  // canvas: element with the current frame.
  constructor(canvas) {
    this.recorder = new Recorder(canvas);
    this.needsCountdown = () => false;
    this.countdown = null; // the one that runs
    for (const format of Recorder.formats()) find("format").add(new Option(format.toUpperCase(), format));
    find("record").addEventListener("click", () => this.#click());
  }

  // Add the current frame, if a recording runs.
  add() {
    if (!this.recorder.isRunning) return;
    this.recorder.add(find("smooth").checked);
    if (this.recorder.isFull) this.#save();
  }

  async #click() {
    if (this.recorder.isRunning) return this.#save();
    if (this.countdown) return this.#stopCountdown();
    if (this.needsCountdown() && !(await this.#countDown())) return;
    this.recorder.start(find("format").value, find("smooth").checked);
    find("record").textContent = "Stop and save";
  }

  async #save() {
    find("record").disabled = true;
    find("record").textContent = "Saving …";
    try {
      await this.recorder.stop();
    } finally {
      find("record").textContent = "Record";
      find("record").disabled = false;
    }
  }

  // Show the seconds until a recording starts; false if it is cancelled.
  async #countDown() {
    const countdown = {};
    this.countdown = countdown;
    find("record").textContent = "Cancel";
    find("countdown").hidden = false;
    for (let seconds = COUNTDOWN_SECONDS; seconds > 0 && this.countdown === countdown; seconds--) {
      find("countdown").textContent = seconds;
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
    const isDone = this.countdown === countdown;
    if (isDone) this.#stopCountdown();
    return isDone;
  }

  #stopCountdown() {
    this.countdown = null;
    find("record").textContent = "Record";
    find("countdown").hidden = true;
  }
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
