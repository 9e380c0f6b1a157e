const maxListedFaults = 20

/** Every fault of a configuration, one line each: at most 20, then how many more. No line holds a value that could be secret. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'

  readonly faults: readonly string[]

  constructor(all: readonly string[]) {
    const listed = all.slice(0, maxListedFaults)
    if (all.length > maxListedFaults) listed.push(`and ${all.length - maxListedFaults} more`)
    super(`The configuration has ${all.length} fault(s):\n${listed.map((fault) => `  ${fault}`).join('\n')}`)
    this.faults = listed
  }
}

/** Collects faults by the name of the variable. The first fault of a variable counts. */
export function createFaults() {
  const faults = new Map<string, string>()

  function add(name: string, fault: string): void {
    if (!faults.has(name)) faults.set(name, fault)
  }

  return {
    add,
    /** Adds what `run` throws. @returns what `run` returns, or undefined */
    check<T>(name: string, run: () => T): T | undefined {
      try {
        return run()
      } catch (error) {
        add(name, (error as Error).message)
        return undefined
      }
    },
    all: faults as ReadonlyMap<string, string>,
  }
}

export type Faults = ReturnType<typeof createFaults>
