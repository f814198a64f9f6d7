// Motion retargeting, as in tools/poses/retarget.py: adapts one person's poses to another's body.
// Poses are [x, y] of each joint, or null where unknown.

const ROOTS = ["pelvis", "neck", "nose"]; // the first visible one is the root
const TRUNK = ["neck", "l_shoulder", "r_shoulder", "pelvis", "l_hip", "r_hip"];
const FEET = ["l_ankle", "r_ankle", "l_toe", "r_toe"];
const RANGE = [5, 95]; // percentiles over time of a person's position
const LENGTH = 90; // percentile over time of a bone's length in the image
const MIN_SEEN = 0.1; // of the poses, for a joint to count as seen

const add = ([x, y], [dx, dy]) => [x + dx, y + dy];
const subtract = ([x, y], [x0, y0]) => [x - x0, y - y0];
const scale = ([x, y], factor) => [x * factor, y * factor];
const clip = (value, low, high) => Math.min(high, Math.max(low, value));

// A percentile, with linear interpolation; NaN without values.
function percentile(values, percent) {
  const sorted = values.filter((value) => !Number.isNaN(value)).sort((a, b) => a - b);
  if (!sorted.length) return NaN;
  const position = ((sorted.length - 1) * percent) / 100;
  const low = Math.floor(position);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (position - low) * (sorted[high] - sorted[low]);
}
const median = (values) => percentile(values, 50);

// Which joints are seen in enough poses.
function findSeen(poses) {
  const people = poses.filter((pose) => pose.some(Boolean));
  return poses[0].map((_, joint) => {
    const count = people.filter((pose) => pose[joint]).length;
    return people.length > 0 && count / people.length >= MIN_SEEN;
  });
}

function boneLength(poses, { start, end }) {
  const known = poses.filter((pose) => pose[start] && pose[end]);
  return percentile(known.map((pose) => Math.hypot(...subtract(pose[end], pose[start]))), LENGTH);
}

// The lowest of some joints, in y; NaN if none is known.
function lowest(pose, joints) {
  const known = joints.filter((joint) => pose[joint]);
  return known.length ? Math.max(...known.map((joint) => pose[joint][1])) : NaN;
}

export class NoSharedBone extends Error {}

export class Retargeting {
  // skeleton: a Skeleton. target: poses of the trained person, in pixels of their images.
  // own: poses of the other person, which give their bone lengths, floor and range, in any pixels.
  // Throws NoSharedBone if no bone is seen in both.
  constructor(skeleton, target, own) {
    this.indices = skeleton.indices;
    this.trunk = TRUNK.map((name) => this.indices[name]);
    this.feet = FEET.map((name) => this.indices[name]);
    this.isDrawn = findSeen(target);
    this.isShown = findSeen(own);
    this.#measureBones(skeleton, target, own);
    this.#measurePlace(target, own.map((pose) => this.#layOut(pose)));
  }

  // A pose in pixels of the target's images; null if it has no root.
  apply(pose) {
    const result = this.#layOut(pose);
    if (!result.some(Boolean)) return null;
    const x = result[this.root]?.[0];
    const across = x === undefined ? this.usualAcross : this.#across(x);
    return this.#limit(result.map((point) => point && add(point, [across, this.down])));
  }

