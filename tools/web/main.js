// The page: its controls, and the render loop.

import { Skeleton, nearestDistance } from "kinematics";
import { Clock, readImage, readKeypoints } from "motions";
import { VideoModel, loadRuntime, unpack } from "network";
import { Recorder } from "recorder";
import { renderPose } from "renderer";
import { Stage } from "stage";

const SETTLE_FRAMES = 12; // number of frames that are rendered of a pose that does not change
const MAX_UNDO = 200;
const find = (id) => document.getElementById(id);

class Page {
  async load() {
    this.facts = JSON.parse(find("facts").textContent);
    const { style, joints } = this.facts;
    this.skeleton = new Skeleton(joints, style.bones);
    const onDrag = (...drag) => this.drag(...drag);
    this.stage = new Stage(find("image"), find("overlay"), style, this.skeleton, onDrag);
    this.clock = new Clock(this.facts.fps);
    this.recorder = new Recorder(find("image"));
    this.undoSteps = [];
    this.pendingReference = null;
    this.times = [];
    await this.unpackData();
    const shapes = { size: style.frameSize, latent: this.facts.latent };
    this.model = await VideoModel.load(await loadRuntime(), shapes);
    this.direction = this.model.z.map(normal);
    this.fillControls();
    await this.setReference(0);
    this.selectMotion(0);
    find("app").hidden = false;
    find("status").hidden = true;
    requestAnimationFrame((time) => this.tick(time));
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

  // Something has changed.
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
    if (this.motion.keypoints) this.keypoints = this.motion.keypoints[Math.floor(this.clock.position)];
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
    if (this.undoSteps.length) this.keypoints = this.undoSteps.pop();
    this.showPose();
  }

  showPose() {
    this.stage.showSkeleton(find("skeleton").checked ? this.keypoints : null);
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

  async tick(time) {
    try {
      const seconds = Math.min(0.25, (time - (this.previousTime ?? time)) / 1000);
      this.previousTime = time;
      if (this.clock.playing) {
        this.clock.advance(seconds, this.motion.count);
        this.showPosition();
      }
      if (this.pendingReference !== null) await this.setReference(this.pendingReference);
      if (this.framesToRender > 0) await this.render();
      requestAnimationFrame((next) => this.tick(next));
    } catch (error) {
      fail(error);
    }
  }

  async render() {
    const start = performance.now();
    this.framesToRender -= 1;
    this.stage.showFrame(await this.model.step(this.poseImage()));
    if (this.recorder.isRunning) this.recorder.add(find("smooth").checked);
    this.times = [...this.times.slice(-29), [performance.now(), performance.now() - start]];
    this.showSpeed();
  }

  showSpeed() {
    const sorted = this.times.map(([, milliseconds]) => milliseconds).sort((a, b) => a - b);
    const median = sorted[Math.floor(sorted.length / 2)];
    const span = this.times.at(-1)[0] - this.times[0][0];
    const rate = span ? (1000 * (this.times.length - 1)) / span : 0;
    find("speed").textContent = `${median.toFixed(1)} ms per frame, ${rate.toFixed(0)} frames per second`;
  }

  // ---- controls

  fillControls() {
    const { motions, about, usesZ } = this.facts;
    const options = (select, names) => names.forEach((name, index) => select.add(new Option(name, index)));
    for (const id of ["motion", "reference"]) options(find(id), motions.map(({ name }) => name));
    find("about").textContent = about;
    find("z-field").hidden = !usesZ;
    find("record").hidden = !Recorder.isSupported();
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
    listen("record", "click", () => this.toggleRecording());
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

  toggleRecording() {
    if (this.recorder.isRunning) this.recorder.stop();
    else this.recorder.start();
    find("record").textContent = this.recorder.isRunning ? "Stop and save" : "Record";
  }
}

// A sample of the standard normal distribution (Box and Muller 1958).
function normal() {
  return Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
}

function fail(error) {
  const status = find("status");
  status.hidden = false;
  status.className = "error";
  status.textContent = `This page cannot run: the file is damaged, or the browser is too old (${error}).`;
}

window.page = new Page();
window.page.load().catch(fail);
