import { basicAuthorization } from '../../src/services/idenfy/client.js'
import type { VirtualTime } from './virtual-time.js'

/** How reading the policy fails. */
export const policyFaults = ['broken', 'missing', 'hangs'] as const
type PolicyFault = (typeof policyFaults)[number]

/** The files that all replicas read, and what was in them when. */
export function createFiles(time: VirtualTime, lifetimeSeconds: number) {
  let pair = { apiKey: 'key-0', apiSecret: 'secret' }
  const replacedAtMs = new Map<string, number>()
  let policyFault: PolicyFault | undefined
  let faultEndsAtMs = 0
  /** When the policy file was last written, broken or restored. */
  let changedAtMs = 0
  let hanging: (() => void)[] = []
  const lifetimes = [{ lifetimeSeconds, untilMs: Number.POSITIVE_INFINITY }]
  const current = () => lifetimes.at(-1) as (typeof lifetimes)[number]

  return {
    readCredentials: async () => pair,
    async readPolicy(): Promise<string> {
      if (policyFault === 'missing') throw new Error('no such file')
      if (policyFault === 'broken') return '{'
      if (policyFault === 'hangs') await new Promise<void>((resolve) => hanging.push(resolve))
      return JSON.stringify({ session: { lifetime: current().lifetimeSeconds } })
    },
    authorization: (): string => basicAuthorization(pair),
    replaceCredentials(): void {
      replacedAtMs.set(basicAuthorization(pair), time.now())
      pair = { apiKey: `key-${replacedAtMs.size}`, apiSecret: 'secret' }
    },
    /** When credentials were replaced; undefined for the current ones. */
    replacedAtMs: (authorization: string): number | undefined => replacedAtMs.get(authorization),
    writePolicy(seconds: number): void {
      // Replicas do not see it while the file cannot be read.
      changedAtMs = time.now()
      current().untilMs = Math.max(time.now(), faultEndsAtMs)
      lifetimes.push({ lifetimeSeconds: seconds, untilMs: Number.POSITIVE_INFINITY })
    },
    breakPolicy(fault: PolicyFault, forMs: number): void {
      policyFault = fault
      changedAtMs = time.now()
      faultEndsAtMs = time.now() + forMs
    },
    restorePolicy(): void {
      policyFault = undefined
      changedAtMs = time.now()
      for (const resolve of hanging) time.run(resolve)
      hanging = []
    },
    /** Whether the policy can be used since a moment; undefined while reading it hangs. */
    policy: () => ({
      isUsable: policyFault === 'hangs' ? undefined : policyFault === undefined,
      sinceMs: changedAtMs,
    }),
    /** Whether the policy was in force at or after a moment. */
    wasPolicy: (seconds: number, sinceMs: number): boolean =>
      lifetimes.some((policy) => policy.lifetimeSeconds === seconds && policy.untilMs >= sinceMs),
  }
}

export type Files = ReturnType<typeof createFiles>
