/**
 * What the command line can ask for, parsed and with every default but those of the compression filled in.
 *
 * @module
 */
import type { OptionValues } from "./options.ts";

/** What to compress and how far; at most one of ranks, energy and compressionRatio. What isn't given is absent. */
export interface CompressionSettings {
  readonly ranks?: readonly [number, number, number];
  readonly energy?: number;
  readonly compressionRatio?: number;
  readonly mode?: NonNullable<OptionValues["mode"]>;
  readonly algorithm?: NonNullable<OptionValues["algorithm"]>;
  readonly layout?: NonNullable<OptionValues["layout"]>;
  readonly balance?: boolean;
  /** `all`, or a list such as `0,2-5`. */
  readonly layers?: string;
  readonly budget?: NonNullable<OptionValues["budget"]>;
  /** Single layers by number. */
  readonly overrides?: NonNullable<OptionValues["overrides"]>;
  /** For mode `3d-tucker`. */
  readonly matrices?: NonNullable<OptionValues["matrices"]>;
  /** For the modes `laser` and `4d-tucker-laser`. */
  readonly laser?: {
    readonly matrices?: NonNullable<OptionValues["laser-matrices"]>;
    readonly rate?: number;
  };
}

/** Where a device is chosen: `auto` takes the best that is there and says which. */
export type DeviceChoice = "auto" | "webgpu" | "cpu";

/** Settings of the HTTP server. */
export interface ServerSettings {
  readonly host: string;
  /** 0 takes a free port. */
  readonly port: number;
  /** Whether only this machine can reach `host`. */
  readonly loopback: boolean;
  readonly apiKey?: string;
  readonly adminKey?: string;
  readonly maxBodyBytes: number;
  /** Requests that may wait for the model. */
  readonly queue: number;
  /** Rank settings held in memory. */
  readonly generations: number;
}

/** Settings that every task has. `model` is absent where the embedded default is meant. */
export interface CommonSettings {
  readonly model?: string;
  readonly device: DeviceChoice;
  readonly cacheDir: string;
}

/** `start`: compress, then serve. */
export interface StartCommand extends CommonSettings {
  readonly task: "start";
  readonly compression: CompressionSettings;
  readonly inference: DeviceChoice;
  readonly server: ServerSettings;
}

/** `compress`: write a compressed model folder. */
export interface CompressCommand extends CommonSettings {
  readonly task: "compress";
  readonly out: string;
  readonly compression: CompressionSettings;
  readonly execution: "factored" | "dense";
  readonly cache: "full" | "per-head" | "compressed";
  readonly json: boolean;
}

/** `spectrum`: singular values by layer. */
export interface SpectrumCommand extends CommonSettings {
  readonly task: "spectrum";
  readonly layers: string;
  readonly layout: NonNullable<OptionValues["layout"]>;
  readonly balance: boolean;
  /** Where a plot goes. */
  readonly svg?: string;
  readonly json: boolean;
}

/** `eval`: accuracy before and after. */
export interface EvalCommand extends CommonSettings {
  readonly task: "eval";
  readonly dataset: string;
  readonly compression: CompressionSettings;
  readonly inference: DeviceChoice;
  readonly json: boolean;
}

/** What the command line asks for. */
export type Command =
  | { readonly task: "help"; readonly text: string }
  | { readonly task: "version" }
  | StartCommand
  | CompressCommand
  | SpectrumCommand
  | EvalCommand;
