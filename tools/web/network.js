// The networks, run by onnxruntime-web: the next frame from the last one, a pose picture and z.

// The bytes that a text in base64 stands for.
export function decoded(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text); // browsers of 2025 and newer
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let index = 0; index < letters.length; index++) bytes[index] = letters.charCodeAt(index);
  return bytes;
}

// The bytes of an element that holds gzip in base64; fails if they are damaged.
export async function unpacked(id) {
  const bytes = decoded(document.getElementById(id).textContent);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

export async function loadRuntime() {
  const script = new Blob([await unpacked("runtime")], { type: "text/javascript" });
  const address = URL.createObjectURL(script);
  const ort = await import(address);
  URL.revokeObjectURL(address);
  ort.env.wasm.numThreads = 1; // more need headers that a file does not have
  ort.env.wasm.wasmBinary = (await unpacked("runtime-wasm")).buffer;
  return ort;
}

// One person in one room, painted frame by frame; each frame comes from the last one.
export class Dancer {
  // size: [width, height]; latent: the shape of z.
  static async load(ort, { size, latent }) {
    const sessions = [];
    for (const id of ["network-first", "network-step"]) {
      sessions.push(await ort.InferenceSession.create(await unpacked(id), { executionProviders: ["wasm"] }));
    }
    return new Dancer(ort, sessions, size, latent);
  }

  constructor(ort, [first, step], [width, height], latent) {
    this.ort = ort;
    this.sessions = { first, step };
    this.shape = [1, 3, height, width];
    this.latent = [1, ...latent];
    this.z = new Float32Array(latent.reduce((product, side) => product * side, 1));
  }

  #picture(values) {
    return new this.ort.Tensor("float32", values, this.shape);
  }

  // Begin again from a given frame and its pose, each Float32Array of 3 x height x width.
  async begin(frame, pose) {
    this.first = this.#picture(frame);
    this.frame = this.first;
    this.known = (await this.sessions.first.run({ first: this.first, first_pose: this.#picture(pose) })).known;
  }

  // The next frame, Float32Array of 3 x height x width.
  async next(pose) {
    const inputs = {
      last: this.frame,
      first: this.first,
      known: this.known,
      pose: this.#picture(pose),
      z: new this.ort.Tensor("float32", this.z, this.latent),
    };
    this.frame = (await this.sessions.step.run(inputs)).next;
    return this.frame.data;
  }
}
