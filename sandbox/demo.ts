import Fastify from 'fastify'
import { servePages } from './pages.js'

/** Where the demo page finds everybody else. */
export interface DemoSettings {
  readonly serviceUrl: string
  readonly identityUrl: string
  readonly idenfyUrl: string
}

/** The page of an imaginary company that lets its customers verify their business, on an origin of its own. */
export function buildDemo(settings: () => DemoSettings) {
  const app = Fastify()
  servePages(
    app,
    {
      '/': 'index.html',
      '/style.css': 'style.css',
      '/app.js': 'app.js',
    },
    () => securityHeaders(settings()),
  )
  app.get('/settings.json', async () => settings())
  // Browsers ask for it unbidden.
  app.get('/favicon.ico', async (_request, reply) => reply.code(204).send())
  return app
}

function securityHeaders({ serviceUrl, identityUrl, idenfyUrl }: DemoSettings) {
  return {
    'content-security-policy': [
      "default-src 'none'",
      "script-src 'self'",
      "style-src 'self'",
      `connect-src 'self' ${serviceUrl} ${identityUrl} ${idenfyUrl}`,
      `frame-src ${idenfyUrl}`,
      "base-uri 'none'",
      "form-action 'none'",
      "frame-ancestors 'none'",
    ].join('; '),
    'permissions-policy': `camera=(self "${idenfyUrl}"), fullscreen=(self "${idenfyUrl}"), microphone=(), geolocation=()`,
    // The form of the sandbox links back to where it was opened.
    'referrer-policy': 'origin',
  }
}