  #measureBones(skeleton, target, own) {
    const known = own.map((pose) => this.#shownJoints(pose));
    const lengths = skeleton.bones.map((bone) => [boneLength(known, bone), boneLength(target, bone)]);
    const shared = lengths.filter(([mine, theirs]) => mine > 0 && !Number.isNaN(theirs));
    if (!shared.length) throw new NoSharedBone();
    const sum = (index) => shared.reduce((total, pair) => total + pair[index], 0);
    this.zoom = sum(1) / sum(0);
    this.ratios = lengths.map(([mine, theirs]) => (mine > 0 ? theirs / mine : this.zoom));
    this.trees = ROOTS.map((name) => {
      const root = this.indices[name];
      return { root, steps: this.#steps(skeleton.tree(root), target) };
    }).filter(({ root }) => this.isDrawn[root]);
  }

  // Each bone from a root outwards, with the usual step of the target where the bone may be unknown.
  #steps(tree, target) {
    return tree.map(({ parent, child, bone }) => {
      const isFilled = this.isDrawn[child] && (!this.isShown[child] || this.trunk.includes(child));
      const known = target.filter((pose) => pose[parent] && pose[child]);
      const steps = known.map((pose) => subtract(pose[child], pose[parent]));
      const hasUsual = isFilled && this.isDrawn[parent] && steps.length > 0;
      const usual = hasUsual ? [0, 1].map((axis) => median(steps.map((step) => step[axis]))) : null;
      return { parent, child, ratio: this.ratios[bone], usual };
    });
  }

  #shownJoints(pose) {
    return pose.map((point, joint) => (this.isShown[joint] ? point : null));
  }

  // A pose with the target's bone lengths; its lowest foot stays in place.
  #layOut(pose) {
    const known = this.#shownJoints(pose);
    const result = pose.map(() => null);
    const tree = this.trees.find(({ root }) => known[root]);
    if (!tree) return result;
    result[tree.root] = scale(known[tree.root], this.zoom);
    for (const { parent, child, ratio, usual } of tree.steps) {
      const isKnown = known[parent] && known[child] && !Number.isNaN(ratio);
      const step = isKnown ? scale(subtract(known[child], known[parent]), ratio) : usual;
      if (result[parent] && step) result[child] = add(result[parent], step);
    }
    const feet = this.feet.filter((joint) => known[joint]);
    if (!feet.length) return result;
    const foot = feet.reduce((low, joint) => (known[joint][1] > known[low][1] ? joint : low));
    const offset = result[foot] ? subtract(scale(known[foot], this.zoom), result[foot]) : [0, 0];
    return result.map((point) => point && add(point, offset));
  }

  // Where the person stands, from the poses before they are placed.
  #measurePlace(target, results) {
    const isSeen = findSeen(results).map((seen, joint) => seen && this.isDrawn[joint]);
    this.root = ROOTS.map((name) => this.indices[name]).find((joint) => isSeen[joint]);
    const level = this.feet.some((joint) => isSeen[joint]) ? this.feet : [this.root];
    const height = (poses) => median(poses.map((pose) => lowest(pose, level)));
    this.down = height(target) - height(results);
    const xs = (poses) => poses.filter((pose) => pose[this.root]).map((pose) => pose[this.root][0]);
    const [[left, right], [ownLeft, ownRight]] = [target, results].map((poses) =>
      RANGE.map((percent) => percentile(xs(poses), percent)),
    );
    this.center = (left + right) / 2;
    this.ownCenter = (ownLeft + ownRight) / 2;
    this.narrowing = Math.min(1, (right - left) / Math.max(ownRight - ownLeft, 1e-6));
    this.usualAcross = median(xs(results).map((x) => this.#across(x)));
    const all = target.flat().filter(Boolean);
    this.floor = Math.max(...all.map(([, y]) => y));
    this.bounds = [Math.min(...xs(target)), Math.max(...xs(target))];
  }

  #across(x) {
    return this.center + this.narrowing * (x - this.ownCenter) - x;
  }

  // Keep a pose inside the area where the target was seen.
  #limit(pose) {
    const ys = pose.filter(Boolean).map(([, y]) => y);
    const room = this.floor - Math.max(...ys);
    const down = Math.min(Math.max(0, -Math.min(...ys)), Math.max(0, room)) + Math.min(room, 0);
    const x = pose[this.root]?.[0];
    const across = x === undefined ? 0 : clip(x, ...this.bounds) - x;
    return pose.map((point) => point && add(point, [across, down]));
  }
}
