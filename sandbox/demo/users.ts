/** A test user of the demo page. The identity provider of the sandbox signs in any user. */
export interface User {
  readonly id: string
  readonly name: string
  readonly companies: readonly { readonly id: string; readonly name: string }[]
}

export const users: readonly User[] = [
  { id: 'u-ada', name: 'Ada Martin', companies: [{ id: 'acme', name: 'Acme Tools' }] },
  { id: 'u-ben', name: 'Ben Okafor', companies: [{ id: 'globex', name: 'Globex Foods' }] },
  {
    id: 'u-chris',
    name: 'Chris Lindqvist',
    companies: [
      { id: 'hooli', name: 'Hooli Boats' },
      { id: 'initech', name: 'Initech Paper' },
    ],
  },
]
