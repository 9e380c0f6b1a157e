import { readFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import type { Deployment } from 'kubernetes-types/apps/v1.js'
import type { HorizontalPodAutoscaler } from 'kubernetes-types/autoscaling/v2.js'
import type { ConfigMap, Secret, Service } from 'kubernetes-types/core/v1.js'
import type { NetworkPolicy } from 'kubernetes-types/networking/v1.js'
import type { PodDisruptionBudget } from 'kubernetes-types/policy/v1.js'
import t from 'tap'
import ts from 'typescript'
import { parse, parseAllDocuments } from 'yaml'
import { environmentSchema } from '../src/config/environment-schema.js'
import { loadConfig } from '../src/config/load-config.js'

interface Resource {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: { readonly name: string }
}

const manifest = readFileSync('deploy/kubernetes.yaml', 'utf8')
const resources = parseAllDocuments(manifest).map((document): Resource => {
  if (document.errors.length > 0) throw document.errors[0]
  return document.toJS()
})

function find<T>(kind: string, name = 'onboarding-bff'): T {
  const found = resources.filter((resource) => resource.kind === kind && resource.metadata.name === name)
  if (found.length !== 1) throw new Error(`${found.length} of kind ${kind} with the name ${name}`)
  return found[0] as T
}

const deployment = find<Deployment>('Deployment')
const pod = deployment.spec?.template.spec
const podLabels = deployment.spec?.template.metadata?.labels
const container = pod?.containers[0]
if (!pod || !container) throw new Error('the deployment has no container')
const portNames = Object.fromEntries(container.ports?.map((port) => [port.name, port.containerPort]) ?? [])

/** What the pod gets as its environment. */
const environment: Record<string, string> = Object.assign(
  {},
  ...(container.envFrom ?? []).map(
    ({ configMapRef }) => find<ConfigMap>('ConfigMap', configMapRef?.name).data,
  ),
  Object.fromEntries(container.env?.map(({ name, value }) => [name, value]) ?? []),
)

/** What the pod finds at a path, by way of its mounts. */
function mounted(path: string): string | undefined {
  const mount = container?.volumeMounts?.find(({ mountPath }) => mountPath === dirname(path))
  const volume = pod?.volumes?.find(({ name }) => name === mount?.name)
  const content = volume?.secret
    ? find<Secret>('Secret', volume.secret.secretName).stringData
    : find<ConfigMap>('ConfigMap', volume?.configMap?.name).data
  return content?.[basename(path)]
}

/**
 * The faults that the compiler finds in resources, held against the types made from Kubernetes' own OpenAPI
 * document: unknown fields, missing ones, wrong types. Which words a text field takes they do not say.
 */
function typeFaults(checked: readonly Resource[]): string[] {
  const fileName = 'resources.ts'
  const text = checked
    .map(({ apiVersion, kind, ...rest }, index) => {
      const [group, version] = apiVersion.includes('/') ? apiVersion.split('/') : ['core', apiVersion]
      const type = `import('kubernetes-types/${group?.split('.')[0]}/${version}').${kind}`
      return `export const resource${index}: ${type} = ${JSON.stringify({ apiVersion, kind, ...rest })}`
    })
    .join('\n')
  const options: ts.CompilerOptions = {
    strict: true,
    noEmit: true,
    target: ts.ScriptTarget.ES2023,
    module: ts.ModuleKind.ESNext,
    moduleResolution: ts.ModuleResolutionKind.Bundler,
    types: [],
  }
  const host = ts.createCompilerHost(options)
  const { getSourceFile } = host
  host.getSourceFile = (name, language, ...rest) =>
    name === fileName ? ts.createSourceFile(name, text, language) : getSourceFile(name, language, ...rest)
  return ts
    .getPreEmitDiagnostics(ts.createProgram([fileName], options, host))
    .map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n'))
}

t.test('every resource has the fields of its kind', async (t) => {
  t.strictSame(resources.map(({ kind }) => kind).sort(), [
    'ConfigMap',
    'ConfigMap',
    'Deployment',
    'HorizontalPodAutoscaler',
    'NetworkPolicy',
    'PodDisruptionBudget',
    'Secret',
    'Service',
  ])
  t.strictSame(typeFaults(resources), [])
})

t.test('a field that its kind does not have is found', async (t) => {
  const text = JSON.stringify(deployment)
  const misspelt = JSON.parse(text.replace('readinessProbe', 'readynessProbe'))
  const mistyped = JSON.parse(text.replace('"replicas":2', '"replicas":"2"'))
  const unknown = JSON.parse(text.replace('apps/v1', 'apps/v0'))
  t.match(typeFaults([misspelt, mistyped, unknown]).sort(), [
    /^Cannot find module 'kubernetes-types\/apps\/v0'/,
    /readynessProbe.* does not exist in type 'Container'/,
    /^Type 'string' is not assignable to type 'number'/,
  ])
})

t.test('the service starts with what the pod gets', async (t) => {
  const files = Object.entries(environment).filter(([name]) => name.endsWith('_FILE'))
  t.ok(files.length >= 3)
  const contents = files.map(([name, path]) => [name, mounted(path) ?? `nothing is mounted at ${path}`])
  const directory = t.testdir(Object.fromEntries(contents))
  const paths = files.map(([name]) => [name, join(directory, name)])
  const config = loadConfig({ ...environment, ...Object.fromEntries(paths) })
  t.equal(config.IDENFY_API_KEY, 'replace-me')
  t.equal(config.IDENFY_API_SECRET, 'replace-me')
  t.match(JSON.parse(await config.readPolicy()), { session: { lifetime: 3600 } })
})

t.test('the pod is given no variable that the service does not know', async (t) => {
  const known = Object.entries(environmentSchema.properties).flatMap(([name, { secret }]) =>
    secret ? [`${name}_FILE`] : [name],
  )
  t.strictSame(
    Object.keys(environment).filter((name) => !known.includes(name)),
    [],
    'and secrets only as files',
  )
})

t.test('the manifest holds placeholders, no secrets', async (t) => {
  const secrets = Object.entries(find<Secret>('Secret').stringData ?? {})
  t.ok(secrets.length >= 2)
  for (const [name, value] of secrets) {
    const decoded = Buffer.from(value, 'base64').toString()
    t.ok(
      [value, decoded].some((text) => text.includes('replace-me')),
      name,
    )
  }
  t.notOk(find<Secret>('Secret').data)
  t.match(container.image, /^registry\.example\.com\//)
})

t.test('the pod may do no more than it must', async (t) => {
  t.match(pod, {
    automountServiceAccountToken: false,
    securityContext: {
      runAsNonRoot: true,
      runAsUser: 1000,
      runAsGroup: 1000,
      seccompProfile: { type: 'RuntimeDefault' },
    },
  })
  t.strictSame(container.securityContext, {
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    capabilities: { drop: ['ALL'] },
  })
  t.notOk(pod.hostNetwork || pod.hostPID || pod.hostIPC)
  t.ok(container.resources?.limits?.memory)
  const secretModes = (pod.volumes ?? []).flatMap(({ secret }) => (secret ? [secret.defaultMode] : []))
  t.strictSame(secretModes, [0o440])
})

t.test('the pod has the time to finish what is in flight', async (t) => {
  const { default: fallback } = environmentSchema.properties.SHUTDOWN_TIMEOUT_MS
  const shutdown = Number(environment.SHUTDOWN_TIMEOUT_MS ?? fallback)
  const delay = Number(environment.DRAIN_DELAY_MS ?? 0)
  const sleep = (container.lifecycle?.preStop?.sleep?.seconds ?? 0) * 1000
  t.ok(delay + sleep >= 5000, 'until load balancers have heard of it, it serves')
  t.ok((pod.terminationGracePeriodSeconds ?? 30) * 1000 > sleep + delay + shutdown)
})

t.test('the probes ask the management listener, which no service exposes', async (t) => {
  const { PORT, MANAGEMENT_PORT } = environmentSchema.properties
  t.strictSame(portNames, { http: PORT.default, management: MANAGEMENT_PORT.default })
  const { startupProbe, livenessProbe, readinessProbe } = container
  t.strictSame(startupProbe?.httpGet, { path: '/livez', port: 'management' })
  t.strictSame(livenessProbe?.httpGet, { path: '/livez', port: 'management' })
  t.strictSame(readinessProbe?.httpGet, { path: '/readyz', port: 'management' })
  t.strictSame(
    find<Service>('Service').spec?.ports?.map(({ targetPort }) => targetPort),
    ['http'],
  )
})

t.test('all selectors match the pods', async (t) => {
  t.strictSame(deployment.spec?.selector.matchLabels, podLabels)
  t.strictSame(find<Service>('Service').spec?.selector, podLabels)
  t.strictSame(find<PodDisruptionBudget>('PodDisruptionBudget').spec?.selector?.matchLabels, podLabels)
  t.strictSame(find<NetworkPolicy>('NetworkPolicy').spec?.podSelector.matchLabels, podLabels)
  t.strictSame(
    pod.topologySpreadConstraints?.map(({ labelSelector }) => labelSelector?.matchLabels),
    [podLabels, podLabels],
  )
  const { kind, apiVersion, metadata } = deployment
  const autoscaler = find<HorizontalPodAutoscaler>('HorizontalPodAutoscaler').spec
  t.strictSame(autoscaler?.scaleTargetRef, { kind, apiVersion, name: metadata?.name })
  t.equal(autoscaler?.minReplicas, deployment.spec?.replicas)
})

t.test('the network lets in the ingress controller and the monitoring, each to its port', async (t) => {
  const { spec } = find<NetworkPolicy>('NetworkPolicy')
  t.strictSame(spec?.policyTypes, ['Ingress', 'Egress'])
  t.strictSame(
    spec?.ingress?.map(({ from, ports }) => [
      from?.map(({ namespaceSelector }) => namespaceSelector?.matchLabels?.['kubernetes.io/metadata.name']),
      ports?.map(({ port }) => port),
    ]),
    [
      [['ingress-nginx'], ['http']],
      [['monitoring'], ['management']],
    ],
  )
  t.strictSame(
    spec?.egress?.flatMap(({ ports }) => ports?.map(({ port }) => port)),
    [53, 53, 443, 6379],
  )
})

t.test('the replicas of compose start, and trust what the balancer says of its clients', async (t) => {
  const { services } = parse(readFileSync('docker-compose.yml', 'utf8'), { merge: true })
  for (const name of ['replica-1', 'replica-2']) {
    const { TRUST_PROXY, REDIS_URL } = loadConfig(services[name].environment)
    t.ok(TRUST_PROXY?.includes('172.16.0.0/12'), "Docker's networks")
    t.ok(TRUST_PROXY?.includes('10.0.0.0/8'), "Podman's networks")
    t.match(REDIS_URL, /^redis:/)
  }
})
