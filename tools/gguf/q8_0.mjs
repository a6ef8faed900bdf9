const BLOCK = 32;
const BLOCK_BYTES = 2 + BLOCK;

/** float32 values, a multiple of 32 of them, as Q8_0 blocks: a binary16 scale of max|x| / 127 and 32 int8. */
export function quantizeQ8_0(values) {
  const out = Buffer.alloc((values.length / BLOCK) * BLOCK_BYTES);
  for (let block = 0; block * BLOCK < values.length; block++) {
    const at = block * BLOCK_BYTES;
    const part = values.subarray(block * BLOCK, (block + 1) * BLOCK);
    const scale = part.reduce((max, x) => Math.max(max, Math.abs(x)), 0) / 127;
    out.writeUInt16LE(halfBits(scale), at);
    if (scale > 0) part.forEach((x, i) => out.writeInt8(Math.round(x / scale), at + 2 + i));
  }
  return out;
}

/** A non-negative number as IEEE binary16, rounded to nearest, ties to even. */
function halfBits(value) {
  if (value >= 65520) return 0x7c00;
  const exponent = Math.max(Math.floor(Math.log2(value)), -14);
  const fraction = value / 2 ** (exponent - 10); // in units of the last place, below 2048
  const floor = Math.floor(fraction);
  const rest = fraction - floor;
  const rounded = floor + (rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? 1 : 0);
  // A normal number's leading bit adds one to the exponent field, and rounding up to 2048 carries into it.
  return ((exponent + 14) << 10) + rounded;
}
