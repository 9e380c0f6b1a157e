const temporary = '.stryker'
/** As seen from Stryker's copy of the repository, which is in a folder of the temporary one. */
const bundleScript = '../../test/mutation/bundle.js'

/**
 * The configuration of Stryker for one folder of `src/services`. No kind of mutant is excluded: what survives is printed,
 * and there is room for it below 100 %.
 */
export const strykerOptions = (folder, tests) => ({
  mutate: [`src/services/${folder}/**/*.ts`],
  // What is not needed by a test need not be copied.
  ignorePatterns: ['**', '!src/**', '!sandbox/**', '!test/**', 'test/mutation/**', '!*.json'],
  buildCommand: [
    'node',
    bundleScript,
    'mutation',
    ...tests.map((name) => `test/services/${folder}/${name}.test.ts`),
  ].join(' '),
  // Starts one process for each test file that reaches the mutant.
  testRunner: 'tap',
  plugins: ['@stryker-mutator/tap-runner'],
  tap: { testFiles: tests.map((name) => `mutation/${name}.test.js`) },
  // In addition to what the tests need. After that a mutant counts as killed, so a busy machine must not get there.
  timeoutMS: 10_000,
  coverageAnalysis: 'perTest',
  // Tests start servers, and a small machine has two cores.
  concurrency: 1,
  disableTypeChecks: false,
  // Node finds the packages above the copy.
  symlinkNodeModules: false,
  tempDirName: temporary,
  cleanTempDir: 'always',
  logLevel: 'error',
  reporters: ['clear-text', 'html', 'progress-append-only'],
  clearTextReporter: { logTests: false, reportTests: false, allowColor: false },
  htmlReporter: { fileName: `${temporary}/${folder}.html` },
  thresholds: { high: 100, low: 85, break: 85 },
})
