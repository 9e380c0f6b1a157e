import fc from 'fast-check'
import { type Scenario, scenario } from './scenario.js'
import { simulate } from './simulation.js'

const maxShrinkMs = 120_000

/** The scenario of a seed. It changes when the scenarios of the simulation do. */
export function scenarioOf(seed: number): Scenario {
  const [first] = fc.sample(scenario, { seed, numRuns: 1 })
  return first as Scenario
}

/** @returns which rule a scenario breaks, and how; undefined if it breaks none */
export async function brokenBy(value: Scenario, timeline?: string[]): Promise<string | undefined> {
  try {
    await simulate(value, timeline)
    return undefined
  } catch (error) {
    return (error as Error).name === 'RuleBroken' ? (error as Error).message : String((error as Error).stack)
  }
}

/** Makes a scenario that breaks a rule smaller: fewer faults, fewer clicks, simpler values. */
export async function shrink(seed: number): Promise<Scenario> {
  const property = fc.asyncProperty(scenario, async (value) => (await brokenBy(value)) === undefined)
  const { counterexample } = await fc.check(property, {
    seed,
    numRuns: 1,
    interruptAfterTimeLimit: maxShrinkMs,
  })
  return counterexample?.[0] ?? scenarioOf(seed)
}
