// Reads maps of a store in another language, with nothing but zarrita:
//
//     node read_maps.js maps.zarr VIDEO LEVEL FIRST STOP > maps.float32
//
// Writes float32 (frame, y, x) in [0, 1], little-endian, of the stored frames from FIRST up to, not including, STOP.

import { readdir } from "node:fs/promises";
import { FileSystemStore } from "@zarrita/storage";
import * as zarr from "zarrita";

const [path, video, level, first, stop] = process.argv.slice(2);
const root = zarr.root(new FileSystemStore(path));

// What a group says of itself: the root of the whole store, a shard of the videos in it.
async function said(location) {
  return (await zarr.open.v3(location, { kind: "group" })).attrs.tinyhd;
}

// A shard that takes the place of another has a higher number, so the last one that holds a video counts.
async function find(id) {
  const numbers = (await readdir(`${path}/shards`)).filter((name) => /^\d+$/.test(name));
  for (const number of numbers.sort().reverse()) {
    const shard = root.resolve(`shards/${number}`);
    const { videos, frame_numbers } = await said(shard);
    const place = videos.id.indexOf(id);
    if (place < 0) continue;
    return { shard, frame: videos.first_frame[place], row: videos.first_row[place], runs: frame_numbers?.[place] };
  }
  throw new Error(`${id}: not in ${path}`);
}

const { every } = (await said(root)).temporal; // frames 0, every, 2 * every, ... have maps
const { shard, frame, row, runs } = await find(video);

// A frame's place among those of the video: its number, but where the shard says which numbers they have, as (first,
// step, how many) of each stretch; a number that no frame has stands before the next one that there is.
function placeOf(number) {
  const before = ([first, step, count]) => Math.min(count, Math.max(0, Math.ceil((number - first) / step)));
  return runs ? runs.map(before).reduce((sum, some) => sum + some) : Number(number);
}
const maps = await zarr.open.v3(shard.resolve(level), { kind: "array" });
const rows = [first, stop].map((wanted) => row + Math.ceil((placeOf(wanted) - frame) / every));
const codes = await zarr.get(maps, [zarr.slice(...rows), null, null]);

// zarrita leaves the codes as they lie in a chunk, frame last, and says so by their strides. Logits follow by the CF
// names, as xarray scales them, and a map is their sigmoid.
const { scale_factor, add_offset } = maps.attrs;
const [height, width] = codes.shape.slice(1);
const values = new Float32Array(codes.data.length);
for (let at = 0; at < values.length; at++) {
  const place = [Math.floor(at / (height * width)), Math.floor(at / width) % height, at % width];
  const code = codes.data[place.reduce((sum, index, axis) => sum + index * codes.stride[axis], 0)];
  values[at] = 1 / (1 + Math.exp(-(code * scale_factor + add_offset)));
}
process.stdout.write(new Uint8Array(values.buffer));
