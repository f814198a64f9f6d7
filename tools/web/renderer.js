// The pose image: a coloured skeleton on white, drawn as in the training data.
// Images are Float32Array of 3 x height x width, in [0, 1].

const clamp = (value) => Math.min(1, Math.max(0, value));

// Keypoints are [x, y] of each joint, or null where unknown.
// style: {bones: [{start, end, color, width}], thickness}; thickness as a fraction of the height.
export function drawBones(keypoints, style, width, height) {
  const image = new Float32Array(3 * width * height).fill(1);
  for (const bone of style.bones) {
    const start = keypoints[bone.start];
    const end = keypoints[bone.end];
    if (start && end) {
      drawLine(image, width, height, start, end, (style.thickness * height * bone.width) / 2, bone.color);
    }
  }
  return image;
}

// An antialiased line with round ends.
function drawLine(image, width, height, [x, y], [endX, endY], half, color) {
  const [acrossX, acrossY] = [endX - x, endY - y];
  const square = Math.max(acrossX ** 2 + acrossY ** 2, 1e-6);
  const left = Math.max(0, Math.trunc(Math.min(x, endX) - half - 1));
  const top = Math.max(0, Math.trunc(Math.min(y, endY) - half - 1));
  const right = Math.min(width, Math.trunc(Math.max(x, endX) + half + 2));
  const bottom = Math.min(height, Math.trunc(Math.max(y, endY) + half + 2));
  for (let row = top; row < bottom; row++) {
    for (let column = left; column < right; column++) {
      const [dx, dy] = [column + 0.5 - x, row + 0.5 - y];
      const along = clamp((dx * acrossX + dy * acrossY) / square);
      const distance = Math.hypot(dx - along * acrossX, dy - along * acrossY) - half;
      const coverage = clamp(0.5 - distance);
      for (let channel = 0; channel < 3; channel++) {
        const index = (channel * height + row) * width + column;
        image[index] += coverage * (color[channel] - image[index]);
      }
    }
  }
}

const quantize = (value) => Math.floor(clamp(value) * 255 + 0.5) / 255;

// The mean over squares of zoom x zoom pixels, quantized to 8 bits.
function downsample(image, width, height, zoom) {
  const result = new Float32Array(3 * width * height);
  for (let line = 0; line < 3 * height; line++) {
    for (let column = 0; column < width; column++) {
      let sum = 0;
      for (let i = 0; i < zoom; i++) {
        for (let j = 0; j < zoom; j++) {
          sum += image[(line * zoom + i) * width * zoom + column * zoom + j];
        }
      }
      result[line * width + column] = quantize(sum / zoom ** 2);
    }
  }
  return result;
}

// Triangle filter weights for each position of the result: [first source, weights].
function triangleWeights(from, to) {
  const scale = from / to;
  const reach = Math.max(1, scale);
  return Array.from({ length: to }, (_, index) => {
    const center = (index + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - reach + 0.5));
    const last = Math.min(from, Math.trunc(center + reach + 0.5));
    const weights = [];
    for (let source = first; source < last; source++) {
      weights.push(Math.max(0, 1 - Math.abs((source + 0.5 - center) / reach)));
    }
    const sum = weights.reduce((total, weight) => total + weight, 0);
    return [first, weights.map((weight) => weight / sum)];
  });
}

// An image in another size, with both passes quantized to 8 bits, as in Python.
export function resize(image, [width, height], [newWidth, newHeight]) {
  if (width === newWidth && height === newHeight) return image;
  const narrow = new Float32Array(3 * height * newWidth);
  const across = triangleWeights(width, newWidth);
  for (let line = 0; line < 3 * height; line++) {
    across.forEach(([first, weights], column) => {
      let sum = 0;
      weights.forEach((weight, i) => (sum += weight * image[line * width + first + i]));
      narrow[line * newWidth + column] = quantize(sum);
    });
  }
  const result = new Float32Array(3 * newHeight * newWidth);
  const down = triangleWeights(height, newHeight);
  for (let channel = 0; channel < 3; channel++) {
    down.forEach(([first, weights], row) => {
      for (let column = 0; column < newWidth; column++) {
        let sum = 0;
        weights.forEach((weight, i) => {
          sum += weight * narrow[(channel * height + first + i) * newWidth + column];
        });
        result[(channel * newHeight + row) * newWidth + column] = quantize(sum);
      }
    });
  }
  return result;
}

// The pose image for the network. style also has size (of the dataset's images), zoom (their
// supersampling factor) and frameSize (of the network's images).
export function renderPose(keypoints, style) {
  const [width, height] = style.size;
  const zoomed = keypoints.map((point) => point && point.map((value) => value * style.zoom));
  const large = drawBones(zoomed, style, width * style.zoom, height * style.zoom);
  return resize(downsample(large, width, height, style.zoom), style.size, style.frameSize);
}
