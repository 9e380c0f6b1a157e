import { readFile } from 'node:fs/promises'
import type { FastifyInstance } from 'fastify'

/** As the build leaves them, also for who runs the sources. */
const directory = new URL('../dist-sandbox/demo/', import.meta.url)

const types: Record<string, string> = {
  html: 'text/html; charset=utf-8',
  css: 'text/css; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
}

/** Serves these files of the demo, each at its path, with these header fields. */
export function servePages(
  app: Pick<FastifyInstance, 'get'>,
  files: Readonly<Record<string, string>>,
  headers: () => Record<string, string>,
): void {
  for (const [path, file] of Object.entries(files)) {
    app.get(path, async (_request, reply) => {
      reply
        .headers({ 'cache-control': 'no-store', 'x-content-type-options': 'nosniff', ...headers() })
        .type(String(types[file.replace(/.*\./, '')]))
      return readFile(new URL(file, directory))
    })
  }
}
