// A student in a browser: pixels in, saliency maps out. Of use in any page; nothing here knows this one.
//
//   import { load } from "./student.js";
//   const student = await load();
//   const maps = await student.answer(frames.map((image) => student.scaled(image)));
//
// One thread, unless the page is cross-origin isolated: only then does a browser let WebAssembly have more.

import * as ort from "./ort/ort.wasm.min.mjs";

export const WINDOW = 16;

/** Fetch the network that lies beside this file. Rejects with one line where that fails. */
export async function load() {
  const beside = (name) => new URL(name, import.meta.url).href;
  ort.env.wasm.wasmPaths = beside("ort/");
  ort.env.wasm.numThreads = crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
  ort.env.wasm.proxy = true; // in a worker: the page stays alive while it computes
  const facts = await (await fetched(beside("student.json"))).json();
  const network = new Uint8Array(await (await fetched(beside("student.onnx"))).arrayBuffer());
  return new Student(await ort.InferenceSession.create(network, { executionProviders: ["wasm"] }), facts);
}

async function fetched(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${address}: ${answer.status} ${answer.statusText}`);
  return answer;
}

export class Student {
  constructor(session, facts) {
    this.session = session;
    this.facts = facts; // what the exported file says of itself
    [this.height, this.width] = facts.size;
    this.outputs = facts.window.stride; // maps of a window: 16, one for each frame, or 1, for the last
  }

  /** RGBA pixels ({width, height, data}, as ImageData) as the network wants them: float32 (3, y, x), resized, scaled. */
  scaled({ width, height, data }) {
    const [across, down] = [places(width, this.width), places(height, this.height)];
    const scaled = new Float32Array(3 * this.height * this.width);
    let at = 0;
    for (let channel = 0; channel < 3; channel++) {
      const [mean, std] = [this.facts.input.mean[channel], this.facts.input.std[channel]];
      for (const row of down) {
        const [above, below] = [4 * row.first * width + channel, 4 * row.second * width + channel];
        for (const { first, second, share } of across) {
          const upper = (1 - share) * data[above + 4 * first] + share * data[above + 4 * second];
          const lower = (1 - share) * data[below + 4 * first] + share * data[below + 4 * second];
          scaled[at++] = ((1 - row.share) * upper + row.share * lower - mean) / std;
        }
      }
    }
    return scaled;
  }

  /** Maps of up to 16 scaled frames, oldest first; where there are fewer, the first one repeats before the others.
   *  Returns float32 (y, x) in [0, 1] for each frame that is answered for: 16 or 1, the last of them always. */
  async answer(frames) {
    const size = this.height * this.width;
    const clip = new Float32Array(3 * WINDOW * size);
    for (let place = 0; place < WINDOW; place++) {
      const frame = frames[Math.max(0, frames.length - WINDOW + place)];
      for (let channel = 0; channel < 3; channel++) {
        clip.set(frame.subarray(channel * size, (channel + 1) * size), (channel * WINDOW + place) * size);
      }
    }
    const input = new ort.Tensor("float32", clip, [1, 3, WINDOW, this.height, this.width]);
    const { final } = await this.session.run({ [this.facts.input.name]: input });
    return Array.from({ length: this.outputs }, (_, map) => final.data.slice(map * size, (map + 1) * size));
  }
}

/** For each place of a row of `to` pixels the two of `from` that it lies between, and how far along; torch's bilinear,
 *  half-pixel centres, without antialiasing. */
function places(from, to) {
  return Array.from({ length: to }, (_, at) => {
    const place = Math.max(0, ((at + 0.5) * from) / to - 0.5);
    const first = Math.min(Math.floor(place), from - 1);
    return { first, second: Math.min(first + 1, from - 1), share: place - first };
  });
}
