/**
 * The public keys that sign tokens of service accounts, in the store: every server puts its own there when it starts, and
 * all accept all. So a key can be changed, by removing its file and starting again, while the tokens that it signed hold
 * until their end; and each server signs with a key that nobody else has.
 *
 *     /tulle/token-keys/<id>    {"publicKeyPem", "addedMs"}
 */
import { createPublicKey, type KeyObject } from 'node:crypto';
import type { Clock } from '#lib/clock.ts';
import type { Store, StoreEntry } from '#store/port.ts';
import type { SigningKey } from './signing-key.ts';

const TOKEN_KEY_PREFIX = '/tulle/token-keys/';
/** A hash in base64url; anything else names no key of ours. */
const KEY_ID = /^[\w-]{43}$/;
/** Those of many servers, and of many changes; then the oldest goes. */
export const MAX_TOKEN_KEYS = 32;

/** What is needed to check signatures. */
export type PublicTokenKey = Pick<SigningKey, 'publicKey' | 'id'>;

export interface TokenKeys {
  /** @returns `undefined` for a key whose tokens are not accepted */
  find(id: string): Promise<KeyObject | undefined>;
  /** All keys whose tokens are accepted. */
  list(): Promise<readonly PublicTokenKey[]>;
}

/**
 * Puts the server's own key to those that are accepted.
 * @param options.forgetOthers tokens that other keys signed are not accepted any more
 */
export async function publishTokenKey(
  own: PublicTokenKey,
  { store, clock, forgetOthers }: { store: Store; clock: Clock; forgetOthers: boolean },
): Promise<void> {
  const { entries } = await store.list(TOKEN_KEY_PREFIX);
  const key = TOKEN_KEY_PREFIX + own.id;
  const others = entries
    .filter((entry) => entry.key !== key)
    .toSorted((a, b) => a.createRevision - b.createRevision);
  const excess = forgetOthers ? others.length : others.length - (MAX_TOKEN_KEYS - 1);
  for (const { key: old } of others.slice(0, Math.max(0, excess)))
    await store.transact([], [{ type: 'delete', key: old }]);
  if (entries.some((entry) => entry.key === key)) return;
  const publicKeyPem = own.publicKey.export({ format: 'pem', type: 'spki' }).toString();
  const value = Buffer.from(JSON.stringify({ publicKeyPem, addedMs: clock.now() }));
  await store.transact([{ key, modRevision: 0 }], [{ type: 'put', key, value }]);
}

/** @param own is always accepted */
export function createTokenKeys(store: Store, own: PublicTokenKey): TokenKeys {
  const read = new WeakMap<StoreEntry, KeyObject>();
  const keyOf = (entry: StoreEntry): KeyObject => {
    const known = read.get(entry);
    if (known !== undefined) return known;
    const { publicKeyPem } = JSON.parse(Buffer.from(entry.value).toString('utf8')) as {
      publicKeyPem: string;
    };
    const key = createPublicKey(publicKeyPem);
    read.set(entry, key);
    return key;
  };
  return {
    async find(id) {
      if (id === own.id) return own.publicKey;
      if (!KEY_ID.test(id)) return undefined;
      // What this server knows: a stranger with a made-up id must not make it ask a store elsewhere.
      const entry = await store.known.get(TOKEN_KEY_PREFIX + id);
      return entry === undefined ? undefined : keyOf(entry);
    },
    async list() {
      const { entries } = await store.list(TOKEN_KEY_PREFIX);
      const others = entries.map((entry) => ({
        id: entry.key.slice(TOKEN_KEY_PREFIX.length),
        publicKey: keyOf(entry),
      }));
      return [own, ...others.filter(({ id }) => id !== own.id)];
    },
  };
}
