// Motions: keypoints, or pose images where no keypoints are known; and the clock that plays them.

const UNKNOWN = -32768;

// Keypoints [x, y] of each joint, or null, from a row of 16-bit numbers.
function keypointsAt(numbers, row, joints, unit) {
  return Array.from({ length: joints }, (_, joint) => {
    const [x, y] = numbers.subarray(2 * (row * joints + joint), 2 * (row * joints + joint) + 2);
    return x === UNKNOWN ? null : [x * unit, y * unit];
  });
}

// All rows of a table of keypoints, from its bytes; unit: of its numbers, in pixels.
export function readKeypoints(bytes, joints, unit) {
  const numbers = new Int16Array(bytes.buffer);
  const length = numbers.length / (2 * joints);
  return Array.from({ length }, (_, row) => keypointsAt(numbers, row, joints, unit));
}

// Image number index of a stack, from uint8 of height x width x 3 to Float32Array of 3 x height x width.
export function readImage(bytes, index, [width, height]) {
  const pixels = width * height;
  const image = new Float32Array(3 * pixels);
  for (let pixel = 0; pixel < pixels; pixel++) {
    for (let channel = 0; channel < 3; channel++) {
      image[channel * pixels + pixel] = bytes[3 * (index * pixels + pixel) + channel] / 255;
    }
  }
  return image;
}

// The position in a motion that is played, in frames.
export class Clock {
  constructor(framesPerSecond) {
    this.rate = framesPerSecond;
    this.speed = 1;
    this.position = 0;
    this.playing = false;
  }

  // Advance by seconds; stops at the last of count frames.
  advance(seconds, count) {
    this.position = Math.min(count - 1, this.position + seconds * this.rate * this.speed);
    this.playing = this.position < count - 1;
  }
}
