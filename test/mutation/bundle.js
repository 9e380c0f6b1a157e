import { build } from 'esbuild'

/**
 * Bundles test files with all packages, so that no TypeScript is loaded for a mutant, and a test starts in half the
 * time. Stryker runs this in its copy of the repository, after it has put the mutants in.
 */
const [outdir, ...entryPoints] = process.argv.slice(2)
await build({
  entryPoints,
  outdir,
  // In one folder below the root, where src/version.ts finds package.json.
  entryNames: '[name]',
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'esm',
  external: ['@fastify/swagger-ui'],
  banner: {
    js: "import { createRequire as requireFrom } from 'node:module'; const require = requireFrom(import.meta.url);",
  },
  logLevel: 'error',
})
