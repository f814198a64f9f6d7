// The data in this page, and workers that run its networks.

// The bytes of a text in base64.
export function decodeBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text); // browsers of 2025 and newer
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let index = 0; index < letters.length; index++) bytes[index] = letters.charCodeAt(index);
  return bytes;
}

// The bytes of an element with gzip in base64; fails if they are damaged.
export async function unpack(id) {
  const { textContent, dataset } = document.getElementById(id);
  const stream = new Blob([decodeBase64(textContent)]).stream().pipeThrough(new DecompressionStream("gzip"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  return "interleave" in dataset ? interleave(bytes) : bytes;
}

// The first half of some bytes to even positions, the second half to odd ones; see document.py.
function interleave(bytes) {
  const half = Math.ceil(bytes.length / 2);
  return bytes.map((_, index) => bytes[(index % 2) * half + (index >> 1)]);
}

// A worker with networks; see worker.js.
export class NetworkWorker {
  // module: name of the script that runs the networks. networks: name of each by its part of this page.
  static async start(module, networks, options) {
    const worker = new NetworkWorker(await unpack("worker"));
    const message = { module: import.meta.resolve(module), options, networks: {} };
    for (const [id, name] of Object.entries(networks)) message.networks[name] = await unpack(id);
    await worker.ask({ ...message, script: await unpack("runtime"), code: await unpack("runtime-wasm") });
    return worker;
  }

  constructor(script) {
    this.worker = new Worker(URL.createObjectURL(new Blob([script], { type: "text/javascript" })));
    this.last = Promise.resolve();
  }

  // The answer to a message; one message at a time.
  ask(message, transferred = []) {
    const answer = this.last.then(() => this.#send(message, transferred));
    this.last = answer.catch(() => {});
    return answer;
  }

  #send(message, transferred) {
    return new Promise((resolve, reject) => {
      this.worker.onmessage = ({ data }) => (data.error ? reject(new Error(data.error)) : resolve(data.result));
      this.worker.onerror = ({ message: reason }) => reject(new Error(reason ?? "a worker did not start"));
      this.worker.postMessage(message, transferred);
    });
  }
}

// Generates the frames; see generation.js. Images are Float32Array of 3 x height x width.
export class VideoModel {
  // size: [width, height] of the frames; latent: the shape of z.
  static async load(shapes) {
    const networks = { "network-reference": "reference", "network-step": "step" };
    return new VideoModel(await NetworkWorker.start("generation", networks, shapes), shapes.latent);
  }

  constructor(worker, latent) {
    this.worker = worker;
    this.z = new Float32Array(latent.reduce((product, side) => product * side, 1));
  }

  // Start from a given frame and its pose.
  start(frame, pose) {
    return this.worker.ask({ frame, pose });
  }

  // One step: the following frame.
  step(pose) {
    return this.worker.ask({ pose, z: this.z }, [pose.buffer]);
  }
}
