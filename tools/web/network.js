// The networks, run by onnxruntime-web: the next frame from the previous one, a pose image and z.

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
  const bytes = decodeBase64(document.getElementById(id).textContent);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

export async function loadRuntime() {
  const script = new Blob([await unpack("runtime")], { type: "text/javascript" });
  const address = URL.createObjectURL(script);
  const ort = await import(address);
  URL.revokeObjectURL(address);
  ort.env.wasm.numThreads = 1; // more need HTTP headers
  ort.env.wasm.wasmBinary = (await unpack("runtime-wasm")).buffer;
  return ort;
}

// Autoregressive generation: each frame is conditioned on the previous one and the reference frame.
export class VideoModel {
  // size: [width, height]; latent: the shape of z.
  static async load(ort, { size, latent }) {
    const sessions = [];
    for (const id of ["network-reference", "network-step"]) {
      sessions.push(await ort.InferenceSession.create(await unpack(id), { executionProviders: ["wasm"] }));
    }
    return new VideoModel(ort, sessions, size, latent);
  }

  constructor(ort, [reference, step], [width, height], latent) {
    this.ort = ort;
    this.sessions = { reference, step };
    this.shape = [1, 3, height, width];
    this.latent = [1, ...latent];
    this.z = new Float32Array(latent.reduce((product, side) => product * side, 1));
  }

  #image(values) {
    return new this.ort.Tensor("float32", values, this.shape);
  }

  // Start from a given frame and its pose, each Float32Array of 3 x height x width.
  async start(frame, pose) {
    this.reference = this.#image(frame);
    this.frame = this.reference;
    const inputs = { reference: this.reference, reference_pose: this.#image(pose) };
    this.features = (await this.sessions.reference.run(inputs)).features;
  }

  // One step: the following frame, Float32Array of 3 x height x width.
  async step(pose) {
    const inputs = {
      previous: this.frame,
      reference: this.reference,
      features: this.features,
      pose: this.#image(pose),
      z: new this.ort.Tensor("float32", this.z, this.latent),
    };
    this.frame = (await this.sessions.step.run(inputs)).next;
    return this.frame.data;
  }
}
