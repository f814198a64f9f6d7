// Runs in a worker: BlazePose (Bazarevsky et al. 2020), the landmarks of one person in camera images.
// Networks, regions and crops match tools/poses/blazepose.py; the tracking is simpler.

const DETECTOR_SIDE = 224; // of the networks' inputs, pixels
const LANDMARK_SIDE = 256;
const ANCHORS = [[8, 2], [16, 2], [32, 6]]; // strides of the detector, and anchors per position
const MIN_SCORE = 0.5; // of a detection, and of a person in a region
const REGION_SCALE = 1.25; // side of a region, in diameters of the circle around a body
const NUM_LANDMARKS = 33;
const SEARCH_SECONDS = 0.2; // between two searches while no person is visible
const MAX_JUMP = 0.3; // how far a person moves between two images, and per second, in sides of their region
const MAX_SPEED = 1.5;
const MAX_ABSENCE = 2; // seconds after which anybody is taken

const sigmoid = (value) => 1 / (1 + Math.exp(-value));
const indicesOf = (values) => Array.from(values.keys());

function anchorCenters() {
  const centers = [];
  for (const [stride, count] of ANCHORS) {
    const steps = DETECTOR_SIDE / stride;
    for (let position = 0; position < steps * steps; position++) {
      const center = [(position % steps) + 0.5, Math.floor(position / steps) + 0.5];
      for (let anchor = 0; anchor < count; anchor++) centers.push(center.map((value) => value * stride));
    }
  }
  return centers;
}
const CENTERS = anchorCenters();

// The region of a body, a rotated square: from the center of its hips and the head's point on the circle around it.
function regionOf([x, y], [edgeX, edgeY]) {
  const [across, down] = [edgeX - x, edgeY - y];
  const angle = Math.PI / 2 - Math.atan2(-down, across);
  return { center: [x, y], side: 2 * REGION_SCALE * Math.hypot(across, down), angle };
}

// The square of an image as Float32Array of 3 x 256 x 256 in [0, 1], by bilinear interpolation of
// 8-bit values, as Pillow does; black outside. Canvases filter differently from browser to browser.
function crop({ data, width, height }, { center, side, angle }) {
  const plane = LANDMARK_SIDE ** 2;
  const values = new Float32Array(3 * plane);
  const step = side / LANDMARK_SIDE;
  const [cosine, sine] = [Math.cos(angle) * step, Math.sin(angle) * step];
  for (let index = 0; index < plane; index++) {
    const across = (index % LANDMARK_SIDE) + 0.5 - LANDMARK_SIDE / 2;
    const down = Math.floor(index / LANDMARK_SIDE) + 0.5 - LANDMARK_SIDE / 2;
    const x = center[0] + cosine * across - sine * down;
    const y = center[1] + sine * across + cosine * down;
    if (x < 0 || y < 0 || x >= width || y >= height) continue;
    const left = Math.floor(x - 0.5);
    const top = Math.floor(y - 0.5);
    const right = x - 0.5 - left; // weights of the right and the lower pixels
    const below = y - 0.5 - top;
    const upperRow = 4 * width * Math.max(top, 0);
    const lowerRow = 4 * width * Math.min(top + 1, height - 1);
    const first = 4 * Math.max(left, 0);
    const second = 4 * Math.min(left + 1, width - 1);
    for (let channel = 0; channel < 3; channel++) {
      const upper = data[upperRow + first + channel] * (1 - right) + data[upperRow + second + channel] * right;
      const lower = data[lowerRow + first + channel] * (1 - right) + data[lowerRow + second + channel] * right;
      values[channel * plane + index] = Math.floor(upper * (1 - below) + lower * below) / 255;
    }
  }
  return values;
}

// Messages are {image, seconds, isNew}, answers: see BlazePose.find. isNew: a new camera or person.
export async function create(ort, { detector, landmarks }) {
  const network = (session, side) => async (values) => {
    const outputs = await session.run({ input: new ort.Tensor("float32", values, [1, 3, side, side]) });
    return Object.fromEntries(Object.entries(outputs).map(([name, { data }]) => [name, data]));
  };
  const detect = network(detector, DETECTOR_SIDE);
  const findLandmarks = network(landmarks, LANDMARK_SIDE);
  // The first run of a network is slow.
  await detect(new Float32Array(3 * DETECTOR_SIDE ** 2));
  await findLandmarks(new Float32Array(3 * LANDMARK_SIDE ** 2));
  const estimator = new BlazePose(detect, findLandmarks);
  return async ({ image, seconds, isNew }) => {
    if (isNew) estimator.reset();
    const pose = await estimator.find(image, seconds);
    image.close();
    return pose;
  };
}

