/**
 * Memory of large arrays given back at once. V8 frees an ArrayBuffer when its collector comes by, and nothing makes it come when memory
 * outside its heap is wanted: weights of layer after layer piled up (measured: a decomposition of 4 GPT-J layers took 1.7 GiB where one
 * took 0.9). So whoever is done with a large array that it alone holds says so.
 *
 * @module
 */

/**
 * Empties arrays and gives their memory back to the system. Every view of the same buffer is empty afterwards, so the caller must be the
 * only one who holds it. What has no buffer of its own, or an empty one, is left as it is.
 */
export function release(...arrays: readonly ArrayLike<number>[]): void {
  for (const array of arrays) {
    if (ArrayBuffer.isView(array) && array.buffer instanceof ArrayBuffer) array.buffer.transfer(0);
  }
}
