import { createGpuOps } from "../../src/tucker/gpu_ops.ts";
import { skipGpu } from "../gpu/adapter.ts";
import { opsContract } from "./ops_contract.ts";

if (!skipGpu) {
  opsContract("webgpu", () => createGpuOps({ allowFallbackAdapter: true }));
}
