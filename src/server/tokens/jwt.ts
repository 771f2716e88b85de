/** JSON Web Tokens (RFC 7519) signed with ES256 (RFC 7518 section 3.4), and nothing else: no other algorithm, no `none`. */
import { type KeyObject, sign, verify } from 'node:crypto';
import type { SigningKey } from './signing-key.ts';

/** Ours have about a kilobyte. */
export const MAX_TOKEN_LENGTH = 16 * 1024;

export function signToken(claims: object, key: SigningKey): string {
  const header = encodePart({ alg: 'ES256', kid: key.id, typ: 'JWT' });
  const signed = `${header}.${encodePart(claims)}`;
  const signature = sign('sha256', Buffer.from(signed), {
    key: key.privateKey,
    dsaEncoding: 'ieee-p1363',
  });
  return `${signed}.${signature.toString('base64url')}`;
}

export type TokenVerdict =
  | {
      readonly kind: 'signed';
      readonly claims: Readonly<Record<string, unknown>>;
      readonly keyId: string;
    }
  | { readonly kind: 'refused'; readonly why: string };

/** Checks form and signature only; what the claims say is for the caller. */
export async function verifyToken(
  token: string,
  findKey: (id: string) => Promise<KeyObject | undefined>,
): Promise<TokenVerdict> {
  if (token.length > MAX_TOKEN_LENGTH) return refused('it is too long');
  const [header = '', payload = '', signature = '', ...rest] = token.split('.');
  if (signature === '' || rest.length > 0) return refused('it is no signed token');
  const { alg, kid } = decodePart(header) ?? {};
  if (alg !== 'ES256') return refused('it is not signed with ES256');
  const publicKey = typeof kid === 'string' ? await findKey(kid) : undefined;
  if (typeof kid !== 'string' || publicKey === undefined)
    return refused("it is signed with a key that is not this cluster's");
  const isSigned = verify(
    'sha256',
    Buffer.from(`${header}.${payload}`),
    { key: publicKey, dsaEncoding: 'ieee-p1363' },
    Buffer.from(signature, 'base64url'),
  );
  if (!isSigned) return refused('its signature does not hold');
  const claims = decodePart(payload);
  return claims === undefined
    ? refused('its claims cannot be read')
    : { kind: 'signed', claims, keyId: kid };
}

function refused(why: string): TokenVerdict {
  return { kind: 'refused', why };
}

function encodePart(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}

function decodePart(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(text, 'base64url').toString('utf8'));
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined; // No JSON: the caller says so.
  }
}
