// The page: a video is dropped, its frames go to the student, and the maps are drawn over it.
//
// Two ways. While a video plays, each new frame joins the last 15, and whenever the student is free it answers for them:
// as many maps as the device can make. "Every frame" seeks from frame to frame instead, gives each its map as
// `tinyhd-pipe predict` does, keeps them, and then plays both in step.

import { load, WINDOW } from "./student.js";

const $ = (id) => document.getElementById(id);
const video = $("video");
const heat = $("heat").getContext("2d");
const picture = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const RAINBOW = [[0, 0, 255], [0, 200, 255], [60, 220, 60], [255, 220, 0], [255, 0, 0]]; // as predict --colours rainbow
const MOST_KEPT = 6000; // maps, 50 kB each
const PATIENCE = 1500; // ms, for a frame that may not be shown again
const SLACK = 1e-3; // s, between a time that is sought and that of a frame there

/** Maps that "Every frame" has made: time of the frame -> bytes (y, x), the brightest 255. */
export const kept = new Map();
/** The student, once it is there. */
export let student;

let frames = []; // the newest ones of what plays, scaled, oldest first
let isAnswering = false;
let isStepping = false;
const mapsRate = rate($("maps-rate"));
const videoRate = rate($("video-rate"));

// ---- The student -----------------------------------------------------------------------------------------------

async function starting() {
  $("needs-server").hidden = true;
  say("Loading the network …");
  try {
    student = await load();
    [heat.canvas.width, heat.canvas.height] = [student.width, student.height];
    $("about").textContent = `Terms of the network: ${student.facts.licence}.`;
    say("");
  } catch (error) {
    say(`The network does not load: ${error.message}`, true);
    await new Promise(() => {}); // nothing can be shown
  }
}

/** The picture that the video shows now, as RGBA. */
function pixels() {
  const { videoWidth: width, videoHeight: height } = video;
  if (picture.canvas.width !== width || picture.canvas.height !== height) {
    [picture.canvas.width, picture.canvas.height] = [width, height];
  }
  picture.drawImage(video, 0, 0);
  return picture.getImageData(0, 0, width, height);
}

function asBytes(map) {
  const most = map.reduce((one, other) => Math.max(one, other), 1e-9);
  return Uint8ClampedArray.from(map, (value) => (255 * value) / most);
}

const key = (time) => time.toFixed(4);

// ---- While it plays --------------------------------------------------------------------------------------------

function watch() {
  video.requestVideoFrameCallback((_, frame) => {
    if (!isStepping) seen(frame.mediaTime);
    watch();
  });
}

function seen(time) {
  videoRate.count();
  const there = kept.get(key(time));
  if (there) {
    draw(there);
    $("lag").textContent = "0.00 s";
    return;
  }
  frames = [...frames.slice(1 - WINDOW), student.scaled(pixels())];
  if (!isAnswering) answerLive(time);
}

async function answerLive(time) {
  isAnswering = true;
  try {
    const maps = await student.answer(frames);
    if (isStepping || !frames.length) return; // the video was changed, or stepping began
    mapsRate.count(maps.length);
    draw(asBytes(maps.at(-1)));
    $("lag").textContent = `${Math.max(0, video.currentTime - time).toFixed(2)} s`;
  } catch (error) {
    say(`The network stopped: ${error.message}`, true);
  } finally {
    isAnswering = false;
  }
}

// ---- Every frame -----------------------------------------------------------------------------------------------

/** Give every frame of the video its map, in `kept`; resolves with how many there are. */
export async function everyFrame() {
  if (video.readyState < 2) await new Promise((there) => video.addEventListener("loadeddata", there, { once: true }));
  [isStepping, frames] = [true, []];
  const whole = video.duration;
  const began = performance.now();
  $("progress").hidden = false;
  $("every").textContent = "Stop";
  video.pause();
  kept.clear();
  try {
    await answerEach(stepped(), (time) => {
      $("progress").value = time / whole;
      const left = ((performance.now() - began) / time) * (whole - time);
      say(`${kept.size} maps; ${Math.ceil(left / 1000)} s left`);
    });
    say(isStepping ? `${kept.size} frames, each with its map.` : `Stopped; the first ${kept.size} frames have maps.`);
  } catch (error) {
    say(`Stopped after ${kept.size} maps: ${error.message}`, true);
  }
  [isStepping, $("progress").hidden, $("every").textContent] = [false, true, "Every frame"];
  video.currentTime = 0;
  return kept.size;
}

/** Windows as in `predict`: the first one ends at frame 0, the others `outputs` frames apart, the last at the end. */
async function answerEach(times, report) {
  let window = [];
  let waiting = [];
  let answering = Promise.resolve(); // one window is answered while the next is looked for
  const answerWaiting = async () => {
    await answering;
    const [seen, asked] = [window, waiting];
    waiting = [];
    answering = student.answer(seen).then((maps) => {
      maps.slice(-asked.length).forEach((map, place) => kept.set(key(asked[place]), asBytes(map)));
      mapsRate.count(asked.length);
      draw(kept.get(key(asked.at(-1))));
      report(asked.at(-1));
    });
  };
  for await (const time of times) {
    window = [...window.slice(1 - WINDOW), student.scaled(pixels())];
    waiting.push(time);
    if (waiting.length === student.outputs || window.length === 1) await answerWaiting();
  }
  if (waiting.length) await answerWaiting();
  await answering;
}

