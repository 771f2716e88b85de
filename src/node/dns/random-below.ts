/** For the order of addresses: whole numbers at random, quickly, and not for secrets. */

/** Gives a whole number from 0 to below `end`. Whole, because the engine makes an object of a fraction returned. */
export type RandomBelow = (end: number) => number;

/** Marsaglia's xorshift of 32 bits. @param seed a whole number; the same gives the same numbers */
export function randomBelowFrom(seed: number): RandomBelow {
  let state = seed | 1; // from 0 it would not move
  return (end) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return Math.floor(((state >>> 0) / 2 ** 32) * end);
  };
}
