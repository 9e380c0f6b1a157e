import { distance } from 'fastest-levenshtein'

/** First words of names that other programs also use. */
const commonWords = new Set(['ALLOW', 'KEEP', 'LOG', 'RATE', 'STATE', 'TRUST'])
/** What Kubernetes and Docker set for a service, for example one that is called `redis`. */
const serviceLink =
  /_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?|ENV_\w+)$/
/** Platforms set these together with `REDIS_URL`, which has the same information. */
const besideRedisUrl = /^REDIS_(HOST|PORT|PASSWORD|USER|USERNAME|TOKEN|DB|DATABASE|(CLI|PUBLIC|TLS)_URL)$/
const maxTypingErrors = 3

/** Whether the variable was set by an orchestrator to describe another service. */
export function isInjected(name: string, value: string): boolean {
  return (
    serviceLink.test(name) ||
    (name.endsWith('_PORT') && /^(tcp|udp|sctp):\/\//.test(value)) ||
    (name.endsWith('_NAME') && value.startsWith('/'))
  )
}

/**
 * Finds unknown variables that were probably meant for this service. Without this check a misspelt name would silently
 * have no effect.
 *
 * @param known all names
 * @param secret those that may also be given as `<name>_FILE`
 * @returns the faults by name, in words for the operator
 */
export function unknownVariables(
  environment: Readonly<Record<string, string | undefined>>,
  known: readonly string[],
  secret: ReadonlySet<string>,
): ReadonlyMap<string, string> {
  const accepted = [...known, ...[...secret].map((name) => `${name}_FILE`)]
  const prefixes = known.filter((name) => name.includes('_')).map(prefixOf)
  const hasRedisUrl = Boolean(environment.REDIS_URL ?? environment.REDIS_URL_FILE)
  const faults = new Map<string, string>()
  for (const [name, value = ''] of Object.entries(environment)) {
    if (accepted.includes(name) || isInjected(name, value)) continue
    if (hasRedisUrl && besideRedisUrl.test(name)) continue
    const base = name.replace(/_FILE$/, '')
    if (base !== name && known.includes(base)) {
      faults.set(name, `is not known: only secrets are read from files; set ${base} itself`)
      continue
    }
    const [nearest, edits] = nearestTo(name.toUpperCase(), accepted)
    const isSimilar = nearest.includes('_') && edits <= Math.min(maxTypingErrors, name.length / 4)
    if (!isSimilar && !prefixes.some((prefix) => name.startsWith(prefix))) continue
    const hint =
      edits <= name.length / 3 ? `did you mean ${nearest}?` : 'docs/configuration.md lists all variables'
    faults.set(shown(name), `is not known; ${hint}`)
  }
  return faults
}

function prefixOf(name: string): string {
  const [first = '', second] = name.split('_')
  return commonWords.has(first) ? `${first}_${second}` : `${first}_`
}

function nearestTo(name: string, names: readonly string[]): readonly [string, number] {
  return names
    .map((candidate) => [candidate, distance(name, candidate)] as const)
    .reduce((best, next) => (next[1] < best[1] ? next : best))
}

/** A name can be any text, for example a value with a typing error before it. */
function shown(name: string): string {
  return name.replace(/\W.*$/s, '…').slice(0, 60)
}
