// Records the canvas as a WebM video.

const MIN_WIDTH = 512;

export class Recorder {
  static isSupported() {
    return typeof MediaRecorder !== "undefined" && MediaRecorder.isTypeSupported("video/webm");
  }

  constructor(canvas) {
    this.source = canvas;
    const zoom = Math.ceil(MIN_WIDTH / canvas.width);
    this.canvas = document.createElement("canvas");
    [this.canvas.width, this.canvas.height] = [canvas.width * zoom, canvas.height * zoom];
    this.context = this.canvas.getContext("2d");
  }

  get isRunning() {
    return this.recorder?.state === "recording";
  }

  start() {
    const parts = [];
    this.recorder = new MediaRecorder(this.canvas.captureStream(30), { mimeType: "video/webm" });
    this.recorder.ondataavailable = ({ data }) => parts.push(data);
    this.recorder.onstop = () => save(new Blob(parts, { type: "video/webm" }), "video.webm");
    this.recorder.start();
    this.add(false);
  }

  // Add the current frame.
  add(isSmooth) {
    this.context.imageSmoothingEnabled = isSmooth;
    this.context.drawImage(this.source, 0, 0, this.canvas.width, this.canvas.height);
  }

  stop() {
    this.recorder.stop();
  }
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
