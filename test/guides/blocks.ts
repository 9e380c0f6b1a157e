/** A code block of a Markdown document. */
export interface Block {
  readonly document: string
  readonly language: string
  /** Where the code belongs in the reader's project, if its first line is a comment with a path. */
  readonly path: string | undefined
  readonly text: string
}

export function blocksOf(document: string, markdown: string): Block[] {
  return [...markdown.matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm)].map(([, language = '', text = '']) => {
    const [, path] = /^(?:\/\/|<!--) (\S+\.\w+)(?: -->)?\n/.exec(text) ?? []
    return { document, language, path, text }
  })
}
