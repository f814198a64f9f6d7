// The page: its controls, and the render loop.

import { Skeleton, nearestDistance } from "kinematics";
import { Clock, readImage, readKeypoints } from "motions";
import { VideoModel, unpack } from "network";
import { RecordControls } from "recorder";
import { renderPose } from "renderer";
import { Stage } from "stage";

const SETTLE_FRAMES = 12; // frames rendered after the last change
const MAX_UNDO = 200;
const MAX_TIMES = 30; // frames over which the speed is measured
const MAX_PAUSE = 500; // milliseconds between two poses; a longer pause restarts the speed measurement
const find = (id) => document.getElementById(id);

class Page {
  async load() {
    this.facts = JSON.parse(find("facts").textContent);
    const { style, joints } = this.facts;
    this.skeleton = new Skeleton(joints, style.bones);
    const onDrag = (...drag) => this.drag(...drag);
    this.stage = new Stage(find("image"), find("overlay"), style, this.skeleton, onDrag);
    this.clock = new Clock(this.facts.fps);
    this.recording = new RecordControls(find("image"));
    this.undoSteps = [];
    this.pendingReference = null;
    this.times = [];
    this.poseTime = null; // when the camera took the newest pose
    this.newPoseTime = null; // the same, until it is rendered
    await this.unpackData();
    this.model = await VideoModel.load({ size: style.frameSize, latent: this.facts.latent });
    this.direction = this.model.z.map(normal);
    this.fillControls();
    await this.setReference(0);
    this.selectMotion(0);
    if (this.facts.camera) await this.addCamera();
    find("app").hidden = false;
    find("status").hidden = true;
    this.run().catch(fail);
  }

  async addCamera() {
    const { Webcam } = await import("webcam");
    this.webcam = new Webcam(this, this.facts.camera);
    this.recording.needsCountdown = () => this.webcam.isDriving;
  }

  async unpackData() {
    const { style, joints, motions, unit } = this.facts;
    this.references = await unpack("references");
    this.trainingPoses = readKeypoints(await unpack("training-poses"), joints.length, unit);
    this.motions = [];
    for (const [index, { name, kind }] of motions.entries()) {
      const bytes = await unpack(`motion-${index}`);
      const pixels = 3 * style.frameSize[0] * style.frameSize[1];
      const keypoints = kind === "joints" ? readKeypoints(bytes, joints.length, unit) : null;
      const count = keypoints ? keypoints.length : bytes.length / pixels;
      this.motions.push({ name, keypoints, images: bytes, count });
    }
  }

  // Start from a reference frame: even images are frames, odd ones their poses.
  async setReference(index) {
    const image = (number) => readImage(this.references, number, this.facts.style.frameSize);
    const pose = image(2 * index + 1);
    this.pendingReference = null;
    await this.model.start(image(2 * index), pose);
    this.stage.showFrame(image(2 * index));
    this.requestRender();
  }

  // Call after any change to the pose, z or the reference frame.
  requestRender() {
    this.framesToRender = SETTLE_FRAMES;
  }

  // ---- poses

  get motion() {
    return this.motions[this.motionIndex];
  }

  selectMotion(index) {
    this.motionIndex = index;
    this.clock.position = 0;
    this.undoSteps = [];
    this.keypoints = this.motion.keypoints ? this.motion.keypoints[0] : null;
    find("scrub").max = this.motion.count - 1;
    this.showPose();
  }

  goTo(index) {
    this.clock.position = index;
    this.showPosition();
  }

  showPosition() {
    this.keypoints = this.motion.keypoints?.[Math.floor(this.clock.position)] ?? null;
    this.showPose();
  }

  drag(joint, target, isFirst) {
    if (isFirst) {
      this.clock.playing = false;
      this.undoSteps = [...this.undoSteps.slice(-MAX_UNDO), this.keypoints];
    }
    this.keypoints = this.skeleton.drag(this.keypoints, joint, target);
    this.showPose();
  }

  undo() {
    if (!this.undoSteps.length) return;
    this.keypoints = this.undoSteps.pop();
    this.showPose();
  }

  showPose() {
    const isDriven = this.poseTime !== null; // by a camera, whose preview shows the skeleton
    this.stage.showSkeleton(find("skeleton").checked && !isDriven ? this.keypoints : null);
    find("scrub").value = Math.floor(this.clock.position);
    find("play").textContent = this.clock.playing ? "Pause" : "Play";
    find("undo").disabled = !this.undoSteps.length;
    this.markUnlikeTraining();
    this.requestRender();
  }

  markUnlikeTraining() {
    const { maxDistance } = this.facts;
    let isUnlike = false;
    if (this.keypoints && this.undoSteps.length && maxDistance) {
      const { pelvis } = this.skeleton.indices;
      isUnlike = nearestDistance(this.keypoints, this.trainingPoses, pelvis) > maxDistance;
    }
    find("stage").classList.toggle("unlike-training", isUnlike);
  }

  poseImage() {
    if (this.keypoints) return renderPose(this.keypoints, this.facts.style);
    return readImage(this.motion.images, Math.floor(this.clock.position), this.facts.style.frameSize);
  }

