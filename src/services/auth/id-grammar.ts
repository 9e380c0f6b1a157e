/** The id of a user or a company: any text of 1 to 200 characters without control characters. A regular expression. */
export const idText = '[^\\u0000-\\u001f\\u007f-\\u009f]{1,200}'
const wholeIdText = new RegExp(`^${idText}$`)

/** Lone surrogates are refused because all of them would have the same hash. */
export function isIdText(id: string): boolean {
  return wholeIdText.test(id) && !/\p{Surrogate}/u.test(id)
}
