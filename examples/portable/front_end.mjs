// From samples and pictures to what the graphs read: docs/front-end.md as code, with a Fourier transform of its own.
//
// `spec` is `clip_spec` of bundle.json. The surprising fact: means and standard deviations in it are not for here, the
// graphs apply them. Six numbers may be missing, and are then those of the first bundles.

const SILENCE_RMS = 1e-3; // -60 dB of full scale
const MIN_TAIL_SECONDS = 0.25; // a last window with less material than this is left out
const TIME_TOLERANCE_SECONDS = 1e-6; // a frame that starts this much too late is still on display

/**
 * Windows that touch, from 0 s on; the last one is padded, with silence and with the last frame.
 *
 * `waveform` is a Float32Array of mono samples or null, `frames` an array of Uint8Arrays of RGB or null, `fps` their rate.
 */
export function cutWindows(spec, { waveform, frames, fps }) {
  if (waveform === null && frames === null) throw new Error("got neither sound nor frames; give one or both");
  if (waveform?.length === 0 || frames?.length === 0) {
    throw new Error("got 0 samples or 0 frames; leave out what the clip does not have");
  }
  const windows = [];
  for (;;) {
    const window = cutWindow(windows.length, spec, { waveform, frames, fps });
    const material = Math.max(window.audioSeconds, window.videoSeconds);
    if (windows.length > 0 && material < MIN_TAIL_SECONDS) return windows;
    windows.push(window);
  }
}

/** Seconds of material that `stream` (audio, video, fused) has to go by. */
export function weightOf(window, stream) {
  const heard = window.isSilent ? 0 : window.audioSeconds;
  return { audio: heard, video: window.videoSeconds, fused: Math.max(heard, window.videoSeconds) }[stream];
}

function cutWindow(index, spec, { waveform, frames, fps }) {
  const numSamples = spec.num_mel_frames * spec.hop_length;
  const window = { audio: null, video: null, audioSeconds: 0, videoSeconds: 0, isSilent: true };
  if (waveform !== null) {
    const heard = waveform.subarray(index * numSamples, (index + 1) * numSamples);
    const padded = new Float32Array(numSamples);
    padded.set(heard);
    const energy = heard.reduce((sum, sample) => sum + sample * sample, 0);
    window.audio = logMel(padded, spec);
    window.audioSeconds = heard.length / spec.sample_rate;
    window.isSilent = Math.sqrt(energy / Math.max(heard.length, 1)) < SILENCE_RMS;
  }
  if (frames !== null) {
    const start = (index * numSamples) / spec.sample_rate;
    window.video = joined(frameIndices(spec, start, frames.length, fps).map((i) => frames[i]));
    window.videoSeconds = Math.max(0, Math.min(numSamples / spec.sample_rate, frames.length / fps - start));
  }
  return window;
}

/** The frames on display at the middles of equal parts of the window that starts at `startSeconds`. */
export function frameIndices(spec, startSeconds, numFrames, fps) {
  const count = spec.num_video_frames;
  const partSeconds = (spec.num_mel_frames * spec.hop_length) / spec.sample_rate / count;
  const times = Array.from({ length: count }, (_, i) => startSeconds + (i + 0.5) * partSeconds);
  return times.map((t) => Math.min(numFrames - 1, Math.floor((t + TIME_TOLERANCE_SECONDS) * fps)));
}

/** Log-mel spectrogram of one window's samples, a Float32Array of [num_mel_frames, num_mel_bins]. */
export function logMel(waveform, spec) {
  const { window_length: length, hop_length: hop, num_mel_bins: numBins } = spec;
  const edge = Math.floor(length / 2) - (spec.first_centre ?? Math.floor(hop / 2));
  const numFrames = Math.floor(waveform.length / hop);
  const samples = preEmphasised(waveform, spec.pre_emphasis ?? 0);
  const hann = hannWindow(spec);
  const filters = melFilters(spec);
  const transform = fourier(fftLengthOf(spec));
  const frame = new Float64Array(fftLengthOf(spec)); // zeros after the window
  const logs = new Float32Array(numFrames * numBins);
  for (let f = 0; f < numFrames; f++) {
    for (let n = 0; n < length; n++) frame[n] = (samples[f * hop - edge + n] ?? 0) * hann[n]; // zeros outside
    const { re, im } = transform(frame);
    filters.forEach(({ first, weights }, bin) => {
      let power = spec.log_offset;
      weights.forEach((weight, i) => (power += weight * (re[first + i] ** 2 + im[first + i] ** 2)));
      logs[f * numBins + bin] = Math.log(power);
    });
  }
  return logs;
}

