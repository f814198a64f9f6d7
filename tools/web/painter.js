// The pose picture: a coloured skeleton on white, painted as the pictures of the training were.
// Pictures are Float32Array of 3 x height x width, channel first, in [0, 1].

const limited = (value) => Math.min(1, Math.max(0, value));

// Places are [column, row] of each joint, or null where it is not known.
// look: {bones: [{start, end, color, width}], thickness}; thickness as a fraction of the height.
export function paintBones(places, look, width, height) {
  const picture = new Float32Array(3 * width * height).fill(1);
  for (const bone of look.bones) {
    const start = places[bone.start];
    const end = places[bone.end];
    if (start && end) {
      paintLine(picture, width, height, start, end, (look.thickness * height * bone.width) / 2, bone.color);
    }
  }
  return picture;
}

// An antialiased line with round ends.
function paintLine(picture, width, height, [x, y], [endX, endY], half, color) {
  const [acrossX, acrossY] = [endX - x, endY - y];
  const square = Math.max(acrossX ** 2 + acrossY ** 2, 1e-6);
  const left = Math.max(0, Math.trunc(Math.min(x, endX) - half - 1));
  const top = Math.max(0, Math.trunc(Math.min(y, endY) - half - 1));
  const right = Math.min(width, Math.trunc(Math.max(x, endX) + half + 2));
  const bottom = Math.min(height, Math.trunc(Math.max(y, endY) + half + 2));
  for (let row = top; row < bottom; row++) {
    for (let column = left; column < right; column++) {
      const [dx, dy] = [column + 0.5 - x, row + 0.5 - y];
      const along = limited((dx * acrossX + dy * acrossY) / square);
      const distance = Math.hypot(dx - along * acrossX, dy - along * acrossY) - half;
      const coverage = limited(0.5 - distance);
      for (let channel = 0; channel < 3; channel++) {
        const index = (channel * height + row) * width + column;
        picture[index] += coverage * (color[channel] - picture[index]);
      }
    }
  }
}

const rounded = (value) => Math.floor(limited(value) * 255 + 0.5) / 255;

// The mean over squares of zoom x zoom pixels, rounded to 8 bits.
function reduced(picture, width, height, zoom) {
  const result = new Float32Array(3 * width * height);
  for (let line = 0; line < 3 * height; line++) {
    for (let column = 0; column < width; column++) {
      let sum = 0;
      for (let i = 0; i < zoom; i++) {
        for (let j = 0; j < zoom; j++) {
          sum += picture[(line * zoom + i) * width * zoom + column * zoom + j];
        }
      }
      result[line * width + column] = rounded(sum / zoom ** 2);
    }
  }
  return result;
}

// Weights of a triangle filter for each place of the result: [first source, weights].
function triangle(from, to) {
  const scale = from / to;
  const reach = Math.max(1, scale);
  return Array.from({ length: to }, (_, index) => {
    const centre = (index + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach + 0.5));
    const last = Math.min(from, Math.trunc(centre + reach + 0.5));
    const weights = [];
    for (let source = first; source < last; source++) {
      weights.push(Math.max(0, 1 - Math.abs((source + 0.5 - centre) / reach)));
    }
    const sum = weights.reduce((total, weight) => total + weight, 0);
    return [first, weights.map((weight) => weight / sum)];
  });
}

// A picture in another size, with both passes rounded to 8 bits.
export function resized(picture, [width, height], [newWidth, newHeight]) {
  if (width === newWidth && height === newHeight) return picture;
  const narrow = new Float32Array(3 * height * newWidth);
  const across = triangle(width, newWidth);
  for (let line = 0; line < 3 * height; line++) {
    across.forEach(([first, weights], column) => {
      let sum = 0;
      weights.forEach((weight, i) => (sum += weight * picture[line * width + first + i]));
      narrow[line * newWidth + column] = rounded(sum);
    });
  }
  const result = new Float32Array(3 * newHeight * newWidth);
  const down = triangle(height, newHeight);
  for (let channel = 0; channel < 3; channel++) {
    down.forEach(([first, weights], row) => {
      for (let column = 0; column < newWidth; column++) {
        let sum = 0;
        weights.forEach((weight, i) => {
          sum += weight * narrow[(channel * height + first + i) * newWidth + column];
        });
        result[(channel * newHeight + row) * newWidth + column] = rounded(sum);
      }
    });
  }
  return result;
}

// The pose picture that the network sees. look also has size, the pictures' of the dataset, zoom, by which
// those were painted larger, and frame, the size of the network's pictures.
export function paintPose(places, look) {
  const [width, height] = look.size;
  const zoomed = places.map((place) => place && place.map((value) => value * look.zoom));
  const large = paintBones(zoomed, look, width * look.zoom, height * look.zoom);
  return resized(reduced(large, width, height, look.zoom), look.size, look.frame);
}
