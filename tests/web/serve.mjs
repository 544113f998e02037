// Runs ONNX graphs in onnxruntime-web under Node. One JSON line per request on stdin, one per answer on stdout:
// {"graph": path, "dims": [...], "data": base64 of float32} -> {"outputs": [{"name", "dims", "data"}]} or {"error"}.
// Arguments: a folder whose node_modules holds onnxruntime-web.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";

const ort = createRequire(join(process.argv[2], "package.json"))("onnxruntime-web");
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";
const sessions = new Map();

async function answer({ graph, dims, data }) {
  if (!sessions.has(graph)) sessions.set(graph, await ort.InferenceSession.create(readFileSync(graph)));
  const session = sessions.get(graph);
  const values = new Float32Array(new Uint8Array(Buffer.from(data, "base64")).buffer);
  const found = await session.run({ [session.inputNames[0]]: new ort.Tensor("float32", values, dims) });
  const encode = ({ data }) => Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("base64");
  return { outputs: session.outputNames.map((name) => ({ name, dims: found[name].dims, data: encode(found[name]) })) };
}

console.log(JSON.stringify({ version: ort.env.versions.web }));
for await (const line of createInterface({ input: process.stdin })) {
  try {
    console.log(JSON.stringify(await answer(JSON.parse(line))));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error) }));
  }
}