  // ---- render loop

  async run() {
    let before = null;
    for (;;) {
      const time = await this.nextTick();
      const seconds = Math.min(0.25, (time - (before ?? time)) / 1000);
      before = time;
      if (this.clock.playing) {
        this.clock.advance(seconds, this.motion.count);
        this.showPosition();
      }
      if (this.pendingReference !== null) await this.setReference(this.pendingReference);
      if (this.framesToRender > 0) await this.render();
    }
  }

  // The time of the next animation frame, or of the next pose from the camera.
  nextTick() {
    if (this.poseTime !== null && this.framesToRender > 0) return performance.now();
    return new Promise((resolve) => {
      this.wake = () => resolve(performance.now());
      requestAnimationFrame(resolve);
    });
  }

  // Render one frame of a pose from the camera. time: when its image was captured.
  // Resolves when rendering starts, so the next pose is not estimated too early.
  drive(keypoints, time) {
    const isFirst = this.poseTime === null;
    if (isFirst || time - this.poseTime > MAX_PAUSE) this.times = [];
    [this.keypoints, this.poseTime, this.newPoseTime] = [keypoints, time, time];
    if (isFirst) {
      this.clock.playing = false;
      this.undoSteps = [];
      this.showPose();
    }
    this.framesToRender = 1;
    this.wake();
    return new Promise((resolve) => (this.onStart = resolve));
  }

  // The camera no longer drives the person.
  release() {
    if (this.poseTime === null) return;
    this.poseTime = null;
    this.times = [];
    this.showPose();
  }

  async render() {
    const [start, poseTime] = [performance.now(), this.newPoseTime];
    this.newPoseTime = null;
    this.framesToRender -= 1;
    this.onStart?.();
    this.stage.showFrame(await this.model.step(this.poseImage()));
    this.recording.add();
    const end = performance.now();
    const times = { end, cost: end - start, delay: poseTime && end - poseTime };
    this.times = [...this.times.slice(1 - MAX_TIMES), times];
    this.showSpeed();
  }

  // Frames per second; null if unknown.
  get rate() {
    if (this.times.length < MAX_TIMES) return null;
    return (1000 * (this.times.length - 1)) / (this.times.at(-1).end - this.times[0].end);
  }

  showSpeed() {
    const rate = this.rate === null ? "" : `${this.rate.toFixed(0)} frames per second, `;
    const isDriven = this.poseTime !== null && this.times.every(({ delay }) => delay !== null);
    const milliseconds = median(this.times.map(({ cost, delay }) => (isDriven ? delay : cost))).toFixed(0);
    const span = isDriven ? "from camera to screen" : "per frame";
    find("speed").textContent = `${rate}${milliseconds} ms ${span}`;
  }

  // ---- controls

  fillControls() {
    const { motions, about, usesZ } = this.facts;
    for (const id of ["motion", "reference"]) {
      motions.forEach(({ name }, index) => find(id).add(new Option(name, index)));
    }
    find("about").textContent = about;
    find("z-field").hidden = !usesZ;
    find("hint").hidden = !this.motions.some(({ keypoints }) => keypoints);
    const listen = (id, event, action) => find(id).addEventListener(event, action);
    listen("motion", "change", ({ target }) => this.selectMotion(Number(target.value)));
    listen("reference", "change", ({ target }) => (this.pendingReference = Number(target.value)));
    listen("play", "click", () => this.togglePlaying());
    listen("scrub", "input", ({ target }) => this.goTo(Number(target.value)));
    listen("rate", "change", ({ target }) => (this.clock.speed = Number(target.value)));
    listen("undo", "click", () => this.undo());
    listen("reset", "click", () => this.reset());
    listen("smooth", "change", ({ target }) => find("image").classList.toggle("smooth", target.checked));
    listen("skeleton", "change", () => this.showPose());
    listen("z", "input", ({ target }) => this.changeZ(Number(target.value)));
    document.addEventListener("keydown", (event) => {
      if ((event.ctrlKey || event.metaKey) && event.key === "z") this.undo();
    });
  }

  togglePlaying() {
    const isAtEnd = this.clock.position >= this.motion.count - 1;
    this.clock.playing = !this.clock.playing;
    if (this.clock.playing && isAtEnd) this.clock.position = 0;
    this.undoSteps = [];
    this.showPose();
  }

  // The selected reference frame, with the pose at the position in the motion.
  reset() {
    this.clock.playing = false;
    this.undoSteps = [];
    this.pendingReference = Number(find("reference").value);
    this.goTo(Math.floor(this.clock.position));
  }

  changeZ(amount) {
    this.model.z = this.direction.map((value) => value * amount);
    this.requestRender();
  }
}

// A sample of the standard normal distribution (Box and Muller 1958).
function normal() {
  return Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
}

function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

function fail(error) {
  window.page.webcam?.stop();
  const status = find("status");
  status.hidden = false;
  status.className = "error";
  status.textContent = `This page cannot run: the file is damaged, or the browser is too old (${error}).`;
}

window.page = new Page();
window.page.load().catch(fail);
