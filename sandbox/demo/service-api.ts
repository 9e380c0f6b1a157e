// Written by `npm run openapi` from openapi.json.

export interface paths {
    "/onboarding/kyb-token": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Creates a KYB token for the company of the caller
         * @description Equal requests that come together, or within a short while after a success, get the same token: a double click opens no second verification.
         */
        post: operations["createKybToken"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
}
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        Problem: {
            /** @description A path on this service */
            type: string;
            title: string;
            status: number;
            /** @enum {string} */
            code: "malformed-request" | "validation-failed" | "unauthenticated" | "invalid-token" | "insufficient-scope" | "company-not-allowed" | "company-required" | "identity-not-mappable" | "field-not-permitted" | "preflight-refused" | "not-found" | "method-not-allowed" | "request-timeout" | "kyb-session-conflict" | "idempotency-conflict" | "payload-too-large" | "unsupported-media-type" | "expectation-failed" | "idempotency-mismatch" | "rate-limited" | "header-too-large" | "internal-error" | "provider-rejected" | "provider-bad-response" | "provider-outcome-unknown" | "provider-unavailable" | "provider-rate-limited" | "auth-keys-unavailable" | "state-unavailable" | "overloaded" | "draining" | "provider-timeout";
            /** @description Finds the line in the log of the service */
            requestId: string;
            /** @description May the same request succeed later without a change? */
            retryable: boolean;
            /**
             * @description Was a verification perhaps opened?
             * @enum {string}
             */
            outcome?: "not-created" | "unknown";
            /** @description What exactly is wrong, where a code has several causes */
            detail?: string;
            errors?: {
                /** @description JSON Pointer into the request body (RFC 6901) */
                pointer: string;
                code: string;
            }[];
            /** @description The companies that the caller may choose from */
            companyIds?: string[];
        };
        KybSession: {
            lifetime?: number;
            locale?: ("en" | "es" | "fr" | "ru" | "de" | "it" | "pl" | "lt" | "lv" | "et" | "cs" | "ro" | "hu" | "ja" | "bg" | "nl" | "pt") | null;
            flow?: string | null;
            theme?: string | null;
            questionnaire?: string | null;
            questionnaireRequired?: boolean;
            tags?: string[];
            scanRefs?: string[] | null;
        };
        KybToken: {
            /** @enum {string} */
            tokenType: "FORM";
            /** @description A bearer credential for the whole form */
            tokenString: string;
            /** @description When the token ends, as iDenfy wrote it */
            expiration: string;
            /** @description Whole seconds until then, by the clock of the server */
            expiresIn: number;
            isValid: boolean;
            /** @description iDenfy's id of the company */
            companyId: string | null;
            clientId: string;
            externalRef: string;
            /** @description Where the user opens the form */
            redirectUrl: string;
            locale?: string | null;
            flow?: string | null;
            theme?: string | null;
            tags?: string[] | null;
            scanRefs?: string[] | null;
        };
    };
    responses: never;
    parameters: never;
    requestBodies: never;
    headers: {
        /** @description The methods that this path has */
        Allow: string;
        /** @description `true` if this is the stored response to an earlier request with the same key */
        "Idempotency-Replayed": string;
        /** @description What is left of the limits that this request counted for, and for how many seconds: `requests` of the user, and new verifications of the `user` and the `company` */
        RateLimit: string;
        /** @description These limits and their windows in seconds */
        "RateLimit-Policy": string;
        /** @description Seconds; do not repeat the request before */
        "Retry-After": number;
        /** @description Finds the request in the log of the service */
        "X-Request-Id": string;
        /** @description RFC 6750 */
        "WWW-Authenticate": string;
    };
    pathItems: never;
}
export type $defs = Record<string, never>;
export interface operations {
    createKybToken: {
        parameters: {
            query?: never;
            header?: {
                /** @description Picks one of the companies that the access token lists; its id as it is, or percent-encoded */
                "X-Company-Id"?: string;
                /** @description Identical requests with the same key get the same response, and at most one verification is opened for them (a string of RFC 8941; quotes may be left out) */
                "Idempotency-Key"?: string;
            };
            path?: never;
            cookie?: never;
        };
        requestBody?: {
            content: {
                /**
                 * @example {
                 *       "locale": "lt"
                 *     }
                 */
                "application/json": components["schemas"]["KybSession"];
            };
        };
        responses: {
            /** @description A token. It and `redirectUrl` are credentials for the whole form: never log or store them. */
            201: {
                headers: {
                    "Idempotency-Replayed": components["headers"]["Idempotency-Replayed"];
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    RateLimit: components["headers"]["RateLimit"];
                    "RateLimit-Policy": components["headers"]["RateLimit-Policy"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "tokenType": "FORM",
                     *       "tokenString": "d79719cbfc4b56a3d0c8175103a004620b25bc27",
                     *       "expiration": "2026-11-23T13:22:52.685Z",
                     *       "expiresIn": 3599,
                     *       "isValid": true,
                     *       "companyId": "167e5025-3fe6-4442-bf50-6c9c6502c51a",
                     *       "clientId": "acme",
                     *       "externalRef": "u-1",
                     *       "redirectUrl": "https://kyb.ui.idenfy.com/welcome?authToken=d79719cbfc4b56a3d0c8175103a004620b25bc27",
                     *       "locale": null
                     *     }
                     */
                    "application/json": components["schemas"]["KybToken"];
                };
            };
            /**
             * @description `malformed-request`: not parsable, not UTF-8, a query string, a bad `Idempotency-Key`, or ambiguous: two `Host`, `Authorization`, `Content-Type` or `X-Company-Id`. `detail` says which. Fix what `detail` names.
             *
             *     `validation-failed`: the body breaks the schema; `errors` names every fault. Mend what `errors` points to. The same body fails again.
             */
            400: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    RateLimit: components["headers"]["RateLimit"];
                    "RateLimit-Policy": components["headers"]["RateLimit-Policy"];
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /**
             * @description `unauthenticated`: no bearer credentials. Send `Authorization: Bearer` with the access token for this API; if there is none, let the user sign in.
             *
             *     `invalid-token`: any fault of the access token; the reason is in the log alone. Get a new access token without troubling the user, and repeat once. If that fails too, let the user sign in again.
             */
            401: {
                headers: {
                    "WWW-Authenticate": components["headers"]["WWW-Authenticate"];
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /**
             * @description `insufficient-scope`: the access token lacks `AUTH_REQUIRED_SCOPE`. Ask the identity provider for the scope when the user signs in.
             *
             *     `company-not-allowed`: no company in the token, or `X-Company-Id` names one that the token does not list. `detail` says which. Show that this account has no access to the company. The identity provider lists the companies of a user.
             *
             *     `company-required`: the token lists several companies and the request has no `X-Company-Id`. `companyIds` lists them. Let the user choose one of `companyIds` and send it as `X-Company-Id`, percent-encoded.
             *
             *     `identity-not-mappable`: the templates cannot express the user's or company's id: it is too long for iDenfy, or has characters outside `A-Z a-z 0-9 . _ ~ @ | + = -`. Also a token of a service, which has no user. The front-end cannot fix this. The operator sets `KYB_EXTERNAL_REF={userHash}` or `KYB_CLIENT_ID={companyHash}` together with `KYB_IDENTITY_KEY`: a hash is short and takes any id.
             *
             *     `field-not-permitted`: a known property that policy does not let this caller set; `errors` names them. Leave those properties out, or ask the operator to open them in the session policy.
             *
             *     `preflight-refused`: a CORS preflight from an origin that `CORS_ORIGINS` does not have. Tell the operator which origin your page has. The page itself only sees a network error.
             */
            403: {
                headers: {
                    "WWW-Authenticate": components["headers"]["WWW-Authenticate"];
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    RateLimit: components["headers"]["RateLimit"];
                    "RateLimit-Policy": components["headers"]["RateLimit-Policy"];
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /** @description `not-found`: no such path. Check the path: it has no slash at its end. */
            404: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /** @description `method-not-allowed`: another method than those in `Allow`. Use one of the methods in `Allow`. */
            405: {
                headers: {
                    Allow: components["headers"]["Allow"];
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /** @description `request-timeout`: the request came too slowly. Repeat the request, on a better connection if there is a choice. */
            408: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    RateLimit: components["headers"]["RateLimit"];
                    "RateLimit-Policy": components["headers"]["RateLimit-Policy"];
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /**
             * @description `kyb-session-conflict`: iDenfy has an active session for this client. Let the user finish the form that is open. Offer to try again later, not by itself.
             *
             *     `idempotency-conflict`: a request with this `Idempotency-Key` is still in flight. Wait as `Retry-After` says and retry with the same key.
             */
            409: {
                headers: {
                    "Retry-After": components["headers"]["Retry-After"];
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    RateLimit: components["headers"]["RateLimit"];
                    "RateLimit-Policy": components["headers"]["RateLimit-Policy"];
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /** @description `payload-too-large`: a body of more than 4 KiB. Send less: no valid body is so long. */
            413: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    RateLimit: components["headers"]["RateLimit"];
                    "RateLimit-Policy": components["headers"]["RateLimit-Policy"];
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /** @description `unsupported-media-type`: a body that is not `application/json` in UTF-8, or is encoded. `detail` says which. Send `Content-Type: application/json`, or neither a body nor that field. */
            415: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    RateLimit: components["headers"]["RateLimit"];
                    "RateLimit-Policy": components["headers"]["RateLimit-Policy"];
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /** @description `expectation-failed`: an `Expect` other than `100-continue`. Leave `Expect` out. */
            417: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /** @description `idempotency-mismatch`: this `Idempotency-Key` came before, with another body. Use a new key for every request that is not a retry. */
            422: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    RateLimit: components["headers"]["RateLimit"];
                    "RateLimit-Policy": components["headers"]["RateLimit-Policy"];
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /** @description `rate-limited`: too many new verifications of this user or company, too many requests of this user, or too many failed authentications of this address. `detail` says which. Wait as `Retry-After` says. If it comes in ordinary use, look for a loop in the front-end. */
            429: {
                headers: {
                    "Retry-After": components["headers"]["Retry-After"];
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    RateLimit: components["headers"]["RateLimit"];
                    "RateLimit-Policy": components["headers"]["RateLimit-Policy"];
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /** @description `header-too-large`: more than 16 KiB of headers, or more than 64 of them. Send fewer or shorter fields; cookies are not needed. */
            431: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /** @description `internal-error`: a fault of this service. Show that something went wrong, with `requestId`, and tell the operator. */
            500: {
                headers: {
                    "Idempotency-Replayed": components["headers"]["Idempotency-Replayed"];
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    RateLimit: components["headers"]["RateLimit"];
                    "RateLimit-Policy": components["headers"]["RateLimit-Policy"];
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /**
             * @description `provider-rejected`: iDenfy refused for a reason that the caller cannot change: credentials, funds, contract, configuration, or a certificate that is not trusted. The log has the class; page the on-call engineer. Show that verification is not available just now, with `requestId`. The operator has to act.
             *
             *     `provider-bad-response`: iDenfy's response is not the token that was requested. Show that verification is not available just now, with `requestId`. The operator has to look.
             *
             *     `provider-outcome-unknown`: the connection broke after the request was sent, iDenfy failed with a 5xx, or the instance that sent the request is gone. Do not retry by machine. Let the user decide to try again, with a new `Idempotency-Key`: a verification may have been opened, and a second one may be.
             */
            502: {
                headers: {
                    "Idempotency-Replayed": components["headers"]["Idempotency-Replayed"];
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    RateLimit: components["headers"]["RateLimit"];
                    "RateLimit-Policy": components["headers"]["RateLimit-Policy"];
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /**
             * @description `provider-unavailable`: iDenfy could not be reached in time, or requests are kept from it while it fails. Nothing was sent. Wait as `Retry-After` says and retry with the same `Idempotency-Key`.
             *
             *     `provider-rate-limited`: iDenfy limits the account. Wait as `Retry-After` says and retry with the same `Idempotency-Key`.
             *
             *     `auth-keys-unavailable`: the identity provider's signing keys, or the one that this token needs, could not be fetched. Wait as `Retry-After` says and repeat. The user need not sign in again.
             *
             *     `state-unavailable`: Redis is unavailable, and without it this request could open a second verification. Nothing was sent; see `REDIS_REQUIRED`. Wait as `Retry-After` says and retry with the same `Idempotency-Key`.
             *
             *     `overloaded`: this instance cannot keep up. Wait as `Retry-After` says and repeat.
             *
             *     `draining`: this instance is shutting down. Repeat on a new connection: another instance takes over.
             */
            503: {
                headers: {
                    "Retry-After": components["headers"]["Retry-After"];
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    RateLimit: components["headers"]["RateLimit"];
                    "RateLimit-Policy": components["headers"]["RateLimit-Policy"];
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /** @description `provider-timeout`: the request was sent to iDenfy, perhaps by another instance, and no response came in time. Do not retry by machine. Let the user decide to try again, with a new `Idempotency-Key`: a verification may have been opened, and a second one may be. */
            504: {
                headers: {
                    "Idempotency-Replayed": components["headers"]["Idempotency-Replayed"];
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    RateLimit: components["headers"]["RateLimit"];
                    "RateLimit-Policy": components["headers"]["RateLimit-Policy"];
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
}