/** Each sample less a share of the one before it; the first less that share of itself. */
function preEmphasised(waveform, share) {
  return Float64Array.from(waveform, (sample, n) => sample - share * waveform[Math.max(0, n - 1)]);
}

/** Periodic and of unit energy, unless the numbers say otherwise. */
function hannWindow({ window_length: length, symmetric_window: isSymmetric = false, unit_energy: isUnit = true }) {
  const period = isSymmetric ? length - 1 : length;
  const window = Float64Array.from({ length }, (_, n) => 0.5 - 0.5 * Math.cos((2 * Math.PI * n) / period));
  if (!isUnit) return window;
  const norm = Math.sqrt(window.reduce((sum, w) => sum + w * w, 0));
  return window.map((w) => w / norm);
}

/** Triangles of height 1 on the mel scale; of each, the first FFT bin with a weight, and the weights from there on. */
function melFilters(spec) {
  const lowest = mel(spec.min_hz);
  const step = (mel(spec.max_hz) - lowest) / (spec.num_mel_bins + 1);
  const fftLength = fftLengthOf(spec);
  const numFftBins = Math.floor(fftLength / 2) + 1;
  const bins = Array.from({ length: numFftBins }, (_, k) => mel((k * spec.sample_rate) / fftLength));
  return Array.from({ length: spec.num_mel_bins }, (_, bin) => {
    const centre = lowest + (bin + 1) * step;
    const triangle = bins.map((at) => Math.max(0, 1 - Math.abs(at - centre) / step));
    const first = Math.max(0, triangle.findIndex((weight) => weight > 0));
    const end = triangle.findLastIndex((weight) => weight > 0) + 1;
    return { first, weights: Float64Array.from(triangle.slice(first, end)) };
  });
}

/** Samples of one Fourier transform. */
function fftLengthOf({ window_length: windowLength, fft_length: fftLength = windowLength }) {
  return fftLength;
}

function mel(hz) {
  return 2595 * Math.log10(1 + hz / 700);
}

/** A function from `length` real samples to their spectrum; halves while the length is even. */
function fourier(length) {
  const cos = Float64Array.from({ length }, (_, k) => Math.cos((2 * Math.PI * k) / length));
  const sin = Float64Array.from({ length }, (_, k) => Math.sin((2 * Math.PI * k) / length));
  const re = new Float64Array(length);
  const im = new Float64Array(length);

  // Spectrum of `size` samples, every stride-th from `start` on, into re and im from `to` on.
  function halve(samples, size, start, stride, to) {
    if (size % 2 === 1) {
      sumUp(samples, size, start, stride, to);
      return;
    }
    const half = size / 2;
    halve(samples, half, start, 2 * stride, to);
    halve(samples, half, start + stride, 2 * stride, to + half);
    for (let k = to, angle = 0; k < to + half; k++, angle += stride) {
      const real = re[k + half] * cos[angle] + im[k + half] * sin[angle];
      const imaginary = im[k + half] * cos[angle] - re[k + half] * sin[angle];
      re[k + half] = re[k] - real;
      im[k + half] = im[k] - imaginary;
      re[k] += real;
      im[k] += imaginary;
    }
  }

  function sumUp(samples, size, start, stride, to) {
    for (let k = 0; k < size; k++) {
      let [real, imaginary] = [0, 0];
      for (let n = 0; n < size; n++) {
        const angle = ((k * n) % size) * stride;
        real += samples[start + n * stride] * cos[angle];
        imaginary -= samples[start + n * stride] * sin[angle];
      }
      re[to + k] = real;
      im[to + k] = imaginary;
    }
  }

  return (samples) => {
    halve(samples, length, 0, 1, 0);
    return { re, im };
  };
}

function joined(parts) {
  const whole = new Uint8Array(parts.length * parts[0].length);
  parts.forEach((part, i) => whole.set(part, i * part.length));
  return whole;
}
