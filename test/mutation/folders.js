/**
 * The folders of src/services that are tested by mutation, smallest first. The tests of each are fast: a mutant that no
 * test kills runs all of them. They are in this order, because the first failure ends the run of a mutant.
 */
export const folders = {
  resilience: ['test/services/resilience/*.test.ts'],
  kyb: ['test/services/kyb/*.test.ts'],
}
