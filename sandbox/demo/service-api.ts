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
         * @description Identical requests at the same time, or shortly after a success, get the same token. A double click does not open a second verification.
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
            /** @description The id of the request in the log of the service */
            requestId: string;
            /** @description Whether the same request may succeed later */
            retryable: boolean;
            /**
             * @description Whether a verification may have been opened
             * @enum {string}
             */
            outcome?: "not-created" | "unknown";
            /** @description The exact cause, if a code has several */
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
            /** @description When the token expires, as sent by iDenfy */
            expiration: string;
            /** @description Seconds until then, by the clock of the server */
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
        /** @description The methods that this path supports */
        Allow: string;
        /** @description `true` if this is the stored response to an earlier request with the same key */
        "Idempotency-Replayed": string;
        /** @description What is left of the limits after this request, and for how many seconds: `requests` of the user, and new verifications of the `user` and the `company` */
        RateLimit: string;
        /** @description These limits and their windows in seconds */
        "RateLimit-Policy": string;
        /** @description Seconds to wait before a retry */
        "Retry-After": number;
        /** @description The id of the request in the log of the service */
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
                /** @description Selects one of the companies in the access token. The id, as it is or percent-encoded */
                "X-Company-Id"?: string;
                /** @description Identical requests with the same key get the same response. At most one verification is opened for them. A string of RFC 8941; the quotes are optional */
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
            /** @description The token. The token and `redirectUrl` are credentials for the whole form. Never log or store them. */
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
             * @description `malformed-request`: the request cannot be parsed, is not UTF-8, has a query string or an invalid `Idempotency-Key`, or is ambiguous (for example two `Authorization` headers). `detail` says which. Fix the cause that `detail` names.
             *
             *     `validation-failed`: a property of the body is unknown, has a wrong value, or conflicts with the flow. `errors` lists every fault. Fix the properties that `errors` points to. The same body will fail again.
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
             * @description `unauthenticated`: the request has no bearer token. Send `Authorization: Bearer` with the access token for this API. If there is none, let the user sign in.
             *
             *     `invalid-token`: the access token is not accepted. The reason is only in the log. Get a new access token in the background and retry once. If that fails too, let the user sign in again.
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
             * @description `insufficient-scope`: the access token does not have the scope in `AUTH_REQUIRED_SCOPE`. Request the scope from the identity provider when the user signs in.
             *
             *     `company-not-allowed`: the token has no company, or `X-Company-Id` names a company that the token does not list. `detail` says which. Show that this account has no access to the company. The companies of a user are set at the identity provider.
             *
             *     `company-required`: the token lists several companies and the request has no `X-Company-Id`. `companyIds` lists them. Let the user choose one of `companyIds`. Send it percent-encoded as `X-Company-Id`.
             *
             *     `identity-not-mappable`: the id of the user or the company is too long for iDenfy, or has characters other than `A-Z a-z 0-9 . _ ~ @ | + = -`. Also for the token of a service, which has no user. The front-end cannot fix this. The operator can set `KYB_EXTERNAL_REF={userHash}` or `KYB_CLIENT_ID={companyHash}`, with `KYB_IDENTITY_KEY`. A hash is short and works for any id.
             *
             *     `field-not-permitted`: the policy does not let this caller set a property, or set it to this value. `errors` lists them. Omit these properties, or ask the operator to allow them in the session policy.
             *
             *     `preflight-refused`: a CORS preflight comes from an origin that is not in `CORS_ORIGINS`. Tell the operator the origin of your page. The page itself sees only a network error.
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
            /** @description `not-found`: the path does not exist. Check the path. It does not end with a slash. */
            404: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /** @description `method-not-allowed`: the path does not support this method. Use one of the methods in `Allow`. */
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
            /** @description `request-timeout`: the request was not complete in time. Do not retry automatically. Show a button that retries with the same `Idempotency-Key`. */
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
             * @description `kyb-session-conflict`: iDenfy already has an active session for this client. Let the user finish the open form. Offer a retry later, but do not retry automatically.
             *
             *     `idempotency-conflict`: another request with this `Idempotency-Key` has no result yet. Wait as `Retry-After` says and retry with the same key.
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
            /** @description `payload-too-large`: the body is larger than 4 KiB. Send a smaller body. No valid body is that large. */
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
            /** @description `unsupported-media-type`: the body is not `application/json` in UTF-8, or is compressed. `detail` says which. Send `Content-Type: application/json`, or no body and no `Content-Type`. */
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
            /** @description `expectation-failed`: `Expect` has another value than `100-continue`. Omit `Expect`. */
            417: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /** @description `idempotency-mismatch`: an earlier request with this `Idempotency-Key` had another body. Use a new key for every request that is not a retry. */
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
            /** @description `rate-limited`: there were too many new verifications of this user or company, requests of this user, or failed authentications from this address. `detail` says which. Wait as `Retry-After` says. If it happens in normal use, look for a loop in the front-end. */
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
            /** @description `header-too-large`: the headers are larger than 16 KiB, or there are more than 64. Send fewer or shorter headers. Cookies are not needed. */
            431: {
                headers: {
                    "X-Request-Id": components["headers"]["X-Request-Id"];
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /** @description `internal-error`: this service has a fault. Show an error message with `requestId`, and tell the operator. */
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
             * @description `provider-rejected`: iDenfy refused the request for a reason that the caller cannot change: credentials, funds, contract, configuration, or a certificate that is not trusted. The log has the class. Show that verification is not available now, with `requestId`. The operator must act.
             *
             *     `provider-bad-response`: iDenfy's response is not the requested token. Do not retry automatically. A verification may exist. Show `requestId`, and tell the operator. If the user tries again, send a new `Idempotency-Key`.
             *
             *     `provider-outcome-unknown`: the connection was lost after the request was sent, or iDenfy responded with a 5xx status. Or the instance that sent the request is gone. Do not retry automatically. Let the user decide to try again, with a new `Idempotency-Key`. A verification may exist, and a second one may be opened.
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
             * @description `provider-unavailable`: iDenfy could not be reached in time, or the circuit breaker is open. Nothing was sent. Wait as `Retry-After` says and retry with the same `Idempotency-Key`.
             *
             *     `provider-rate-limited`: iDenfy limits the requests of the account. Wait as `Retry-After` says and retry with the same `Idempotency-Key`.
             *
             *     `auth-keys-unavailable`: the identity provider's signing keys, or the key of this token, could not be fetched. Wait as `Retry-After` says and retry with the same `Idempotency-Key`. The user does not need to sign in again.
             *
             *     `state-unavailable`: Redis is unavailable, and without it this request could open a second verification. Nothing was sent. See `REDIS_REQUIRED`. Wait as `Retry-After` says and retry with the same `Idempotency-Key`.
             *
             *     `overloaded`: this instance has too many requests. Wait as `Retry-After` says and retry with the same `Idempotency-Key`.
             *
             *     `draining`: this instance is shutting down. Retry on a new connection. Another instance will respond.
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
            /** @description `provider-timeout`: the request was sent to iDenfy, by this or another instance, and there was no response in time. Do not retry automatically. Let the user decide to try again, with a new `Idempotency-Key`. A verification may exist, and a second one may be opened. */
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
