/**
 * Where the embedded default model is.
 *
 * @module
 */

/** The model that runs where `--model` names none. */
export const DEFAULT_MODEL = new URL("../../models/tuckerd-qa", import.meta.url).pathname;
