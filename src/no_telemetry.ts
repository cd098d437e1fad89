/**
 * Imported for its effect, before onnxruntime-node: its binaries for Linux and macOS report sessions, models' names and hashes, and errors
 * to Microsoft since version 1.29 unless this variable says otherwise when they start, and keep an identifier of the machine
 * and a queue of reports in the cache folder. What a server computes is its owner's affair, so nothing is sent unless the owner sets
 * `ORT_DISABLE_TELEMETRY=0`.
 *
 * @module
 */
if (Deno.env.get("ORT_DISABLE_TELEMETRY") === undefined) Deno.env.set("ORT_DISABLE_TELEMETRY", "1");
