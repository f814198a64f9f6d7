// Mirrored joints of a person in front of a camera: smoothed, and held while not visible.

const MIN_CUTOFF = 1; // Hz
const BETA = 5; // Hz of cutoff per body height per second of speed
const DERIVATIVE_CUTOFF = 1; // Hz
const MAX_PAUSE = 0.5; // seconds after which smoothing restarts

// The One Euro filter (Casiez et al. 2012) of one coordinate.
class OneEuroFilter {
  // unit: body height in pixels.
  next(value, seconds, unit) {
    if (this.seconds === undefined || seconds - this.seconds > MAX_PAUSE) {
      Object.assign(this, { value, seconds, derivative: 0 });
      return value;
    }
    const elapsed = Math.max(seconds - this.seconds, 1e-3);
    const blend = (cutoff) => 1 - 1 / (1 + 2 * Math.PI * cutoff * elapsed);
    const derivative = (value - this.value) / elapsed;
    this.derivative += blend(DERIVATIVE_CUTOFF) * (derivative - this.derivative);
    const cutoff = MIN_CUTOFF + (BETA * Math.abs(this.derivative)) / unit;
    this.value += blend(cutoff) * (value - this.value);
    this.seconds = seconds;
    return this.value;
  }
}

// Left and right of a joint's name exchanged.
const mirrored = (name) => name.replace(/^[lr]_/, (side) => (side === "l_" ? "r_" : "l_"));

export class LivePose {
  // skeleton: a Skeleton. landmarks: indices of the landmarks of each joint, of which the mean is taken.
  constructor(skeleton, landmarks, minVisibility) {
    this.minVisibility = minVisibility;
    this.trees = ["pelvis", "neck", "nose"].map((name) => {
      const root = skeleton.indices[name];
      return { root, bones: skeleton.tree(root) };
    });
    this.sources = skeleton.joints.map((name) => landmarks[skeleton.indices[mirrored(name)]]);
    this.reset();
  }

  reset() {
    this.filters = this.sources.map(() => [new OneEuroFilter(), new OneEuroFilter()]);
    this.held = this.sources.map(() => null);
  }

  // Whether the last image showed a joint.
  isSeen(joint) {
    return this.seen[joint] !== null;
  }

  // The joints [x, y] in the mirrored image, null where never seen. Returns null unless the neck,
  // and the hips or head, are visible. landmarks: [x, y, visibility]; unit: body height in pixels.
  next(landmarks, { width, height }, unit, seconds) {
    this.seen = this.sources.map((indices) => this.#joint(indices.map((index) => landmarks[index]), width, height));
    const [pelvis, neck, nose] = this.trees.map(({ root }) => this.seen[root]);
    if (!neck || !(pelvis || nose)) return null;
    const smooth = this.seen.map(
      (point, joint) =>
        point && point.map((value, axis) => this.filters[joint][axis].next(value, seconds, unit)),
    );
    this.held = this.#hold(smooth);
    return this.held;
  }

  #joint(points, width, height) {
    const mean = (axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length;
    const [x, y] = [mean(0), mean(1)];
    const isInside = x >= 0 && y >= 0 && x <= width && y <= height;
    const isVisible = points.every(([, , visibility]) => visibility >= this.minVisibility);
    return isInside && isVisible ? [width - x, y] : null;
  }

  // Joints that are not visible keep their last offset from the parent joint.
  #hold(seen) {
    const { root, bones } = this.trees.find((tree) => seen[tree.root]);
    const result = [...seen];
    for (const { parent, child } of bones) {
      const [last, lastParent] = [this.held[child], this.held[parent]];
      if (result[child] || !result[parent] || !last || !lastParent) continue;
      result[child] = [0, 1].map((axis) => result[parent][axis] + last[axis] - lastParent[axis]);
    }
    return result;
  }
}
