// A worker that runs networks with onnxruntime-web, off the main thread. A classic script: browsers refuse
// module workers on file:// pages.
//
// The first message has the runtime (`script` and `code`), `networks` (ONNX files by name), `options` and `module`: the
// address of a script whose `create(ort, networks, options)` returns the function that answers all further messages.

let answer;

async function start({ script, code, networks, module, options }) {
  const address = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  const ort = await import(address);
  URL.revokeObjectURL(address);
  ort.env.wasm.numThreads = 1; // more threads need cross-origin isolation
  ort.env.wasm.wasmBinary = code.buffer;
  const open = (content) => ort.InferenceSession.create(content, { executionProviders: ["wasm"] });
  const sessions = {};
  for (const [name, content] of Object.entries(networks)) sessions[name] = await open(content);
  return (await import(module)).create(ort, sessions, options);
}

onmessage = async ({ data }) => {
  try {
    if (answer) postMessage({ result: await answer(data) });
    else {
      answer = await start(data);
      postMessage({});
    }
  } catch (error) {
    postMessage({ error: String(error) });
  }
};
