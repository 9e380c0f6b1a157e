/** The Levenshtein distance: how many characters to insert, delete or replace to turn one text into the other. */
export function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index)
  for (const [rowIndex, character] of [...from].entries()) {
    const next = [rowIndex + 1]
    for (let index = 0; index < to.length; index += 1) {
      next.push(
        Math.min(
          (row[index] as number) + (character === to[index] ? 0 : 1),
          (row[index + 1] as number) + 1,
          (next[index] as number) + 1,
        ),
      )
    }
    row = next
  }
  return row[to.length] as number
}
