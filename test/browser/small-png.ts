import { deflateSync } from 'node:zlib'
import type { Page } from 'playwright-core'

/** Runs in the page: reduces the picture to 16 values per colour channel, which is enough for a page without photos. */
const readPixels = `async (url) => {
  const picture = await createImageBitmap(await (await fetch(url)).blob())
  const { width, height } = picture
  const context = new OffscreenCanvas(width, height).getContext('2d')
  context.drawImage(picture, 0, 0)
  const { data } = context.getImageData(0, 0, width, height)
  const colors = new Map()
  const rows = []
  for (let y = 0; y < height; y += 1) {
    const row = []
    for (let x = 0; x < width; x += 1) {
      const start = (y * width + x) * 4
      const color = Array.from(data.slice(start, start + 3), (value) => Math.round(value / 17) * 17)
      const name = color.join()
      if (!colors.has(name)) colors.set(name, { index: colors.size, color })
      row.push(colors.get(name).index)
    }
    rows.push(row)
  }
  return { width, height, rows, palette: [...colors.values()].map(({ color }) => color) }
}`

/** Chromium writes large PNG files. This one has a palette, and is less than half as large. */
export async function smallPng(page: Page, png: Buffer): Promise<Buffer> {
  const url = `data:image/png;base64,${png.toString('base64')}`
  const { width, height, rows, palette } = (await page.evaluate(
    `(${readPixels})(${JSON.stringify(url)})`,
  )) as { width: number; height: number; rows: number[][]; palette: number[][] }
  if (palette.length > 256) throw new Error(`The picture has ${palette.length} colours`)
  const header = Buffer.alloc(13)
  header.writeUInt32BE(width, 0)
  header.writeUInt32BE(height, 4)
  // 8 bits for each pixel, with a palette.
  header.set([8, 3], 8)
  // Each row starts with its filter: none.
  const pixels = Buffer.from(rows.flatMap((row) => [0, ...row]))
  return Buffer.concat([
    Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'),
    chunk('IHDR', header),
    chunk('PLTE', Buffer.from(palette.flat())),
    chunk('IDAT', deflateSync(pixels, { level: 9 })),
    chunk('IEND', Buffer.alloc(0)),
  ])
}

function chunk(type: string, data: Buffer): Buffer {
  const content = Buffer.concat([Buffer.from(type), data])
  const length = Buffer.alloc(4)
  length.writeUInt32BE(data.length)
  const checksum = Buffer.alloc(4)
  checksum.writeUInt32BE(crc32(content))
  return Buffer.concat([length, content, checksum])
}

/** `zlib.crc32` is not in Node 20. */
function crc32(bytes: Buffer): number {
  let crc = 0xffffffff
  for (const byte of bytes) {
    crc ^= byte
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0)
  }
  return ~crc >>> 0
}
