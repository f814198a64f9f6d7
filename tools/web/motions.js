// The motions that were recorded: joints, or pose pictures where no joints are known.

const UNKNOWN = -32768;

// Places [column, row] of each joint, or null; count joints from a row of 16-bit numbers.
function placesOf(numbers, row, joints, unit) {
  return Array.from({ length: joints }, (_, joint) => {
    const [x, y] = numbers.subarray(2 * (row * joints + joint), 2 * (row * joints + joint) + 2);
    return x === UNKNOWN ? null : [x * unit, y * unit];
  });
}

// All rows of a table of joints, from its bytes; unit: of its numbers, in pixels.
export function readPlaces(bytes, joints, unit) {
  const numbers = new Int16Array(bytes.buffer);
  return Array.from({ length: numbers.length / (2 * joints) }, (_, row) => placesOf(numbers, row, joints, unit));
}

// Picture number index of a stack, from uint8 of height x width x 3 to Float32Array of 3 x height x width.
export function readPicture(bytes, index, [width, height]) {
  const pixels = width * height;
  const picture = new Float32Array(3 * pixels);
  for (let pixel = 0; pixel < pixels; pixel++) {
    for (let channel = 0; channel < 3; channel++) {
      picture[channel * pixels + pixel] = bytes[3 * (index * pixels + pixel) + channel] / 255;
    }
  }
  return picture;
}

// The time in a motion that is played; position is in frames.
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
