// Opens a camera; a worker estimates the pose of the person in front of it.

import { NetworkWorker } from "network";

const WANTED = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 } };
const TARGET_WAIT = 4; // milliseconds between finding a pose and rendering it
const MAX_WAIT = 50; // milliseconds; more is a stall of the page
const GAIN = 0.2; // of the integral controller that keeps this wait
const NETWORKS = { "pose-detector": "detector", "pose-landmarks": "landmarks" };
const REASONS = {
  NotAllowedError: "Camera access was denied. Allow it in the address bar, then press Start camera again.",
  NotFoundError: "No camera was found.",
  NotReadableError: "The camera cannot be read. Another program may be using it.",
  OverconstrainedError: "This camera is no longer connected. Choose another one.",
};

// An error whose message is shown to the user as it is.
export class CameraError extends Error {}

export class Camera {
  // video: element. onPose(pose, size, time): pose: from BlazePose.find, or null; size: {width, height} of
  // the image; time: when it arrived (performance.now()). Resolves when the next pose may be estimated.
  // onEnd(error): the camera is gone; error is undefined if it was unplugged.
  constructor(video, onPose, onEnd) {
    Object.assign(this, { video, onPose, onEnd, stream: null });
  }

  // Cameras by label; labels are known once one has been opened.
  static async list() {
    const devices = await navigator.mediaDevices.enumerateDevices();
    return devices.filter(({ kind }) => kind === "videoinput");
  }

  // Track the largest person in the next image.
  forgetPerson() {
    this.isNew = true;
  }

  get isOpen() {
    return this.stream !== null;
  }

  get deviceId() {
    return this.stream.getVideoTracks()[0].getSettings().deviceId;
  }

  // Open a camera; by default the one that faces the user. Throws a CameraError.
  async open(deviceId) {
    const which = deviceId ? { deviceId: { exact: deviceId } } : { facingMode: "user" };
    if (!navigator.mediaDevices) throw new CameraError("This browser blocks the camera for local files.");
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video: { ...WANTED, ...which } });
    } catch (error) {
      throw new CameraError(REASONS[error.name] ?? `The camera cannot be opened (${error.message}).`);
    }
    this.video.srcObject = this.stream;
    await this.video.play();
  }

  // Find poses until the camera is closed.
  async follow() {
    const { stream, video } = this;
    stream.getVideoTracks()[0].onended = () => this.#end();
    try {
      const worker = await this.#startWorker();
      this.#watch(stream);
      let pause = 0;
      while (this.stream === stream) {
        if (pause > 1) await new Promise((resolve) => setTimeout(resolve, pause));
        if (this.stream !== stream) return;
        const time = await this.#nextImage();
        const image = new VideoFrame(video);
        const size = { width: image.displayWidth, height: image.displayHeight };
        const message = { image, seconds: time / 1000, isNew: this.isNew };
        this.isNew = false;
        const pose = await worker.ask(message, [image]);
        if (this.stream !== stream) return;
        const found = performance.now();
        await this.onPose(pose, size, time);
        // A waiting pose becomes stale: delay the next image accordingly.
        const wait = Math.min(MAX_WAIT, performance.now() - found);
        pause = Math.max(0, pause + GAIN * (wait - TARGET_WAIT));
      }
    } catch (error) {
      if (this.stream === stream) this.#end(error);
    }
  }

  #startWorker() {
    this.worker ??= NetworkWorker.start("blazepose", NETWORKS).catch((error) => {
      this.worker = null; // to be tried again
      throw error;
    });
    return this.worker;
  }

  // Remember when the newest image arrived.
  #watch(stream) {
    this.newest = null;
    const arrived = (time) => {
      if (this.stream !== stream) return;
      this.newest = time;
      this.wake?.();
      this.video.requestVideoFrameCallback(arrived);
    };
    this.video.requestVideoFrameCallback(arrived);
  }

  async #nextImage() {
    if (!this.newest) await new Promise((resolve) => (this.wake = resolve));
    const newest = this.newest;
    this.newest = null;
    return newest;
  }

  #end(error) {
    this.close();
    this.onEnd(error);
  }

  // Release the camera.
  close() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = null;
    this.video.srcObject = null;
  }
}
