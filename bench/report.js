import { cpus, release } from 'node:os'
import { median, spread, table } from './figures.js'

const rs256 = 'service, RS256'
const es256 = 'service, ES256'
const goalHead = ['', 'goal', 'measured', 'met']

/** Formats the results as Markdown. */
export function report(results) {
  const { entries, rounds, seconds, warmUpSeconds } = results
  const { added, bursts, starts, rested, memory, image } = results
  const [{ model }] = cpus()
  return `# Results

\`npm run bench\` writes this file. [README.md](README.md) explains what is measured and where the time goes.

${new Date().toISOString().slice(0, 10)}, ${cpus().length} × ${model}, Linux ${release()}, Node ${process.version}; ${rounds} rounds.
In each round, each target runs for ${seconds} s after a warm-up of ${warmUpSeconds} s. The measured process has one core to itself.
Values are medians, with the minimum and maximum in brackets. Ratios compare runs of the same round.

## Goals

${goalTable(results)}

## Side by side

50 connections, each of which sends its next request as soon as it has a response. Throughput is that of the whole
setup. If the core is less than 100 % busy, the load generator or the upstream was the bottleneck. Then compare the
CPU time per request.

${comparison(entries)}

## Latency

At 200 requests per second and with an upstream of 80 ms, the service adds to the latency of the baseline:
p50 ${spread(added.p50Ms, 2)} ms, p99 ${spread(added.p99Ms, 2)} ms.

## Start

Time from the start of the process to its first 201: ${spread(starts)} ms.

${restSection(rested)}

## Memory

* Idle, ${memory.idleSeconds} s after the first token: ${memory.idle.toFixed(0)} MB.
* In the second half of ${memory.seconds} s of load: ${memory.loaded.toFixed(0)} MB (${memory.requests} requests, growth ${memory.growthPerMinute.toFixed(1)} MB per minute, peak ${memory.peak.toFixed(0)} MB).
* Five seconds after the load: ${memory.after.toFixed(0)} MB.

## Image

The production image adds ${image.toFixed(1)} MB of files to its base.

## 5,000 requests at once, with an upstream of 2 s

${burstTable(bursts)}
`
}

/** Formats the results of this scenario alone. */
export function restReport(rested) {
  return `${restSection(rested)}\n\n${table(goalHead, restGoals(rested))}\n`
}

function restSection(rested) {
  return `## After a rest

How long a single request takes, in ms. A round trip to the upstream takes 40 ms. A new TLS connection needs two more.

${restTable(rested)}`
}

function restTable(rested) {
  const seconds = [...rested[0].rests.keys()]
  return table(
    [
      'target',
      'without a rest',
      ...seconds.flatMap((rest) => [`after ${rest} s`, 'vs. without']),
      'right after the start',
      'more than later requests',
    ],
    rested.map(({ name, withoutRestMs, rests, afterStartMs, addedAfterStartMs }) => [
      name,
      spread(withoutRestMs, 1),
      ...seconds.flatMap((rest) => [
        spread(rests.get(rest), 1),
        (median(rests.get(rest)) / median(withoutRestMs)).toFixed(2),
      ]),
      spread(afterStartMs, 1),
      spread(addedAfterStartMs, 1),
    ]),
  )
}

function restGoals(rested) {
  const services = rested.filter(({ name }) => name.startsWith('service'))
  return [
    ...services.flatMap(({ name, withoutRestMs, rests }) =>
      [...rests].map(([seconds, milliseconds]) => [
        `time to a token after ${seconds} s of rest, ${name}, vs. without a rest`,
        ...atMost(1.1, 2)(milliseconds.map((value) => value / median(withoutRestMs))),
      ]),
    ),
    ...services.map(({ name, addedAfterStartMs }) => [
      `first token after \`/readyz\`, ${name}, longer than later ones, ms`,
      ...atMost(10, 0)(addedAfterStartMs),
    ]),
  ]
}

