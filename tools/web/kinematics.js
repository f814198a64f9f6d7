// How a skeleton follows a dragged joint. All functions return new keypoints and keep every bone's length.
// Keypoints are [x, y] of each joint by its index, or null where unknown.

const add = ([x, y], [dx, dy]) => [x + dx, y + dy];
const subtract = ([x, y], [x0, y0]) => [x - x0, y - y0];
const length = ([x, y]) => Math.hypot(x, y);
const rotate = ([x, y], angle) => [
  x * Math.cos(angle) - y * Math.sin(angle),
  x * Math.sin(angle) + y * Math.cos(angle),
];
const angleOf = ([x, y]) => Math.atan2(y, x);

// joints: names. bones: [{start, end}], indices of joints.
export class Skeleton {
  constructor(joints, bones) {
    this.joints = joints;
    this.bones = bones;
    this.indices = Object.fromEntries(joints.map((name, index) => [name, index]));
    this.parent = joints.map(() => null); // the root is the pelvis
    for (const { parent, child } of this.tree(this.indices.pelvis)) this.parent[child] = parent;
    const limb = (side, root, middle, end) => [`${side}_${root}`, `${side}_${middle}`, `${side}_${end}`];
    this.limbs = ["l", "r"]
      .flatMap((side) => [limb(side, "shoulder", "elbow", "wrist"), limb(side, "hip", "knee", "ankle")])
      .map((names) => names.map((name) => this.indices[name]));
    this.pivotJoints = ["neck", "nose"].map((name) => this.indices[name]);
    // Hips move with the pelvis, eyes and ears with the nose.
    this.handles = joints.map((_, index) => index).filter((index) => !/eye|ear|hip/.test(joints[index]));
  }

  // Each bone from a root outwards: {parent, child, bone}, indices of joints and of the bone.
  tree(root) {
    const tree = [];
    const reached = [root];
    for (const parent of reached) {
      this.bones.forEach(({ start, end }, bone) => {
        const child = start === parent ? end : end === parent ? start : null;
        if (child !== null && !reached.includes(child)) {
          tree.push({ parent, child, bone });
          reached.push(child);
        }
      });
    }
    return tree;
  }

  // The descendants of a joint, itself included.
  descendants(joint) {
    const isBelow = (index) => index !== null && (index === joint || isBelow(this.parent[index]));
    return this.joints.map((_, index) => index).filter(isBelow);
  }

  // The keypoints after a joint was dragged to a target.
  drag(keypoints, joint, target) {
    if (!keypoints[joint]) return keypoints;
    if (joint === this.indices.pelvis) {
      return this.#translate(keypoints, this.descendants(this.indices.pelvis), joint, target);
    }
    const limb = this.limbs.find(([, , end]) => end === joint);
    if (limb && limb.every((index) => keypoints[index])) return this.#bendLimb(keypoints, limb, target);
    const pivot = keypoints[this.parent[joint]];
    if (!pivot) return keypoints;
    const bone = subtract(keypoints[joint], pivot);
    const angle = angleOf(subtract(target, pivot)) - angleOf(bone);
    if (this.pivotJoints.includes(joint)) {
      const descendants = this.descendants(joint);
      return keypoints.map((point, index) =>
        point && descendants.includes(index) ? add(pivot, rotate(subtract(point, pivot), angle)) : point,
      );
    }
    return this.#translate(keypoints, this.descendants(joint), joint, add(pivot, rotate(bone, angle)));
  }

  #translate(keypoints, joints, joint, target) {
    const step = subtract(target, keypoints[joint]);
    return keypoints.map((point, index) => (point && joints.includes(index) ? add(point, step) : point));
  }

  // Two-bone inverse kinematics: moves the end as close to the target as possible; keeps the bend's side.
  #bendLimb(keypoints, [root, middle, end], target) {
    const upper = subtract(keypoints[middle], keypoints[root]);
    const lower = subtract(keypoints[end], keypoints[middle]);
    const [a, b] = [length(upper), length(lower)];
    const reach = subtract(target, keypoints[root]);
    const distance = Math.min(a + b, Math.max(Math.abs(a - b), length(reach)));
    const side = upper[0] * lower[1] - upper[1] * lower[0] > 0 ? -1 : 1;
    const cosine = a * distance ? (a ** 2 + distance ** 2 - b ** 2) / (2 * a * distance) : 1;
    const bend = side * Math.acos(Math.min(1, Math.max(-1, cosine)));
    const direction = angleOf(length(reach) ? reach : subtract(keypoints[end], keypoints[root]));
    const newMiddle = add(keypoints[root], rotate([a, 0], direction + bend));
    const newEnd = add(keypoints[root], rotate([distance, 0], direction));
    const result = this.#translate(keypoints, this.descendants(end), end, newEnd);
    result[middle] = newMiddle;
    return result;
  }
}

// Mean distance of the keypoints of two poses, both relative to the pelvis.
function distance(keypoints, other, pelvis) {
  let [sum, count] = [0, 0];
  keypoints.forEach((point, index) => {
    if (point && other[index]) {
      sum += length(subtract(subtract(point, keypoints[pelvis]), subtract(other[index], other[pelvis])));
      count += 1;
    }
  });
  return count ? sum / count : Infinity;
}

// Distance of a pose to the nearest of some others.
export function nearestDistance(keypoints, others, pelvis) {
  if (!keypoints[pelvis]) return Infinity;
  return others.reduce(
    (least, other) => (other[pelvis] ? Math.min(least, distance(keypoints, other, pelvis)) : least),
    Infinity,
  );
}
