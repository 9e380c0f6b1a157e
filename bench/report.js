import { cpus, release } from 'node:os'
import { median, spread, table } from './figures.js'

const rs256 = 'service, RS256'
const es256 = 'service, ES256'

/** The results as Markdown. */
export function report(results) {
  const { entries, rounds, seconds, warmUpSeconds } = results
  const { added, floods, starts, memory, image } = results
  const [{ model }] = cpus()
  return `# Results

Written by \`npm run bench\`; [README.md](README.md) says what is measured, and where the time goes.

${new Date().toISOString().slice(0, 10)}, ${cpus().length} × ${model}, Linux ${release()}, Node ${process.version}; ${rounds} rounds of ${seconds} s, everybody in turn in
each round, after ${warmUpSeconds} s that are not counted. What is measured has one core to itself. Medians, with the least and the greatest in brackets; ratios are made within a round.

## Goals

${goalTable(results)}

## Side by side

50 connections, each asking again as soon as it has an answer. Throughput is that of the whole setup: where the core is less busy than 100 %, the load or
the upstream held it back, and CPU per request is what counts.

${comparison(entries)}

## Latency

At 200 requests a second and an upstream of 80 ms, the service adds to the latency of the floor: p50 ${spread(added.p50Ms, 2)} ms, p99 ${spread(added.p99Ms, 2)} ms.

## Start

From the start of the process to its first 201: ${spread(starts)} ms.

## Memory

${memory.idle.toFixed(0)} MB at rest, ${memory.restSeconds} s after the first token; ${memory.loaded.toFixed(0)} MB in the second half of ${memory.seconds} s of load (${memory.requests} requests; ${memory.growthPerMinute.toFixed(1)} MB a minute, at most ${memory.peak.toFixed(0)} MB),
${memory.after.toFixed(0)} MB five seconds after it.

## Image

The production image adds ${image.toFixed(1)} MB of files to its base.

## 5,000 requests at once, on an upstream of 2 s

${floodTable(floods)}
`
}

function comparison(entries) {
  const [floor, proxy] = ['floor', 'http-proxy'].map((wanted) => entries.find(({ name }) => name === wanted))
  return table(
    [
      'what',
      'req/s',
      'CPU µs a request',
      'CPU to floor',
      'CPU to http-proxy',
      'p50 ms',
      'p99 ms',
      'memory MB',
      'core busy',
      'upstream calls a request',
    ],
    entries.map(({ name, results }) => {
      const values = (value) => results.map((result) => result[value])
      return [
        name,
        spread(values('perSecond')),
        spread(values('cpuMicroseconds')),
        spread(ratios(results, floor.results), 2),
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

function goalTable({ entries, added, starts, memory, isLong }) {
  const of = (wanted) => entries.find(({ name }) => name === wanted).results
  const atMost = (limit, digits) => (values) => [
    `≤ ${limit.toFixed(digits)}`,
    spread(values, digits),
    median(values) <= limit ? 'yes' : '**no**',
  ]
  const atLeast = (limit, digits) => (values) => [
    `≥ ${limit.toFixed(digits)}`,
    spread(values, digits),
    median(values) >= limit ? 'yes' : '**no**',
  ]
  return table(
    ['', 'goal', 'measured', 'met'],
    [
      ...[rs256, `${rs256}, new tokens`].flatMap((name) => [
        [`CPU a request, ${name}, to the floor`, ...atMost(2.5, 2)(ratios(of(name), of('floor')))],
        [
          `CPU a request, ${name}, to @fastify/http-proxy`,
          ...atMost(1, 2)(ratios(of(name), of('http-proxy'))),
        ],
        [
          `throughput, ${name}, to express + jsonwebtoken + axios`,
          ...atLeast(6, 1)(ratios(of(name), of('express'), 'perSecond')),
        ],
      ]),
      [
        'CPU a replayed request, to the floor',
        ...atMost(1.5, 2)(ratios(of('service, replayed'), of('floor'))),
      ],
      ...[es256, `${es256}, new tokens`].map((name) => [
        `CPU a request, ${name}, to the floor`,
        ...atMost(4, 2)(ratios(of(name), of('floor'))),
      ]),
      ['added p99 at 200 requests a second, ms', ...atMost(2, 1)(added.p99Ms)],
      ['start to the first 201, ms', ...atMost(350, 0)(starts)],
      ['memory at rest, MB', ...atMost(80, 0)([memory.idle])],
      isLong
        ? ['growth of memory in ten minutes of load, MB a minute', ...atMost(1, 1)([memory.growthPerMinute])]
        : ['memory flat over ten minutes of load', '', 'only with `BENCH_LONG=1`', ''],
    ],
  )
}

function floodTable(floods) {
  return table(
    [
      '`IDENFY_MAX_IN_FLIGHT`',
      'answers by status',
      'most in flight upstream',
      'slowest answer s',
      'memory MB before, at most, 5 s after',
      'first 201 after it, ms',
      'p99 ms after it',
    ],
    floods.map(({ maxInFlight, idle, flooded, recoveryMs, after, settled }) => [
      maxInFlight,
      Object.entries(flooded.statuses)
        .map(([status, count]) => `${count} × ${status}`)
        .join(', '),
      flooded.mostInFlight,
      (flooded.maxMs / 1000).toFixed(1),
      [idle, flooded.memory.peak, settled].map((megabytes) => megabytes.toFixed(0)).join(', '),
      recoveryMs.toFixed(0),
      after.p99Ms.toFixed(1),
    ]),
  )
}
