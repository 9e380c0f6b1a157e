import { createHash } from 'node:crypto'
import type { FastifyPluginAsync } from 'fastify'
import { type ProblemCode, problems } from '../problems/catalog.js'

/** The hash is that of the only style attribute of Swagger UI, which hides the definitions of its icons. */
const readerPolicy =
  "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-hashes' 'sha256-RL3ie0nH+Lzz2YNqQN83mnU0J1ot4QL7b99vMdIX99w='; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

/** Serves the OpenAPI document at `/docs`, and a page at the `type` of every problem. */
export const documentationRoutes: FastifyPluginAsync = async (app) => {
  // Loaded only here, because it is optional.
  const { default: swaggerUi } = await import('@fastify/swagger-ui')
  await app.register(swaggerUi, {
    routePrefix: '/docs',
    staticCSP: readerPolicy,
    theme: { title: 'Onboarding BFF' },
    uiConfig: { layout: 'BaseLayout', validatorUrl: null, tryItOutEnabled: true },
  })

  for (const code of Object.keys(problems) as ProblemCode[]) {
    const description = describe(code)
    const page = pageOf(description)
    app.get(description.type, { schema: { hide: true } }, async (request, reply) => {
      reply.header('vary', 'Accept').header('cache-control', 'no-cache')
      if (!request.headers.accept?.includes('text/html')) return description
      reply.type('text/html; charset=utf-8').header('content-security-policy', pagePolicy)
      return page
    })
  }
}

function describe(code: ProblemCode) {
  const { status, title, retryable, when, advice, ...rest } = problems[code]
  const seconds = 'retryAfterSeconds' in rest ? rest.retryAfterSeconds : undefined
  return {
    type: `/problems/${code}`,
    title,
    status,
    code,
    when,
    advice,
    retryable,
    ...(seconds !== undefined && { retryAfterSeconds: seconds }),
  }
}

const style = `
:root { color-scheme: light dark }
body { font: 1.0625rem/1.6 system-ui, sans-serif; max-width: 42rem; margin: 4rem auto; padding: 0 1.5rem }
h1 { font-size: 1.75rem; line-height: 1.2; text-wrap: balance }
dt { font-weight: 600; margin-top: 1.25rem }
dd { margin: 0 }
code { font-size: .9375em; padding: .1em .3em; border-radius: .25em; background: color-mix(in srgb, currentColor 8%, transparent) }
`
const pagePolicy = `default-src 'none'; style-src 'sha256-${createHash('sha256').update(style).digest('base64')}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`

/** All texts of the page come from the catalog of problems. */
function pageOf({ title, status, code, when, advice, ...retry }: ReturnType<typeof describe>): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${title}</title>
<style>${style}</style>
</head>
<body>
<main>
<h1>${title}</h1>
<p><code>${status}</code> <code>${code}</code></p>
<dl>
<dt>When</dt><dd>${htmlOf(when)}</dd>
<dt>What to do</dt><dd>${htmlOf(advice)}</dd>
<dt>Retry the same request?</dt><dd>${retryOf(retry)}</dd>
</dl>
</main>
</body>
</html>
`
}

function retryOf({ retryable, retryAfterSeconds }: { retryable: boolean; retryAfterSeconds?: number }) {
  if (!retryable) return 'No, it would fail again.'
  return retryAfterSeconds === undefined
    ? 'It may succeed later. Wait as <code>Retry-After</code> says, if it is set.'
    : `It may succeed later. Wait as <code>Retry-After</code> says, usually ${retryAfterSeconds} s.`
}

function htmlOf(markdown: string): string {
  return markdown
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replace(/`([^`]+)`/g, '<code>$1</code>')
}
