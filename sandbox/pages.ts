import { readFile } from 'node:fs/promises'
import type { FastifyInstance } from 'fastify'

/** The build output. Tests run the TypeScript sources, and these serve it too. */
const directory = new URL('../dist-sandbox/demo/', import.meta.url)

const contentTypes: Record<string, string> = {
  html: 'text/html; charset=utf-8',
  css: 'text/css; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
}

/** Registers a route for each path that serves its file of the demo build with the given headers. */
export function servePages(
  app: Pick<FastifyInstance, 'get'>,
  files: Readonly<Record<string, string>>,
  headers: () => Record<string, string>,
): void {
  for (const [path, file] of Object.entries(files)) {
    app.get(path, async (_request, reply) => {
      reply
        .headers({ 'cache-control': 'no-store', 'x-content-type-options': 'nosniff', ...headers() })
        .type(String(contentTypes[file.replace(/.*\./, '')]))
      return readFile(new URL(file, directory))
    })
  }
}