class BlazePose {
  // The networks, from Float32Array of 3 x side x side to their outputs.
  constructor(detect, findLandmarks) {
    this.networks = { detect, findLandmarks };
    this.reset();
    this.canvas = new OffscreenCanvas(1, 1);
    this.small = new OffscreenCanvas(DETECTOR_SIDE, DETECTOR_SIDE);
  }

  // Forget the person.
  reset() {
    this.region = null; // of the person in the next image
    this.last = null; // where a person was last found, {region, seconds}
    this.nextSearch = 0;
  }

  // The person in the next image, a VideoFrame; null if no person is found. A pose is {landmarks, region}:
  // landmarks are 33 [x, y, visibility], in pixels and in [0, 1].
  async find(image, seconds) {
    const pixels = this.#draw(image);
    let pose = this.region && (await this.#findLandmarks(pixels, this.region));
    if (!pose && seconds >= this.nextSearch) {
      this.nextSearch = seconds + SEARCH_SECONDS;
      const region = this.#choose(await this.#detect(pixels), seconds);
      pose = region && (await this.#findLandmarks(pixels, region));
    }
    this.region = pose?.region ?? null;
    if (pose) this.last = { region: pose.region, seconds };
    return pose ?? null;
  }

  // Draw an image on the canvas and return its pixels.
  #draw(image) {
    const { displayWidth: width, displayHeight: height } = image;
    if (this.canvas.width !== width || this.canvas.height !== height) {
      [this.canvas.width, this.canvas.height] = [width, height];
      this.context = this.canvas.getContext("2d", { willReadFrequently: true, alpha: false });
    }
    this.context.drawImage(image, 0, 0, width, height);
    return this.context.getImageData(0, 0, width, height);
  }

  // The region nearest to the last one, within reach at MAX_SPEED; without a last one, the largest.
  #choose(regions, seconds) {
    if (!this.last || seconds - this.last.seconds > MAX_ABSENCE) {
      return regions.reduce((largest, region) => (region.side > (largest?.side ?? 0) ? region : largest), null);
    }
    const { region, seconds: before } = this.last;
    const reach = (MAX_JUMP + MAX_SPEED * (seconds - before)) * region.side;
    const distance = ({ center }) => Math.hypot(center[0] - region.center[0], center[1] - region.center[1]);
    const near = regions.filter((other) => distance(other) < reach);
    return near.reduce((best, other) => (!best || distance(other) < distance(best) ? other : best), null);
  }

  // The regions of people in an image, padded to a square; a person may appear several times.
  async #detect({ width, height }) {
    const side = Math.max(width, height);
    const zoom = DETECTOR_SIDE / side;
    const [left, top] = [(side - width) / 2, (side - height) / 2];
    const context = this.small.getContext("2d", { willReadFrequently: true, alpha: false });
    context.fillRect(0, 0, DETECTOR_SIDE, DETECTOR_SIDE);
    context.imageSmoothingQuality = "medium";
    context.drawImage(this.canvas, left * zoom, top * zoom, width * zoom, height * zoom);
    const { data } = context.getImageData(0, 0, DETECTOR_SIDE, DETECTOR_SIDE);
    const plane = DETECTOR_SIDE ** 2;
    const values = new Float32Array(3 * plane);
    for (let index = 0; index < 3 * plane; index++) {
      values[index] = data[4 * (index % plane) + Math.floor(index / plane)] / 127.5 - 1;
    }
    const { boxes, scores } = await this.networks.detect(values);
    const found = indicesOf(scores).filter((index) => sigmoid(scores[index]) >= MIN_SCORE);
    return found.map((index) => {
      const point = (at) => [
        (boxes[12 * index + at] + CENTERS[index][0]) / zoom - left,
        (boxes[12 * index + at + 1] + CENTERS[index][1]) / zoom - top,
      ];
      return regionOf(point(4), point(6));
    });
  }

  // The pose of the person in a region; null if no person is there.
  async #findLandmarks(pixels, region) {
    const { landmarks: values, score } = await this.networks.findLandmarks(crop(pixels, region));
    if (!(score[0] >= MIN_SCORE)) return null;
    const step = region.side / LANDMARK_SIDE;
    const [cosine, sine] = [Math.cos(region.angle) * step, Math.sin(region.angle) * step];
    const point = (index) => {
      const [across, down] = [0, 1].map((axis) => values[5 * index + axis] - LANDMARK_SIDE / 2);
      return [
        region.center[0] + cosine * across - sine * down,
        region.center[1] + sine * across + cosine * down,
      ];
    };
    const landmarks = Array.from({ length: NUM_LANDMARKS }, (_, index) => [
      ...point(index),
      sigmoid(values[5 * index + 3]),
    ]);
    return { landmarks, region: regionOf(point(NUM_LANDMARKS), point(NUM_LANDMARKS + 1)) };
  }
}
