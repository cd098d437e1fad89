import { createCpuOps } from "../../src/tucker/cpu_ops.ts";
import { opsContract } from "./ops_contract.ts";

opsContract("CPU", createCpuOps);
