// The page: what the controls do, and the loop that paints.

import { Skeleton, nearestDistance } from "kinematics";
import { Clock, readPicture, readPlaces } from "motions";
import { Dancer, loadRuntime, unpacked } from "network";
import { paintPose } from "painter";
import { Recorder } from "recorder";
import { Stage } from "stage";

const FRAMES_TO_REST = 12; // a pose that stays is painted this often, then the picture rests
const LONGEST_UNDO = 200;
const FRAMES_PER_SECOND = 20;
const find = (id) => document.getElementById(id);

class Page {
  async load() {
    this.facts = JSON.parse(find("facts").textContent);
    const { look, joints } = this.facts;
    this.skeleton = new Skeleton(joints, look.bones);
    this.stage = new Stage(find("picture"), find("overlay"), look, this.skeleton, (...drag) => this.drag(...drag));
    this.clock = new Clock(FRAMES_PER_SECOND);
    this.recorder = new Recorder(find("picture"));
    this.undoSteps = [];
    this.restart = null;
    this.times = [];
    await this.unpackPictures();
    this.dancer = await Dancer.load(await loadRuntime(), { size: look.frame, latent: this.facts.latent });
    this.direction = this.dancer.z.map(normal);
    this.fillControls();
    await this.begin(0);
    this.chooseMotion(0);
    find("app").hidden = false;
    find("status").hidden = true;
    requestAnimationFrame((time) => this.tick(time));
  }

  async unpackPictures() {
    const { look, joints, motions, unit } = this.facts;
    this.starts = await unpacked("starts");
    this.familiar = readPlaces(await unpacked("familiar"), joints.length, unit);
    this.motions = [];
    for (const [index, { name, kind }] of motions.entries()) {
      const bytes = await unpacked(`motion-${index}`);
      const pixels = 3 * look.frame[0] * look.frame[1];
      const places = kind === "joints" ? readPlaces(bytes, joints.length, unit) : null;
      this.motions.push({ name, places, pictures: bytes, count: places ? places.length : bytes.length / pixels });
    }
  }

  // Start from one of the given frames: the even pictures are frames, the odd ones their poses.
  async begin(number) {
    const picture = (index) => readPicture(this.starts, index, this.facts.look.frame);
    const pose = picture(2 * number + 1);
    this.restart = null;
    await this.dancer.begin(picture(2 * number), pose);
    this.stage.showFrame(picture(2 * number));
    this.wake();
  }

  // There is something new to paint.
  wake() {
    this.restless = FRAMES_TO_REST;
  }

  // ---- poses

  get motion() {
    return this.motions[this.motionNumber];
  }

  chooseMotion(number) {
    this.motionNumber = number;
    this.clock.position = 0;
    this.undoSteps = [];
    this.places = this.motion.places ? this.motion.places[0] : null;
    find("scrub").max = this.motion.count - 1;
    this.showPose();
  }

  goTo(index) {
    this.clock.position = index;
    this.showMoment();
  }

  showMoment() {
    if (this.motion.places) this.places = this.motion.places[Math.floor(this.clock.position)];
    this.showPose();
  }

  drag(joint, target, isFirst) {
    if (isFirst) {
      this.clock.playing = false;
      this.undoSteps = [...this.undoSteps.slice(-LONGEST_UNDO), this.places];
    }
    this.places = this.skeleton.drag(this.places, joint, target);
    this.showPose();
  }

  undo() {
    if (this.undoSteps.length) this.places = this.undoSteps.pop();
    this.showPose();
  }

  showPose() {
    this.stage.showSkeleton(find("skeleton").checked ? this.places : null);
    find("scrub").value = Math.floor(this.clock.position);
    find("play").textContent = this.clock.playing ? "Pause" : "Play";
    find("undo").disabled = !this.undoSteps.length;
    this.showFamiliarity();
    this.wake();
  }

