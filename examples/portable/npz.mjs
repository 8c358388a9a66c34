// Reads numpy's .npz files: a zip archive of .npy files.
//
// The surprising fact: sizes are read from the archive's directory at its end, since numpy leaves them out of the entries'
// own headers.

import { inflateRawSync } from "node:zlib";

const ARRAYS = { "<f4": Float32Array, "|u1": Uint8Array };

/** Arrays by name, each { data, shape }; `content` is a Buffer. */
export function readNpz(content) {
  const end = content.lastIndexOf("PK\x05\x06", undefined, "latin1");
  if (end < 0) throw new Error("no .npz file, or only part of one; copy it again");
  const arrays = {};
  let at = content.readUInt32LE(end + 16);
  for (let left = content.readUInt16LE(end + 10); left > 0; left--) {
    const [nameLength, extraLength, commentLength] = [28, 30, 32].map((field) => content.readUInt16LE(at + field));
    const name = content.toString("utf8", at + 46, at + 46 + nameLength);
    const method = content.readUInt16LE(at + 10);
    const packed = entry(content, content.readUInt32LE(at + 42), content.readUInt32LE(at + 20));
    if (name.endsWith(".npy")) arrays[name.slice(0, -4)] = readNpy(method === 0 ? packed : inflateRawSync(packed));
    at += 46 + nameLength + extraLength + commentLength;
  }
  return arrays;
}

function entry(content, at, size) {
  const start = at + 30 + content.readUInt16LE(at + 26) + content.readUInt16LE(at + 28);
  return content.subarray(start, start + size);
}

function readNpy(content) {
  const [headerLength, start] = content[6] === 1 ? [content.readUInt16LE(8), 10] : [content.readUInt32LE(8), 12];
  const header = content.toString("latin1", start, start + headerLength);
  const [, type] = header.match(/'descr': '([^']+)'/);
  const shape = header.match(/'shape': \(([^)]*)\)/)[1].match(/\d+/g)?.map(Number) ?? [];
  if (!(type in ARRAYS) || header.includes("'fortran_order': True")) {
    throw new Error(`an array of ${type}; only ${Object.keys(ARRAYS).join(", ")} in row order are read`);
  }
  const bytes = Uint8Array.from(content.subarray(start + headerLength)); // copied, so that it is aligned
  return { data: new ARRAYS[type](bytes.buffer), shape };
}
