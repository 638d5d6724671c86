// Binary payloads: the head as JSON, then arrays in few bits (`web/inside/packing.py` writes them).

const READERS = {
  f4: (bytes) => new Float32Array(bytes),
  f2: (bytes) => Float32Array.from(new Uint16Array(bytes), halfToNumber),
  u4: (bytes) => new Uint32Array(bytes),
  u2: (bytes) => new Uint16Array(bytes),
  share: (bytes) => Float32Array.from(new Uint8Array(bytes), (root) => (root / 255) ** 2),
  signed: (bytes, scale) => Float32Array.from(new Int8Array(bytes), (root) => Math.sign(root) * scale * (root / 127) ** 2),
};

export function decode(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const { facts, arrays } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const read = {};
  for (const [name, array] of Object.entries(arrays)) {
    const start = 4 + length + array.offset;
    const numbers = READERS[array.coding](buffer.slice(start, start + array.bytes), array.scale);
    read[name] = { shape: array.shape, data: array.triangle ? squared(numbers, array.shape) : numbers };
  }
  return { facts, arrays: read };
}

function halfToNumber(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = (bits & 1023) / 1024;
  if (exponent === 0) return sign * 2 ** -14 * fraction;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * 2 ** (exponent - 15) * (1 + fraction);
}

// Lower triangles, row by row, as full matrices with zeros above the diagonal.
function squared(numbers, shape) {
  const size = shape.at(-1);
  const whole = new Float32Array(shape.reduce((product, side) => product * side, 1));
  let next = 0;
  for (let matrix = 0; matrix < whole.length; matrix += size * size) {
    for (let row = 0; row < size; row++) {
      for (let column = 0; column <= row; column++) whole[matrix + row * size + column] = numbers[next++];
    }
  }
  return whole;
}

// The part of an array at the first indices, as an array of the remaining axes: pick(array, layer, head).
export function pick({ shape, data }, ...indices) {
  const rest = shape.slice(indices.length);
  const size = rest.reduce((product, side) => product * side, 1);
  const start = indices.reduce((offset, index, axis) => offset * shape[axis] + index, 0) * size;
  return data.subarray(start, start + size);
}