  showFamiliarity() {
    const { familiarDistance } = this.facts;
    let isNew = false;
    if (this.places && this.undoSteps.length && familiarDistance) {
      isNew = nearestDistance(this.places, this.familiar, this.skeleton.number.pelvis) > familiarDistance;
    }
    find("stage").classList.toggle("unfamiliar", isNew);
  }

  posePicture() {
    if (this.places) return paintPose(this.places, this.facts.look);
    return readPicture(this.motion.pictures, Math.floor(this.clock.position), this.facts.look.frame);
  }

  // ---- the loop

  async tick(time) {
    try {
      const seconds = Math.min(0.25, (time - (this.lastTime ?? time)) / 1000);
      this.lastTime = time;
      if (this.clock.playing) {
        this.clock.advance(seconds, this.motion.count);
        this.showMoment();
      }
      if (this.restart !== null) await this.begin(this.restart);
      if (this.restless > 0) await this.paint();
      requestAnimationFrame((next) => this.tick(next));
    } catch (error) {
      fail(error);
    }
  }

  async paint() {
    const began = performance.now();
    this.restless -= 1;
    this.stage.showFrame(await this.dancer.next(this.posePicture()));
    if (this.recorder.isRunning) this.recorder.add(find("smooth").checked);
    this.painted = (this.painted ?? 0) + 1;
    this.times = [...this.times.slice(-29), [performance.now(), performance.now() - began]];
    this.showSpeed();
  }

  showSpeed() {
    const sorted = this.times.map(([, milliseconds]) => milliseconds).sort((a, b) => a - b);
    const median = sorted[Math.floor(sorted.length / 2)];
    const span = this.times.at(-1)[0] - this.times[0][0];
    const rate = span ? (1000 * (this.times.length - 1)) / span : 0;
    find("speed").textContent = `${median.toFixed(1)} ms a frame, ${rate.toFixed(0)} frames a second`;
  }

  // ---- controls

  fillControls() {
    const { starts, motions, sentences, usesZ } = this.facts;
    const options = (select, names) => names.forEach((name, index) => select.add(new Option(name, index)));
    options(find("motion"), motions.map(({ name }) => name));
    options(find("start"), starts);
    find("about").textContent = sentences;
    find("z-field").hidden = !usesZ;
    find("record").hidden = !Recorder.isSupported();
    find("hint").hidden = !this.motions.some(({ places }) => places);
    const listen = (id, event, action) => find(id).addEventListener(event, action);
    listen("motion", "change", ({ target }) => this.chooseMotion(Number(target.value)));
    listen("start", "change", ({ target }) => (this.restart = Number(target.value)));
    listen("play", "click", () => this.togglePlaying());
    listen("scrub", "input", ({ target }) => this.goTo(Number(target.value)));
    listen("rate", "change", ({ target }) => (this.clock.speed = Number(target.value)));
    listen("undo", "click", () => this.undo());
    listen("reset", "click", () => this.reset());
    listen("smooth", "change", ({ target }) => find("picture").classList.toggle("smooth", target.checked));
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

  // The chosen start frame, with the pose of the moment in the motion.
  reset() {
    this.clock.playing = false;
    this.undoSteps = [];
    this.restart = Number(find("start").value);
    this.goTo(Math.floor(this.clock.position));
  }

  changeZ(amount) {
    this.dancer.z = this.direction.map((value) => value * amount);
    this.wake();
  }

  toggleRecording() {
    if (this.recorder.isRunning) this.recorder.stop();
    else this.recorder.start();
    find("record").textContent = this.recorder.isRunning ? "Stop and save" : "Record";
  }
}

// A standard normal number (Box and Muller 1958).
function normal() {
  return Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
}

function fail(error) {
  const status = find("status");
  status.hidden = false;
  status.className = "error";
  status.textContent = `This page does not work here: its file is damaged, or the browser is too old (${error}).`;
}

window.page = new Page();
window.page.load().catch(fail);