/** The time of every frame, which the video then shows, found by seeking: a file does not say when its frames are. */
async function* stepped() {
  let shown = await shownAt(0, -1);
  let shortest = Infinity; // between two frames so far
  yield shown;
  for (let count = 1; count < MOST_KEPT; count++) {
    let next = shown;
    // Just behind where the next frame should begin, then on in smaller steps until there is another one.
    let step = Math.min(1.01 * shortest, 1 / 120);
    let target = shown + (shortest < Infinity ? 1.01 * shortest : step);
    for (; next <= shown; target += shortest < Infinity ? shortest / 2 : step) {
      if (target > video.duration || !isStepping) return;
      next = await shownAt(target, shown);
    }
    [shortest, shown] = [Math.min(shortest, next - shown), next];
    yield shown;
  }
  say(`The first ${MOST_KEPT} frames are done; cut a longer video.`, true);
}

/** Seek, and resolve with the time of the frame that is there; a browser that does not show a frame again says nothing
 *  for a while, and that is `before`. A frame behind `time` was on its way from the film that played until now, unless
 *  nothing follows it: then the film begins there. */
function shownAt(time, before) {
  return new Promise((resolve) => {
    let [last, asked] = [before, 0];
    const ask = () => (asked = video.requestVideoFrameCallback(shown));
    const shown = (_, frame) => {
      last = frame.mediaTime;
      if (last > time + SLACK) ask();
      else resolve(last);
    };
    const giveUp = () => {
      video.cancelVideoFrameCallback(asked);
      resolve(last);
    };
    ask();
    video.addEventListener("seeked", () => setTimeout(giveUp, PATIENCE), { once: true });
    video.currentTime = time;
  });
}

// ---- What is seen ----------------------------------------------------------------------------------------------

const COLOURS = Uint8ClampedArray.from({ length: 256 * 4 }, (_, at) => {
  const [value, channel] = [at >> 2, at & 3];
  if (channel === 3) return value; // where nobody looks the frame stays as it is
  const place = (value / 255) * (RAINBOW.length - 1);
  const [low, high] = [RAINBOW[Math.floor(place)], RAINBOW[Math.ceil(place)]];
  return low[channel] + (place % 1) * (high[channel] - low[channel]);
});

function draw(bytes) {
  const drawn = heat.createImageData(student.width, student.height);
  bytes.forEach((value, at) => drawn.data.set(COLOURS.subarray(4 * value, 4 * value + 4), 4 * at));
  heat.putImageData(drawn, 0, 0);
}

/** Lay the map over the picture, which may leave room in the video's box above and below, or beside. */
function fit() {
  const { clientWidth, clientHeight, videoWidth, videoHeight } = video;
  const scale = Math.min(clientWidth / videoWidth, clientHeight / videoHeight);
  const [width, height] = [scale * videoWidth, scale * videoHeight];
  const [left, top] = [(clientWidth - width) / 2, (clientHeight - height) / 2];
  Object.entries({ left, top, width, height }).forEach(([side, value]) => (heat.canvas.style[side] = `${value}px`));
}

/** Shows how many things happened a second, of the last two seconds. */
function rate(shown) {
  let times = [];
  return {
    count(things = 1) {
      const now = performance.now();
      times = [...times.filter(([then]) => now - then < 2000), [now, things]];
      const seconds = (now - times[0][0]) / 1000;
      const counted = times.slice(1).reduce((sum, [, of]) => sum + of, 0);
      shown.textContent = seconds > 0 ? (counted / seconds).toFixed(1) : "–";
    },
  };
}

function say(line, isWrong = false) {
  $("status").textContent = line;
  $("status").classList.toggle("wrong", isWrong);
}

// ---- What people do --------------------------------------------------------------------------------------------

/** Resolves when the student is there. */
export const ready = starting();

async function show(source, name) {
  await ready;
  URL.revokeObjectURL(video.src);
  isStepping = false;
  frames = [];
  kept.clear();
  heat.clearRect(0, 0, student.width, student.height);
  [$("drop").hidden, video.hidden, heat.canvas.hidden, $("another").hidden] = [true, false, false, false];
  const isFile = source instanceof Blob;
  [video.srcObject, video.controls, $("every").disabled] = [isFile ? null : source, isFile, !isFile];
  if (isFile) video.src = URL.createObjectURL(source);
  say(name);
  video.play().catch(() => {}); // what cannot be played says so by an event of its own
}

async function showCamera() {
  try {
    show(await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } }), "Camera");
  } catch (error) {
    say(`No camera: ${navigator.mediaDevices ? error.message : "only a page by https or from localhost may ask"}`, true);
  }
}

video.addEventListener("loadedmetadata", () => (video.videoWidth ? fit() : say("There is no picture in it.", true)));
video.addEventListener("seeking", () => isStepping || (frames = []));
video.addEventListener("error", () => {
  say("This browser does not play that file; MP4 with H.264, or WebM, is played nearly everywhere.", true);
  $("every").disabled = true;
});
new ResizeObserver(() => video.videoWidth && fit()).observe(video);

$("strength").addEventListener("input", () => (heat.canvas.style.opacity = $("strength").value / 100));
heat.canvas.style.opacity = $("strength").value / 100;
$("file").addEventListener("change", () => $("file").files.length && show($("file").files[0], $("file").files[0].name));
$("another").addEventListener("click", () => $("file").click());
$("camera").addEventListener("click", showCamera);
$("every").addEventListener("click", () => (isStepping ? (isStepping = false) : everyFrame().then(() => video.play())));
addEventListener("dragover", (event) => {
  event.preventDefault();
  $("place").classList.add("over");
});
addEventListener("dragleave", () => $("place").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  $("place").classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) show(file, file.name);
});

if (video.requestVideoFrameCallback) watch();
else say("This browser does not say when a frame is shown (requestVideoFrameCallback); use a newer one.", true);
