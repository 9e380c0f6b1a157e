import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import selfsigned from 'selfsigned'
import { Agent, Client } from 'undici'
import { startCompetitor, startService } from './competitors.js'
import { median } from './figures.js'
import { freePort, listening, start } from './processes.js'

const pollMs = 2
const laterRequests = 10
const requestsWithoutRest = 20
/** Longer than a request takes after a rest. All instances in turn must take less than the shortest rest. */
const slotMs = 200
const shortestLifetime = 60
let sent = 0

/**
 * Measures single requests after a start, without a rest and after rests. The instances rest at the same time, and get
 * their requests in turn.
 *
 * @param restSeconds the rests, one after another
 */
export async function measureRests(bench, { instancesPerTarget, restSeconds }) {
  const { targets, stopNetwork } = await startNetwork(bench)
  const results = targets.map(({ name }) => ({
    name,
    afterStartMs: [],
    addedAfterStartMs: [],
    withoutRestMs: [],
    rests: new Map([...new Set(restSeconds)].sort((a, b) => a - b).map((seconds) => [seconds, []])),
  }))
  const [token] = JSON.parse(readFileSync(bench.callers.tokenFiles.RS256, 'utf8'))
  const instances = []
  for (let number = 1; number <= instancesPerTarget; number += 1) {
    for (const [index, { name, startTarget }] of targets.entries()) {
      const result = results[index]
      const target = await startTarget(`${name} ${number}`)
      const instance = { target, result, client: new Client(target.origin), token }
      const first = await firstRequest(instance)
      result.afterStartMs.push(first)
      result.addedAfterStartMs.push(first - median(await requestsInTurn(instance, laterRequests)))
      result.withoutRestMs.push(...(await requestsInTurn(instance, requestsWithoutRest)))
      instances.push(instance)
    }
  }

  let begin = performance.now()
  await eachInTurn(instances, begin, sendRequest)
  for (const seconds of restSeconds) {
    bench.log(`a rest of ${seconds} s`)
    begin += seconds * 1000 + slotMs
    await eachInTurn(instances, begin, async (instance) => {
      instance.result.rests.get(seconds).push(await sendRequest(instance))
    })
  }
  for (const { target } of instances) await target.stop()
  await stopNetwork()
  return results
}

/** Starts an upstream with TLS, a relay to it and an egress proxy, and says how to start what uses them. */
async function startNetwork(bench) {
  const { directory, callers } = bench
  const [keyFile, certificateFile] = await createCertificate(directory)
  const [upstreamPort, relayPort, proxyPort] = [await freePort(), await freePort(), await freePort()]
  const scripts = {
    upstream: [upstreamPort, callers.jwksFile, keyFile, certificateFile],
    relay: [relayPort, upstreamPort],
    'egress-proxy': [proxyPort],
  }
  const network = Object.entries(scripts).map(([script, args]) =>
    start(`rest-${script}`, [process.execPath, `bench/${script}.js`, ...args.map(String)], { directory }),
  )
  const [, relay, proxy] = network
  const upstream = `https://127.0.0.1:${relayPort}`
  const proxyUrl = `http://127.0.0.1:${proxyPort}`
  const dispatcher = new Agent({ connect: { ca: readFileSync(certificateFile) } })
  await listening(relay, upstream, { dispatcher })
  await listening(proxy, proxyUrl)
  const idenfy = { IDENFY_BASE_URL: upstream, IDENFY_CA_FILE: certificateFile }
  const proxied = { ...idenfy, IDENFY_PROXY_URL: proxyUrl }
  const trusting = { NODE_EXTRA_CA_CERTS: certificateFile }
  return {
    targets: [
      { name: 'service', startTarget: (name) => startService(bench, { name, env: idenfy }) },
      {
        name: 'service, egress proxy',
        startTarget: (name) => startService(bench, { name, env: proxied }),
      },
      ...['baseline', 'http-proxy', 'express'].map((script) => ({
        name: script,
        startTarget: (name) => startCompetitor({ ...bench, upstream }, script, { name, env: trusting }),
      })),
    ],
    stopNetwork: () => Promise.all(network.map((child) => child.stop())),
  }
}

async function createCertificate(directory) {
  const { private: key, cert } = await selfsigned.generate([{ name: 'commonName', value: 'upstream' }], {
    extensions: [{ name: 'subjectAltName', altNames: [{ type: 7, ip: '127.0.0.1' }] }],
  })
  return [
    ['upstream-key.pem', key],
    ['upstream.pem', cert],
  ].map(([name, pem]) => {
    const path = join(directory, name)
    writeFileSync(path, pem)
    return path
  })
}

/** The service says when it is ready. The competitors get a request as soon as they listen. */
async function firstRequest(instance) {
  const { target } = instance
  if (target.managementOrigin) {
    await listening(target, `${target.managementOrigin}/readyz`, { status: 200, pollMs })
    return sendRequest(instance)
  }
  for (;;) {
    try {
      return await sendRequest(instance)
    } catch (error) {
      if (error.code !== 'ECONNREFUSED' || target.hasExited()) throw error
      await delay(pollMs)
    }
  }
}

async function requestsInTurn(instance, count) {
  const milliseconds = []
  while (milliseconds.length < count) milliseconds.push(await sendRequest(instance))
  return milliseconds
}

async function eachInTurn(instances, begin, action) {
  for (const [index, instance] of instances.entries()) {
    await delay(Math.max(0, begin + index * slotMs - performance.now()))
    await action(instance)
  }
}

/** Each request asks for a different lifetime, so that no response is replayed. */
async function sendRequest({ target, client, token }) {
  sent += 1
  const begin = performance.now()
  const { statusCode, body } = await client.request({
    method: 'POST',
    path: '/onboarding/kyb-token',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify({ lifetime: shortestLifetime + sent }),
  })
  const text = await body.text()
  const milliseconds = performance.now() - begin
  if (statusCode !== 201) throw new Error(`${target.name} responded with ${statusCode}: ${text}`)
  return milliseconds
}
