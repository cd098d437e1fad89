/**
 * How many threads a computation may use. ONNX Runtime counts the machine's cores and ignores a container's quota, which
 * makes it spin against its own limit; so the quota is read here.
 *
 * @module
 */

/** Where cgroup v2 and v1 keep the quota of the process's own group. */
const QUOTA_FILES = {
  v2: "/sys/fs/cgroup/cpu.max",
  v1Quota: "/sys/fs/cgroup/cpu/cpu.cfs_quota_us",
  v1Period: "/sys/fs/cgroup/cpu/cpu.cfs_period_us",
} as const;

/**
 * Cores worth of CPU time that `cpu.max` grants: `"150000 100000"` gives 1.5. Undefined for `max` and for text that isn't
 * a quota.
 */
export function parseCpuMax(content: string): number | undefined {
  const [quota, period] = content.trim().split(/\s+/).map(Number);
  if (quota === undefined || period === undefined || !(quota > 0) || !(period > 0)) return undefined;
  return quota / period;
}

/** Threads for compute-bound work: the machine's cores, or fewer where a cgroup limits them; at least 1. */
export function availableThreads(): number {
  const quota = parseCpuMax(readIfThere(QUOTA_FILES.v2) ?? v1Quota() ?? "");
  const cores = navigator.hardwareConcurrency;
  return Math.max(1, Math.min(cores, Math.ceil(quota ?? cores)));
}

function v1Quota(): string | undefined {
  const quota = readIfThere(QUOTA_FILES.v1Quota);
  const period = readIfThere(QUOTA_FILES.v1Period);
  return quota === undefined || period === undefined ? undefined : `${quota} ${period}`;
}

function readIfThere(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return undefined; // no cgroup of this version, or not readable: no quota is known
  }
}
