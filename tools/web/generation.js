// Runs in a worker: autoregressive generation, conditioned on the previous and the reference frame.

// Messages: {frame, pose} starts from a frame and its pose; {pose, z} gives the following frame. Images are
// Float32Array of 3 x height x width.
export function create(ort, { reference, step }, { size: [width, height], latent }) {
  const image = (values) => new ort.Tensor("float32", values, [1, 3, height, width]);
  let state;
  return async ({ frame, pose, z }) => {
    if (frame) {
      const start = image(frame);
      const { features } = await reference.run({ reference: start, reference_pose: image(pose) });
      state = { previous: start, reference: start, features };
      return null;
    }
    const inputs = { ...state, pose: image(pose), z: new ort.Tensor("float32", z, [1, ...latent]) };
    state.previous = (await step.run(inputs)).next;
    return state.previous.data;
  };
}
