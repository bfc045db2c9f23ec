import { createRequire } from "node:module";

const manifest = createRequire(import.meta.url)("../package.json") as { version: string }; // our own package.json

/** This package's version. */
export const VERSION = manifest.version;
