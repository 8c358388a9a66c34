// Labels of a clip from a bundle, with ONNX Runtime and nothing of Zorro AV.
//
//     node classify.mjs BUNDLE --sound sound.wav --frames frames.rgb --fps 25
//     node classify.mjs BUNDLE --self-test
//
// BUNDLE is a folder NAME/VERSION with bundle.json. README.md says how FFmpeg makes the two files out of a clip.

import { readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { parseArgs } from "node:util";

import * as ort from "onnxruntime-node";

import { cutWindows, logMel, weightOf } from "./front_end.mjs";
import { readNpz } from "./npz.mjs";

const CPU = "CPUExecutionProvider";
const MAX_BATCH_SIZE = 8;
const MAX_AMPLITUDE = 8; // of full scale 1; anything beyond is damage
const MAX_LOG_MEL_ERROR = 1e-3;
const SCORES = { softmax: softmaxScores, sigmoid: sigmoidScores }; // by the word in bundle.json
const STREAM_OF = { audio: "audio", video: "video", fused: "fusion" }; // the name that an answer has in the outputs

/** What bundle.json says, for one variant; without one, that which its table gives to the CPU. */
function readBundle(path, variant) {
  const manifest = JSON.parse(readFileSync(join(path, "bundle.json"), "utf8"));
  let chosen = manifest; // schema 1: one variant, which has no name
  if (manifest.variants !== undefined) {
    const name = variant ?? manifest.variant_of[CPU] ?? manifest.variant_of["*"];
    chosen = manifest.variants[name];
    if (chosen === undefined) {
      throw new Error(`--variant ${name}: the bundle has ${Object.keys(manifest.variants).join(", ")}`);
    }
  } else if (variant !== undefined) {
    throw new Error(`--variant ${variant}: the bundle has no variants; leave it out`);
  }
  const { clip_spec: spec, labels, scores = "softmax", decision = {} } = manifest;
  if (!Object.hasOwn(SCORES, scores)) {
    throw new Error(`${path} has scores=${scores}, known here are ${Object.keys(SCORES).join(", ")}; copy a newer example`);
  }
  const graphs = Object.entries(chosen.graphs).map(([name, graph]) => [name, join(path, graph.file)]);
  const maxAbsError = chosen.tolerance?.max_abs_error ?? manifest.golden.tolerance;
  return { path, spec, labels, scores, decision, graphs: Object.fromEntries(graphs), maxAbsError };
}

/** Mono samples of a WAV file: the mean of all channels. */
function readWav(path, sampleRate) {
  const content = readFileSync(path);
  if (content.toString("latin1", 0, 4) !== "RIFF" || content.toString("latin1", 8, 12) !== "WAVE") {
    throw new Error(`${path} is no WAV file; make one with FFmpeg, as README.md says`);
  }
  const chunks = {};
  for (let at = 12; at + 8 <= content.length; ) {
    const size = content.readUInt32LE(at + 4);
    chunks[content.toString("latin1", at, at + 4)] = content.subarray(at + 8, at + 8 + size);
    at += 8 + size + (size % 2);
  }
  const { "fmt ": format, data } = chunks;
  if (!(format?.length >= 16) || data === undefined) {
    throw new Error(`${path} has no format or no samples; is the file complete?`);
  }
  const [numChannels, rate, bits] = [format.readUInt16LE(2), format.readUInt32LE(4), format.readUInt16LE(14)];
  let tag = format.readUInt16LE(0);
  if (tag === 0xfffe && format.length >= 26) tag = format.readUInt16LE(24); // extensible: the start of a longer tag
  const read = {
    "1,16": (at) => data.readInt16LE(at) / 2 ** 15,
    "1,32": (at) => data.readInt32LE(at) / 2 ** 31,
    "3,32": (at) => data.readFloatLE(at),
  }[`${tag},${bits}`];
  if (rate !== sampleRate || read === undefined) {
    throw new Error(`${path} has ${rate} Hz and ${bits} bits, format ${tag}; make it with -ar ${sampleRate} -c:a pcm_f32le`);
  }
  const step = bits / 8;
  return Float32Array.from({ length: Math.floor(data.length / step / numChannels) }, (_, i) => {
    let sum = 0;
    for (let channel = 0; channel < numChannels; channel++) {
      const sample = read((i * numChannels + channel) * step);
      sum += Math.abs(sample) < 1e6 ? sample : 0; // false for NaN
    }
    return Math.min(MAX_AMPLITUDE, Math.max(-MAX_AMPLITUDE, sum / numChannels));
  });
}

/** Raw RGB frames, each a Uint8Array. */
function readFrames(path, frameSize) {
  const content = readFileSync(path);
  const size = frameSize * frameSize * 3;
  if (content.length % size !== 0) {
    throw new Error(`${path} holds no whole number of frames of ${frameSize}x${frameSize} pixels; see README.md`);
  }
  return Array.from({ length: content.length / size }, (_, i) => content.subarray(i * size, (i + 1) * size));
}

/** Outputs by name, each an array of one Float32Array per window; `inputs` are by name { items, shape }. */
async function runGraph(graph, inputs) {
  const session = await ort.InferenceSession.create(graph); // the weights lie beside it
  const outputs = Object.fromEntries(session.outputNames.map((name) => [name, []]));
  const count = Object.values(inputs)[0].items.length;
  for (let first = 0; first < count; first += MAX_BATCH_SIZE) {
    const feeds = {};
    for (const [name, { items, shape }] of Object.entries(inputs)) {
      feeds[name] = tensor(items.slice(first, first + MAX_BATCH_SIZE), shape);
    }
    const answer = await session.run(feeds);
    for (const [name, { data, dims }] of Object.entries(answer)) {
      for (let i = 0; i < dims[0]; i++) outputs[name].push(data.slice(i * dims[1], (i + 1) * dims[1]));
    }
  }
  return outputs;
}

function tensor(items, shape) {
  const data = new items[0].constructor(items.length * items[0].length);
  items.forEach((item, i) => data.set(item, i * item.length));
  return new ort.Tensor(data instanceof Float32Array ? "float32" : "uint8", data, [items.length, ...shape]);
}

/** The best labels for the whole clip, by stream: audio, video and fused, or the one that there is. */
async function classify(bundle, windows, topK) {
  const { spec } = bundle;
  const shapes = {
    audio: [spec.num_mel_frames, spec.num_mel_bins],
    video: [spec.num_video_frames, spec.frame_size, spec.frame_size, 3],
  };
  const present = Object.keys(shapes).filter((name) => windows[0][name] !== null);
  const inputs = present.map((name) => [name, { items: windows.map((window) => window[name]), shape: shapes[name] }]);
  const graph = present.length === 2 ? "fused" : present[0];
  const outputs = await runGraph(bundle.graphs[graph], Object.fromEntries(inputs));
  const streams = graph === "fused" ? Object.keys(STREAM_OF) : [graph];
  return Object.fromEntries(
    streams.map((stream) => {
      const weights = windows.map((window) => weightOf(window, stream));
      const scores = SCORES[bundle.scores](outputs[`${STREAM_OF[stream]}_logits`], weights);
      return [stream, bestLabels(bundle, stream, scores, topK)];
    }),
  );
}

/** Mean over windows, weighted by seconds of material; the plain mean where there is none. */
function pool(values, weights) {
  const used = weights.some((weight) => weight > 0) ? weights : weights.map(() => 1);
  const total = used.reduce((sum, weight) => sum + weight, 0);
  return Array.from(values[0], (_, i) => values.reduce((sum, row, w) => sum + row[i] * used[w], 0) / total);
}

/** Probabilities for the whole clip, of labels that compete: the softmax of the mean over windows. */
function softmaxScores(logits, weights) {
  const mean = pool(logits, weights);
  const largest = Math.max(...mean);
  const exps = mean.map((logit) => Math.exp(logit - largest));
  const total = exps.reduce((sum, value) => sum + value, 0);
  return exps.map((value) => value / total);
}

/** Probabilities for the whole clip, of labels that stand for themselves: the mean over windows of their sigmoids. */
function sigmoidScores(logits, weights) {
  const each = logits.map((row) => Array.from(row, (logit) => 1 / (1 + Math.exp(-logit))));
  return pool(each, weights);
}

/** The `topK` labels with the highest probability; none, if there is nothing the stream is sure of. */
function bestLabels({ labels, decision }, stream, scores, topK) {
  const every = stream === "fused" || !decision.known_labels_only;
  const least = decision.threshold?.[stream] ?? 0;
  const scored = scores.map((score, i) => ({ id: labels[i].id, label: labels[i].label, score }));
  const known = scored.filter((_, i) => every || labels[i].modalities.includes(stream));
  const best = known.sort((a, b) => b.score - a.score).slice(0, topK);
  return best.filter(({ score }) => score >= least);
}

/** Largest error of each graph's answers to the golden clips. */
async function selfTest(bundle) {
  const [inputs, expected] = ["inputs", "outputs"].map((name) => golden(bundle, name));
  const errors = {};
  for (const [graph, path] of Object.entries(bundle.graphs)) {
    const names = graph === "fused" ? ["audio", "video"] : [graph];
    const outputs = await runGraph(path, Object.fromEntries(names.map((name) => [name, rows(inputs[name])])));
    errors[graph] = Math.max(
      ...Object.entries(outputs).map(([name, got]) => largestError(got, rows(expected[`${graph}.${name}`]).items)),
    );
    if (!(errors[graph] <= bundle.maxAbsError)) { // so written, NaN fails
      throw new Error(
        `${basename(path)} is off by ${errors[graph]} on the golden clips, allowed are ${bundle.maxAbsError}; ` +
          "copy the bundle again, or use another ONNX Runtime",
      );
    }
  }
  return errors;
}

/** Largest error of the log-mel spectrogram of the first golden clip, whose sound is a chirp. */
function frontEndError(bundle) {
  const { spec } = bundle;
  const chirp = Float32Array.from({ length: spec.num_mel_frames * spec.hop_length }, (_, n) => {
    const t = n / spec.sample_rate;
    return 0.5 * Math.sin(2 * Math.PI * (100 * t + 300 * t ** 2));
  });
  const error = largestError([logMel(chirp, spec)], [rows(golden(bundle, "inputs").audio).items[0]]);
  if (!(error <= MAX_LOG_MEL_ERROR)) {
    throw new Error(`log-mel is off by ${error} on the golden chirp, allowed are ${MAX_LOG_MEL_ERROR}`);
  }
  return error;
}

function golden(bundle, name) {
  return readNpz(readFileSync(join(bundle.path, "golden", `${name}.npz`)));
}

/** An array from an .npz file as one item for each clip. */
function rows({ data, shape }) {
  const size = data.length / shape[0];
  const items = Array.from({ length: shape[0] }, (_, i) => data.subarray(i * size, (i + 1) * size));
  return { items, shape: shape.slice(1) };
}

function largestError(got, wanted) {
  let worst = got.length === wanted.length ? 0 : NaN; // NaN stays
  got.forEach((row, i) => row.forEach((value, j) => (worst = Math.max(worst, Math.abs(value - wanted[i][j])))));
  return worst;
}

function rateOf(text) {
  const [frames, seconds = "1"] = text.split("/");
  return Number(frames) / Number(seconds);
}

async function main() {
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    options: {
      sound: { type: "string" }, // WAV file at the bundle's sample rate, any channels
      frames: { type: "string" }, // raw RGB frames of the bundle's frame size
      fps: { type: "string", default: "0" }, // frames per second, as 25 or 30000/1001
      "top-k": { type: "string", default: "5" }, // how many labels
      variant: { type: "string" }, // which of the bundle's; default the CPU's
      "self-test": { type: "boolean", default: false }, // answer the bundle's golden clips instead
    },
  });
  const [fps, topK] = [rateOf(values.fps), Number(values["top-k"])];
  if (positionals.length !== 1) throw new Error("give one folder NAME/VERSION with bundle.json");
  if (values.frames !== undefined && !(fps > 0)) throw new Error("--frames needs --fps, the rate that they were made with");
  if (!(Number.isInteger(topK) && topK > 0)) throw new Error(`--top-k ${values["top-k"]}: ask for at least 1 label`);
  const bundle = readBundle(positionals[0], values.variant);
  if (values["self-test"]) {
    return { max_abs_error: await selfTest(bundle), allowed: bundle.maxAbsError, log_mel: frontEndError(bundle) };
  }
  const { sample_rate: sampleRate, frame_size: frameSize } = bundle.spec;
  const waveform = values.sound === undefined ? null : readWav(values.sound, sampleRate);
  const frames = values.frames === undefined ? null : readFrames(values.frames, frameSize);
  return classify(bundle, cutWindows(bundle.spec, { waveform, frames, fps }), topK);
}

try {
  console.log(JSON.stringify(await main(), null, 1));
} catch (error) {
  console.error(`classify: ${error.message}`);
  process.exitCode = 1;
}
