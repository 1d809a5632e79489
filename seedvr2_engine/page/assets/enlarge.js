// Bicubic interpolation with a = -0.5, as the numbers of this page were computed with; the browser's own varies.

const kernel = (x) => {
  const d = Math.abs(x);
  if (d < 1) return (1.5 * d - 2.5) * d * d + 1;
  return d < 2 ? ((-0.5 * d + 2.5) * d - 4) * d + 2 : 0;
};

// For each of `to` places: the first of `from` samples it is made of, and their weights; wider where it shrinks.
function tapsOf(from, to) {
  const step = from / to;
  const width = Math.max(step, 1);
  return Array.from({ length: to }, (_, at) => {
    const middle = (at + 0.5) * step;
    const first = Math.max(0, Math.trunc(middle - 2 * width + 0.5));
    const last = Math.min(from, Math.trunc(middle + 2 * width + 0.5));
    const weights = [];
    for (let sample = first; sample < last; sample++) weights.push(kernel((sample - middle + 0.5) / width));
    const sum = weights.reduce((total, weight) => total + weight, 0);
    return [first, weights.map((weight) => weight / sum)];
  });
}

// Pixels (RGBA, 8 bits) of one size as those of another.
export function bicubic(pixels, [width, height], [toWidth, toHeight]) {
  const rows = new Float32Array(toWidth * height * 3);
  for (const [x, [first, weights]] of tapsOf(width, toWidth).entries()) {
    for (let y = 0; y < height; y++) {
      const target = (y * toWidth + x) * 3;
      for (let tap = 0; tap < weights.length; tap++) {
        const at = (y * width + first + tap) * 4;
        for (let c = 0; c < 3; c++) rows[target + c] += weights[tap] * pixels[at + c];
      }
    }
  }
  const result = new Uint8ClampedArray(toWidth * toHeight * 4);
  const line = new Float32Array(toWidth * 3);
  for (const [y, [first, weights]] of tapsOf(height, toHeight).entries()) {
    line.fill(0);
    for (let tap = 0; tap < weights.length; tap++) {
      const from = (first + tap) * toWidth * 3;
      for (let at = 0; at < line.length; at++) line[at] += weights[tap] * rows[from + at];
    }
    for (let x = 0; x < toWidth; x++) {
      const target = (y * toWidth + x) * 4;
      for (let c = 0; c < 3; c++) result[target + c] = line[x * 3 + c];
      result[target + 3] = 255;
    }
  }
  return result;
}
