/**
 * Join tokens: what a new machine is given to become a node.
 *
 *     8f3k2a.q0w9e8r7t6y5u4i3@sha256:9c1e…64 hex digits
 *     └─id─┘ └────secret────┘ └─ SHA-256 of the SubjectPublicKeyInfo of the cluster's CA
 *
 * The id and the secret prove the machine to the server. The pin proves the server to the machine, which knows nothing
 * else of it yet (RFC 7469 pins the same hash).
 */
import { createHash, X509Certificate } from 'node:crypto';
import { UserError } from '#lib/errors.ts';

export interface JoinToken {
  readonly id: string;
  readonly secret: string;
  /** `sha256:` and 64 hex digits, as {@link spkiFingerprint} gives it. */
  readonly caFingerprint: string;
}

const TOKEN_PATTERN = /^([a-z0-9]{6})\.([a-z0-9]{16})@(sha256:[0-9a-f]{64})$/;
const BEARER_PATTERN = /^([a-z0-9]{6})\.([a-z0-9]{16})$/;

/** @throws UserError; the message does not repeat the text, which may be nearly a secret */
export function parseJoinToken(text: string): JoinToken {
  const [, id, secret, caFingerprint] = TOKEN_PATTERN.exec(text.trim()) ?? [];
  if (id === undefined || secret === undefined || caFingerprint === undefined)
    throw new UserError(
      'Cannot read the join token: it has the form "<6 characters>.<16 characters>@sha256:<64 hex digits>"',
      { hint: "Copy the whole token as 'tulle token create' printed it." },
    );
  return { id, secret, caFingerprint };
}

export function formatJoinToken(token: JoinToken): string {
  return `${formatBearer(token)}@${token.caFingerprint}`;
}

/** What goes into `Authorization: Bearer`: id and secret. The pin is the machine's own. */
export function formatBearer(token: Pick<JoinToken, 'id' | 'secret'>): string {
  return `${token.id}.${token.secret}`;
}

/** @returns `undefined` for text that is no join token's bearer part */
export function parseBearer(text: string): Pick<JoinToken, 'id' | 'secret'> | undefined {
  const [, id, secret] = BEARER_PATTERN.exec(text) ?? [];
  return id === undefined || secret === undefined ? undefined : { id, secret };
}

/**
 * Names a certificate's key: `sha256:` and the hash of its SubjectPublicKeyInfo. It stays when the certificate is renewed.
 * @throws the crypto library's error for text that is no certificate
 */
export function spkiFingerprint(certificate: X509Certificate | string): string {
  const { publicKey } =
    typeof certificate === 'string' ? new X509Certificate(certificate) : certificate;
  const spki = publicKey.export({ type: 'spki', format: 'der' });
  return `sha256:${createHash('sha256').update(spki).digest('hex')}`;
}
