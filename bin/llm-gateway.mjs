#!/usr/bin/env node
/** Starts the command line, compiled if need be. */
await import('../scripts/build-if-stale.mjs');
await import('../dist/cli.js');
