/** Every client that waited for this work has disconnected, and nothing was sent yet. No client sees this error. */
export class Abandoned extends Error {
  override readonly name = 'Abandoned'
}
