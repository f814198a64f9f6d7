// How a skeleton follows a joint that is dragged. All functions return new places and keep every bone's length.
// Places are [column, row] of each joint by its number, or null where it is not known.

const plus = ([x, y], [dx, dy]) => [x + dx, y + dy];
const minus = ([x, y], [x0, y0]) => [x - x0, y - y0];
const length = ([x, y]) => Math.hypot(x, y);
const turned = ([x, y], angle) => [
  x * Math.cos(angle) - y * Math.sin(angle),
  x * Math.sin(angle) + y * Math.cos(angle),
];
const angleOf = ([x, y]) => Math.atan2(y, x);

// joints: names. bones: [{start, end}] with the numbers of joints.
export class Skeleton {
  constructor(joints, bones) {
    this.joints = joints;
    this.number = Object.fromEntries(joints.map((name, index) => [name, index]));
    this.parent = this.#parents(bones);
    const limb = (side, root, middle, end) => [`${side}_${root}`, `${side}_${middle}`, `${side}_${end}`];
    this.limbs = ["l", "r"]
      .flatMap((side) => [limb(side, "shoulder", "elbow", "wrist"), limb(side, "hip", "knee", "ankle")])
      .map((names) => names.map((name) => this.number[name]));
    this.movesAll = ["pelvis", "l_hip", "r_hip"].map((name) => this.number[name]);
    this.turnsBelow = ["neck", "nose"].map((name) => this.number[name]);
    this.handles = joints.map((_, index) => index).filter((index) => !/eye|ear/.test(joints[index]));
  }

  // The joint before each, from the pelvis outwards.
  #parents(bones) {
    const parent = this.joints.map(() => null);
    const reached = [this.number.pelvis];
    for (const joint of reached) {
      for (const { start, end } of bones) {
        const next = start === joint ? end : end === joint ? start : null;
        if (next !== null && !reached.includes(next)) {
          parent[next] = joint;
          reached.push(next);
        }
      }
    }
    return parent;
  }

  // The joints that hang on one, itself included.
  below(joint) {
    const hangs = (index) => index !== null && (index === joint || hangs(this.parent[index]));
    return this.joints.map((_, index) => index).filter(hangs);
  }

  // The places after a joint was dragged to a target.
  drag(places, joint, target) {
    if (!places[joint]) return places;
    if (this.movesAll.includes(joint)) return this.#moved(places, this.below(this.number.pelvis), joint, target);
    const limb = this.limbs.find(([, , end]) => end === joint);
    if (limb && limb.every((index) => places[index])) return this.#reached(places, limb, target);
    const pivot = places[this.parent[joint]];
    if (!pivot) return places;
    const bone = minus(places[joint], pivot);
    const angle = angleOf(minus(target, pivot)) - angleOf(bone);
    if (this.turnsBelow.includes(joint)) {
      const hanging = this.below(joint);
      return places.map((place, index) =>
        place && hanging.includes(index) ? plus(pivot, turned(minus(place, pivot), angle)) : place,
      );
    }
    return this.#moved(places, this.below(joint), joint, plus(pivot, turned(bone, angle)));
  }

  #moved(places, joints, joint, target) {
    const step = minus(target, places[joint]);
    return places.map((place, index) => (place && joints.includes(index) ? plus(place, step) : place));
  }

  // Inverse kinematics of two bones: the end comes as near to the target as they reach, bent to the same side.
  #reached(places, [root, middle, end], target) {
    const [upper, lower] = [minus(places[middle], places[root]), minus(places[end], places[middle])];
    const [a, b] = [length(upper), length(lower)];
    const way = minus(target, places[root]);
    const distance = Math.min(a + b, Math.max(Math.abs(a - b), length(way)));
    const side = upper[0] * lower[1] - upper[1] * lower[0] > 0 ? -1 : 1;
    const cosine = a * distance ? (a ** 2 + distance ** 2 - b ** 2) / (2 * a * distance) : 1;
    const bend = side * Math.acos(Math.min(1, Math.max(-1, cosine)));
    const direction = angleOf(length(way) ? way : minus(places[end], places[root]));
    const newMiddle = plus(places[root], turned([a, 0], direction + bend));
    const newEnd = plus(places[root], turned([distance, 0], direction));
    const moved = this.#moved(places, this.below(end), end, newEnd);
    moved[middle] = newMiddle;
    return moved;
  }
}

// Mean distance of the joints of a pose to those of another, both relative to the pelvis.
function distance(places, other, pelvis) {
  let [sum, count] = [0, 0];
  places.forEach((place, index) => {
    if (place && other[index]) {
      sum += length(minus(minus(place, places[pelvis]), minus(other[index], other[pelvis])));
      count += 1;
    }
  });
  return count ? sum / count : Infinity;
}

// How far a pose is from the nearest of some others.
export function nearestDistance(places, others, pelvis) {
  if (!places[pelvis]) return Infinity;
  return others.reduce(
    (least, other) => (other[pelvis] ? Math.min(least, distance(places, other, pelvis)) : least),
    Infinity,
  );
}
