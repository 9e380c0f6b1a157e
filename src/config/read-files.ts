import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { checkText } from './check-values.js'

export const maxSecretFileBytes = 4096
export const maxFileBytes = 1024 * 1024

/** The secret in the text of a file, without the line break at its end. */
export function toSecret(text: string): string {
  const secret = text.replace(/[\r\n]+$/, '')
  if (secret === '') throw new Error('is an empty file')
  checkText(secret)
  return secret
}

export function readTextSync(path: string, maxBytes: number): string {
  let bytes: Buffer
  try {
    bytes = readFileSync(path)
  } catch (error) {
    throw unreadable(error)
  }
  return toText(bytes, maxBytes)
}

/** For a process that serves requests: a file system that hangs must not block it. */
export async function readText(path: string, maxBytes: number): Promise<string> {
  const bytes = await readFile(path).catch((error) => {
    throw unreadable(error)
  })
  return toText(bytes, maxBytes)
}

function unreadable(error: unknown): Error {
  return new Error(`cannot be read (${(error as NodeJS.ErrnoException).code})`)
}

function toText(bytes: Buffer, maxBytes: number): string {
  if (bytes.length === 0) throw new Error('is an empty file')
  if (bytes.length > maxBytes) throw new Error(`is longer than ${maxBytes} bytes`)
  try {
    // Without the mark that some editors put in front.
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw new Error('is not a UTF-8 text')
  }
}

/** @returns certificates in PEM form */
export function readCertificates(path: string): string {
  const pem = readTextSync(path, maxFileBytes)
  try {
    new X509Certificate(pem)
  } catch {
    throw new Error('holds no certificate in PEM form')
  }
  return pem
}
