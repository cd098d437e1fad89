/**
 * What the machine offers: how many threads a computation may use, and whether there may be a GPU. ONNX Runtime counts the
 * machine's cores and ignores the quota of a container (cgroup), so that it starts more threads than may run and is
 * throttled; we read the quota.
 *
 * @module
 */

/** Where the limits are read; a test passes others. */
export interface ThreadSources {
  /** Text of a file, or undefined where it can't be read. */
  readonly readText: (path: string) => string | undefined;
  /** Logical cores that this process sees. */
  readonly hardwareConcurrency: number;
}

const system: ThreadSources = {
  readText(path: string): string | undefined {
    try {
      return Deno.readTextFileSync(path);
    } catch {
      return undefined; // no such limit on this system
    }
  },
  hardwareConcurrency: navigator.hardwareConcurrency,
};

/**
 * The smaller of the visible cores and the CPU quota of the control group (version 2:
 * `cpu.max`; version 1: `cpu.cfs_quota_us`), rounded down, at least 1.
 */
export function availableThreads(sources: ThreadSources = system): number {
  const quota = quotaVersion2(sources) ?? quotaVersion1(sources) ?? Infinity;
  return Math.max(1, Math.floor(Math.min(sources.hardwareConcurrency, quota)));
}

/** CPUs allowed by cgroup v2, whose `cpu.max` reads `<quota> <period>` in microseconds, or `max <period>`. */
function quotaVersion2(sources: ThreadSources): number | undefined {
  const [quota, period] = sources.readText("/sys/fs/cgroup/cpu.max")?.trim().split(/\s+/) ?? [];
  return quotient(quota, period);
}

/** CPUs allowed by cgroup v1; a quota of -1 means no limit. */
function quotaVersion1(sources: ThreadSources): number | undefined {
  return quotient(
    sources.readText("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
    sources.readText("/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
  );
}

function quotient(quota: string | undefined, period: string | undefined): number | undefined {
  const value = Number(quota) / Number(period);
  return Number.isFinite(value) && value > 0 ? value : undefined;
}

/**
 * Whether a GPU may be there: false spares the adapter request, which loads every Vulkan driver. Only Linux tells by its
 * device files; elsewhere a GPU is the rule.
 */
export function hasGpuDevice(): boolean {
  if (Deno.build.os !== "linux") return true;
  return ["/dev/dri", "/dev/nvidia0", "/dev/dxg"].some((path) => {
    try {
      Deno.statSync(path);
      return true;
    } catch {
      return false; // not there
    }
  });
}

/**
 * To be called before a GPU adapter is asked for: Vulkan's loader lets Wayland look for a display, which complains on stderr
 * where `XDG_RUNTIME_DIR` isn't set, as on servers.
 */
export function preventDisplayComplaint(): void {
  if (Deno.build.os === "linux" && !Deno.env.get("XDG_RUNTIME_DIR")) Deno.env.set("XDG_RUNTIME_DIR", "/tmp");
}