function comparison(entries) {
  const [baseline, proxy] = ['baseline', 'http-proxy'].map((wanted) =>
    entries.find(({ name }) => name === wanted),
  )
  return table(
    [
      'target',
      'req/s',
      'CPU µs per request',
      'CPU vs. baseline',
      'CPU vs. http-proxy',
      'p50 ms',
      'p99 ms',
      'memory MB',
      'core busy',
      'upstream calls per request',
    ],
    entries.map(({ name, results }) => {
      const values = (value) => results.map((result) => result[value])
      return [
        name,
        spread(values('perSecond')),
        spread(values('cpuMicroseconds')),
        spread(ratios(results, baseline.results), 2),
        spread(ratios(results, proxy.results), 2),
        spread(values('p50Ms'), 1),
        spread(values('p99Ms'), 1),
        results.at(-1).memory.resident.toFixed(0),
        `${(median(values('busy')) * 100).toFixed(0)} %`,
        median(values('callsPerRequest')).toFixed(2),
      ]
    }),
  )
}

function ratios(results, base, value = 'cpuMicroseconds') {
  return results.map((result, round) => result[value] / base[round][value])
}

function atMost(limit, digits) {
  return (values) => [
    `≤ ${limit.toFixed(digits)}`,
    spread(values, digits),
    median(values) <= limit ? 'yes' : '**no**',
  ]
}

function atLeast(limit, digits) {
  return (values) => [
    `≥ ${limit.toFixed(digits)}`,
    spread(values, digits),
    median(values) >= limit ? 'yes' : '**no**',
  ]
}

function goalTable({ entries, added, starts, rested, memory, isLong }) {
  const of = (wanted) => entries.find(({ name }) => name === wanted).results
  return table(goalHead, [
    ...[rs256, `${rs256}, new tokens`].flatMap((name) => [
      [`CPU per request, ${name}, vs. baseline`, ...atMost(2.5, 2)(ratios(of(name), of('baseline')))],
      [
        `CPU per request, ${name}, vs. @fastify/http-proxy`,
        ...atMost(1, 2)(ratios(of(name), of('http-proxy'))),
      ],
      [
        `throughput, ${name}, vs. express + jsonwebtoken + axios`,
        ...atLeast(6, 1)(ratios(of(name), of('express'), 'perSecond')),
      ],
    ]),
    [
      'CPU per replayed request, vs. baseline',
      ...atMost(1.5, 2)(ratios(of('service, replayed'), of('baseline'))),
    ],
    ...[es256, `${es256}, new tokens`].map((name) => [
      `CPU per request, ${name}, vs. baseline`,
      ...atMost(4, 2)(ratios(of(name), of('baseline'))),
    ]),
    ['added p99 at 200 requests per second, ms', ...atMost(2, 1)(added.p99Ms)],
    ['time from start to the first 201, ms', ...atMost(350, 0)(starts)],
    ...restGoals(rested),
    ['idle memory, MB', ...atMost(80, 0)([memory.idle])],
    isLong
      ? ['memory growth in ten minutes of load, MB per minute', ...atMost(1, 1)([memory.growthPerMinute])]
      : ['no memory growth in ten minutes of load', '', 'only with `BENCH_LONG=1`', ''],
  ])
}

function burstTable(bursts) {
  return table(
    [
      '`IDENFY_MAX_IN_FLIGHT`',
      'responses by status',
      'max. in flight upstream',
      'slowest response s',
      'memory MB before, peak, 5 s after',
      'time to the first 201 after it, ms',
      'p99 ms after it',
    ],
    bursts.map(({ maxInFlight, idle, burst, recoveryMs, after, settled }) => [
      maxInFlight,
      Object.entries(burst.statuses)
        .map(([status, count]) => `${count} × ${status}`)
        .join(', '),
      burst.mostInFlight,
      (burst.maxMs / 1000).toFixed(1),
      [idle, burst.memory.peak, settled].map((megabytes) => megabytes.toFixed(0)).join(', '),
      recoveryMs.toFixed(0),
      after.p99Ms.toFixed(1),
    ]),
  )
}
