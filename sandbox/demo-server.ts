import Fastify from 'fastify'
import { servePages } from './pages.js'

/** The URLs that the demo page calls, and what it must know about the configuration of the service. */
export interface DemoSettings {
  readonly serviceUrl: string
  readonly identityUrl: string
  readonly idenfyUrl: string
  /** The page requests access tokens with this scope. */
  readonly scope?: string
  /**
   * Whether `clientId` or `externalRef` contains the user id, so that a simulated problem can be for one user only.
   * Default: true
   */
  readonly faultsByCaller?: boolean
}

/** Serves the demo page of a fictional company from its own origin. Its customers verify their business there. */
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
  // Browsers request it by default.
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
    // The simulated form uses the referrer for its link back to this page.
    'referrer-policy': 'origin',
  }
}
