import { fileURLToPath } from 'node:url'

const bundleScript = fileURLToPath(new URL('bundle.js', import.meta.url))

/** The configuration of Stryker for one folder of src/services. */
export const strykerOptions = (folder, tests) => ({
  mutate: [`src/services/${folder}/**/*.ts`],
  // What is not needed by a test need not be copied.
  ignorePatterns: ['**', '!src/**', '!sandbox/**', '!test/**', 'test/mutation/**', '!*.json'],
  buildCommand: `node ${bundleScript} mutation ${tests.join(' ')}`,
  // Starts one process for each test file that reaches the mutant.
  testRunner: 'tap',
  plugins: ['@stryker-mutator/tap-runner'],
  tap: { testFiles: ['mutation/*.js'] },
  coverageAnalysis: 'perTest',
  // Tests start servers, and a small machine has two cores.
  concurrency: 1,
  disableTypeChecks: false,
  // Node finds the packages above the copy.
  symlinkNodeModules: false,
  tempDirName: '.stryker',
  logLevel: 'error',
  reporters: ['clear-text', 'html', 'progress-append-only'],
  clearTextReporter: { logTests: false, reportTests: false, allowColor: false },
  htmlReporter: { fileName: `.stryker/${folder}.html` },
  thresholds: { high: 100, low: 85, break: 85 },
})
