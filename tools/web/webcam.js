// The camera drives the person: calibration, poses, and status messages.

import { Camera, CameraError } from "camera";
import { LivePose } from "live_pose";
import { NoSharedBone, Retargeting } from "retarget";
import { cssColor } from "stage";

// Seconds of calibration with the feet visible (total), and without them (consecutive).
const WHOLE_SECONDS = 2.5;
const PART_SECONDS = 6;
const MAX_STEP = 0.2; // seconds that one pose adds at most
const REGION_HEIGHTS = 1.25; // body heights of the region around a person
const MIN_RATE = 8; // frames per second, below which the page shows a warning
const MESSAGES = {
  start: "Please allow access to the camera.",
  load: "Loading the pose networks …",
  nobody: "No person in view.",
  part: "Step back until your feet are in view, or stay to control only the upper body.",
  whole: "Stand upright and face the camera.",
  lost: "No person in view. Holding the last pose.",
  drive: "The person mirrors your movements.",
  gone: "The camera was disconnected.",
  stop: "The camera is off.",
};
const find = (id) => document.getElementById(id);

export class Webcam {
  // page: has skeleton, trainingPoses, rate, drive(keypoints, time), release(). landmarks: see LivePose.
  constructor(page, { landmarks, minVisibility }) {
    this.page = page;
    this.livePose = new LivePose(page.skeleton, landmarks, minVisibility);
    this.ankles = ["l_ankle", "r_ankle"].map((name) => page.skeleton.indices[name]);
    this.context = find("camera-skeleton").getContext("2d");
    this.camera = new Camera(
      find("camera-video"),
      (...pose) => this.#onPose(...pose),
      (error) => this.#onEnd(error),
    );
    this.retargeting = null;
    find("camera-controls").hidden = false;
    const choice = find("camera-choice");
    find("camera").addEventListener("click", () => (this.camera.isOpen ? this.stop() : this.start(choice.value)));
    choice.addEventListener("change", () => this.start(choice.value));
    find("calibrate").addEventListener("click", () => this.calibrate());
  }

  get isDriving() {
    return this.retargeting !== null;
  }

  // Open a camera, and calibrate.
  async start(deviceId) {
    this.#close();
    this.#say(MESSAGES.start);
    find("camera-controls").disabled = true;
    try {
      await this.camera.open(deviceId);
      await this.#listCameras();
      this.#showCamera(true);
      this.calibrate();
      this.#say(MESSAGES.load);
      this.camera.follow();
    } catch (error) {
      this.#onEnd(error);
    }
    find("camera-controls").disabled = false;
  }

  stop() {
    this.#close();
    this.#say(MESSAGES.stop);
  }

  // Calibrate again.
  calibrate() {
    this.retargeting = null;
    this.livePose.reset();
    this.camera.forgetPerson();
    this.calibration = { whole: { poses: [], seconds: 0 }, part: { poses: [], seconds: 0 }, lastSeconds: null };
    this.#showProgress(0);
  }

  #close() {
    this.camera.close();
    this.retargeting = null;
    this.#showCamera(false);
    this.page.release();
  }

  #onEnd(error) {
    this.#close();
    if (error && !(error instanceof CameraError)) this.#say(`The camera stopped (${error.message}).`, true);
    else this.#say(error ? error.message : MESSAGES.gone, true);
  }

  async #listCameras() {
    const cameras = await Camera.list();
    const name = (label, index) => label || `camera ${index + 1}`;
    const options = cameras.map(({ label, deviceId }, index) => new Option(name(label, index), deviceId));
    find("camera-choice").replaceChildren(...options);
    find("camera-choice").value = this.camera.deviceId;
    find("camera-choice").hidden = cameras.length < 2;
  }

  // ---- poses

  // Resolves when the page is ready for the next pose.
  #onPose(pose, size, time) {
    const height = pose && pose.region.side / REGION_HEIGHTS;
    const keypoints = pose && this.livePose.next(pose.landmarks, size, height, time / 1000);
    this.#drawSkeleton(keypoints, size);
    if (!this.isDriving) return this.#addToCalibration(keypoints, time / 1000);
    if (keypoints) return this.#drive(keypoints, time);
    return this.#say(MESSAGES.lost);
  }

  #addToCalibration(keypoints, seconds) {
    const { calibration } = this;
    const elapsed = seconds - (calibration.lastSeconds ?? seconds);
    calibration.lastSeconds = seconds;
    if (!keypoints) return this.#say(MESSAGES.nobody);
    const isWhole = this.ankles.every((joint) => this.livePose.isSeen(joint));
    // Discard poses from before the person stepped back: their size differs.
    if (isWhole) calibration.part = { poses: [], seconds: 0 };
    const measured = isWhole ? calibration.whole : calibration.part;
    measured.poses.push(keypoints);
    measured.seconds += Math.min(elapsed, MAX_STEP);
    this.#say(isWhole ? MESSAGES.whole : MESSAGES.part);
    const progress = measured.seconds / (isWhole ? WHOLE_SECONDS : PART_SECONDS);
    this.#showProgress(progress);
    if (progress >= 1) this.#finishCalibration(measured.poses);
  }

  #showProgress(progress) {
    find("camera-ring").style.setProperty("--progress", Math.min(1, progress));
    find("camera-ring").classList.toggle("done", progress >= 1);
  }

  #finishCalibration(poses) {
    const { skeleton, trainingPoses } = this.page;
    try {
      this.retargeting = new Retargeting(skeleton, trainingPoses, poses);
    } catch (error) {
      if (!(error instanceof NoSharedBone)) throw error;
      this.#onEnd(new CameraError("The camera and the training data show no body part in common."));
    }
  }

  #drive(keypoints, time) {
    const { rate } = this.page;
    const isSlow = rate !== null && rate < MIN_RATE;
    const few = `Only ${Math.round(rate)} frames per second: poor lighting, or a slow or busy computer.`;
    this.#say(isSlow ? few : MESSAGES.drive);
    const pose = this.retargeting.apply(keypoints);
    return pose && this.page.drive(pose, time);
  }

  // ---- elements

  #say(text, isError = false) {
    if (find("camera-status").textContent !== text) find("camera-status").textContent = text;
    find("camera-status").classList.toggle("error", isError);
  }

  #showCamera(isOpen) {
    find("camera-view").hidden = !isOpen;
    find("calibrate").hidden = !isOpen;
    find("camera").textContent = isOpen ? "Stop camera" : "Start camera";
    find("motion-controls").disabled = isOpen;
  }

  #drawSkeleton(keypoints, { width, height }) {
    const { canvas } = this.context;
    canvas.height = Math.round((canvas.width * height) / width); // clears the canvas
    if (!keypoints) return;
    this.context.scale(canvas.width / width, canvas.height / height);
    this.context.lineWidth = height / 60;
    this.context.lineCap = "round";
    for (const { start, end, color } of this.page.skeleton.bones) {
      if (!keypoints[start] || !keypoints[end]) continue;
      this.context.strokeStyle = cssColor(color);
      this.context.beginPath();
      this.context.moveTo(...keypoints[start]);
      this.context.lineTo(...keypoints[end]);
      this.context.stroke();
    }
  }
}
