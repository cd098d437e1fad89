/**
 * The `--help` texts, made from the table of options.
 *
 * @module
 */
import { optionsOf, type OptionSpec, type TaskName, TASKS, variableName } from "./options.ts";

const WIDTH = 100;
const INDENT = 6;

const TASK_SUMMARIES: Readonly<Record<TaskName, string>> = {
  start: "Compress a model's attention by a Tucker decomposition, then serve it over HTTP.",
  compress: "Compress a model's attention and write a model folder that any ONNX Runtime loads.",
  spectrum: "Print the singular values of each layer's weight tensor, and error against ranks.",
  eval: "Measure accuracy and loss on a data set, before and after compression.",
};

const EXAMPLES: Readonly<Record<TaskName, readonly string[]>> = {
  start: [
    "deno task start",
    "deno task start --model ./bert-squad --ranks 256,32,2 --port 9000",
    "TUCKERD_RATIO=6 PORT=80 TUCKERD_ADMIN_KEY=… deno task start --host 0.0.0.0",
  ],
  compress: [
    "deno task compress --model ./bert-squad --out ./bert-squad-small --ratio 4",
    "deno task compress --model ./bert-squad --out ./dense --energy 0.9 --execution dense --json",
    "deno task compress --model ./bert --out ./laser --mode laser --laser-matrices ffn --laser-rate 8",
  ],
  spectrum: [
    "deno task spectrum --model ./bert-squad",
    "deno task spectrum --model ./bert-squad --svg spectrum.svg",
    "deno task spectrum --model ./bert-squad --json > spectrum.json",
  ],
  eval: ["deno task eval --model ./bert-squad --dataset squad.json --ranks 256,32,2"],
};

const DEBUG_LADDER = [
  "DEBUG=0  what a user needs to know (default)",
  "DEBUG=1  and a summary of each step",
  "DEBUG=2  and each kernel as it runs, compile times, stack traces",
  "DEBUG=3  and WGSL sources",
];

/** The text of `--help`: of one task, or of the program where no task is named. */
export function helpText(task?: TaskName): string {
  return task === undefined ? programHelp() : taskHelp(task);
}

function programHelp(): string {
  return [
    "tuckerd compresses a transformer's attention at start, and serves it smaller and faster.",
    "",
    "Usage: deno task TASK [options]",
    "",
    "Tasks:",
    ...TASKS.map((task) => `  ${task.padEnd(10)}${TASK_SUMMARIES[task]}`),
    "",
    "`deno task TASK --help` lists the options of a task, `--version` prints the version.",
  ].join("\n");
}

function taskHelp(task: TaskName): string {
  const options = optionsOf(task);
  return [
    TASK_SUMMARIES[task],
    "",
    `Usage: deno task ${task} [options]`,
    "",
    "Options:",
    ...options.filter(([, spec]) => spec.secret === undefined).flatMap(([name, spec]) =>
      entry(optionTitle(name, spec), spec)
    ),
    ...entry("-h, --help", { help: "Print this text." }),
    ...entry("--version", { help: "Print the version." }),
    "",
    "Environment:",
    ...wrap(
      `Every option is also a variable: ${variableName("model")} for --model, ${
        variableName("cache-dir")
      } for --cache-dir. ` +
        "An option counts before its variable, an empty variable counts as not set.",
      2,
    ),
    ...options.filter(([, spec]) => spec.secret).flatMap(([name, spec]) => entry(variableName(name), spec)),
    ...entry("DEBUG", { help: "How much goes to stderr:" }),
    ...DEBUG_LADDER.map((line) => " ".repeat(INDENT) + line),
    ...entry("ORT_DISABLE_TELEMETRY", { help: "0 lets ONNX Runtime report to its makers.", defaultText: "1" }),
    "",
    EXAMPLES[task].length === 1 ? "Example:" : "Examples:",
    ...EXAMPLES[task].map((line) => `  ${line}`),
    "",
    "Exit status: 0 on success, 1 on a failure named in one line on stderr, 2 on wrong usage.",
  ].join("\n");
}

function optionTitle(name: string, spec: OptionSpec): string {
  return spec.placeholder === undefined ? `--[no-]${name}` : `--${name} ${spec.placeholder}`;
}

function entry(title: string, spec: { readonly help: string; readonly defaultText?: string }): string[] {
  const help = spec.defaultText === undefined ? spec.help : `${spec.help} Default: ${spec.defaultText}.`;
  return [`  ${title}`, ...wrap(help, INDENT)];
}

function wrap(text: string, indent: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && indent + line.length + 1 + word.length > WIDTH) {
      lines.push(" ".repeat(indent) + line);
      line = "";
    }
    line = line === "" ? word : `${line} ${word}`;
  }
  return [...lines, " ".repeat(indent) + line];
}
