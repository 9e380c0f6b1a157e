export interface Result {
  readonly text: string
}

/** Work that the test ends, and that counts how often it was begun. */
export function controlledWork() {
  let end = (_result: Result) => {}
  let fail = (_error: unknown) => {}
  const result = new Promise<Result>((resolve, reject) => {
    end = resolve
    fail = reject
  })
  const controlled = {
    begun: 0,
    isAbandoned: () => false,
    work: (isAbandoned: () => boolean) => {
      controlled.begun += 1
      controlled.isAbandoned = isAbandoned
      return result
    },
    end: (text: string) => end({ text }),
    fail: (error: unknown) => fail(error),
  }
  return controlled
}

export const work = (text: string) => async () => ({ text })
export const notCalled = () => Promise.reject(new Error('this work must not begin'))
