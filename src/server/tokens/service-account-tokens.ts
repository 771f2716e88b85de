/**
 * Tokens of service accounts: signed, for an audience, with an end, and bound to the account (and to a pod, a secret or
 * a node) as it exists. So a token is worth nothing any more when what it was made for is gone, without a list of
 * tokens anywhere.
 */
import { randomUUID } from 'node:crypto';
import {
  type BoundObjectReference,
  DEFAULT_TOKEN_SECONDS,
  type TokenRequest,
} from '#api/authentication/v1/reviews.ts';
import { NODE } from '#api/core/v1/node.ts';
import { POD } from '#api/core/v1/pod.ts';
import { SECRET } from '#api/core/v1/secret.ts';
import { SERVICE_ACCOUNT } from '#api/core/v1/service-account.ts';
import type { KindRef } from '#api/kind.ts';
import { conflict, notFound } from '#api/machinery/status.ts';
import type { KubeObject } from '#api/meta.ts';
import type { Clock } from '#lib/clock.ts';
import type { Store } from '#store/port.ts';
import type { Principal } from '../principal.ts';
import { decodeEntry } from '../registry/codec.ts';
import { objectKey } from '../registry/keys.ts';
import { signToken, verifyToken } from './jwt.ts';
import type { SigningKey } from './signing-key.ts';
import { createTokenKeys, type PublicTokenKey, type TokenKeys } from './token-keys.ts';

/** Between the clocks of two servers of a cluster. */
const MAX_CLOCK_SKEW_SECONDS = 10;
/** Signatures that were found good: checking one takes a tenth of a millisecond, and a pod shows its token each time. */
const MAX_REMEMBERED_TOKENS = 4_000;

const BOUND_KINDS: Readonly<Record<string, { kind: KindRef; claim: string }>> = {
  Pod: { kind: POD, claim: 'pod' },
  Secret: { kind: SECRET, claim: 'secret' },
  Node: { kind: NODE, claim: 'node' },
};

export type TokenAnswer =
  | { readonly kind: 'valid'; readonly principal: Principal; readonly audiences: readonly string[] }
  | { readonly kind: 'refused'; readonly why: string };

export interface ServiceAccountTokens {
  readonly issuer: string;
  readonly keys: TokenKeys;
  /**
   * Makes a token.
   * @param account of this name and namespace; `request` is checked
   * @throws ApiError NotFound if the account or what the token shall be bound to is not there, Conflict if it is another
   */
  issue(
    account: { namespace: string; name: string },
    request: TokenRequest,
  ): Promise<{ token: string; expiresMs: number; audiences: readonly string[] }>;
  /** @param audiences of which the token must be meant for one; missing: this API */
  check(token: string, audiences?: readonly string[]): Promise<TokenAnswer>;
}

interface ObjectClaim {
  readonly name: string;
  readonly uid: string;
}

/** The claims under `kubernetes.io`. */
interface KubernetesClaims {
  readonly namespace: string;
  readonly serviceaccount: ObjectClaim;
  readonly pod?: ObjectClaim;
  readonly secret?: ObjectClaim;
  readonly node?: ObjectClaim;
}

interface Claims {
  readonly iss: string;
  readonly sub: string;
  readonly aud: readonly string[];
  readonly exp: number;
  readonly iat: number;
  readonly nbf: number;
  readonly jti: string;
  readonly 'kubernetes.io': KubernetesClaims;
}

interface Remembered {
  readonly claims: Claims;
  readonly keyId: string;
}

export function createServiceAccountTokens(options: {
  readonly store: Store;
  readonly key: SigningKey;
  /** A URL: who gives the tokens out, and the audience of those for this API. */
  readonly issuer: string;
  readonly clock: Clock;
}): ServiceAccountTokens {
  const { store, key, issuer, clock } = options;
  const keys = createTokenKeys(store, key);
  const remembered = new Map<string, Remembered>();

  const read = async (kind: KindRef, namespace: string, name: string) => {
    const entry = await store.get(objectKey(kind, kind.namespaced ? namespace : '', name));
    return entry === undefined ? undefined : decodeEntry(entry);
  };

  const claimsOf = async (token: string): Promise<Claims | string> => {
    const known = remembered.get(token);
    if (known !== undefined) {
      // A key can be taken back at any time.
      if ((await keys.find(known.keyId)) !== undefined) return known.claims;
      remembered.delete(token);
    }
    const verdict = await verifyToken(token, keys.find);
    if (verdict.kind === 'refused') return verdict.why;
    const claims = parseClaims(verdict.claims);
    if (claims === undefined) return 'its claims are not those of a service account';
    const [oldest] = remembered.keys();
    if (remembered.size >= MAX_REMEMBERED_TOKENS && oldest !== undefined) remembered.delete(oldest);
    remembered.set(token, { claims, keyId: verdict.keyId });
    return claims;
  };

  return {
    issuer,
    keys,
    async issue({ namespace, name }, { spec }) {
      const account = await read(SERVICE_ACCOUNT, namespace, name);
      if (account === undefined) throw notFound(SERVICE_ACCOUNT, name);
      const bound = await boundClaims(spec.boundObjectRef, (kind, wanted) =>
        read(kind, namespace, wanted),
      );
      const nowSeconds = Math.floor(clock.now() / 1000);
      const exp = nowSeconds + (spec.expirationSeconds ?? DEFAULT_TOKEN_SECONDS);
      const audiences = spec.audiences?.length ? spec.audiences : [issuer];
      const claims: Claims = {
        iss: issuer,
        sub: `system:serviceaccount:${namespace}:${name}`,
        aud: audiences,
        exp,
        iat: nowSeconds,
        nbf: nowSeconds,
        jti: randomUUID(),
        'kubernetes.io': { namespace, serviceaccount: claimOf(account), ...bound },
      };
      return { token: signToken(claims, key), expiresMs: exp * 1000, audiences };
    },
    async check(token, wanted = [issuer]) {
      const claims = await claimsOf(token);
      if (typeof claims === 'string') return { kind: 'refused', why: claims };
      if (claims.iss !== issuer) return { kind: 'refused', why: 'somebody else has issued it' };
      const audiences = claims.aud.filter((audience) => wanted.includes(audience));
      if (audiences.length === 0) return { kind: 'refused', why: 'it is meant for somebody else' };
      const nowSeconds = clock.now() / 1000;
      if (nowSeconds >= claims.exp) return { kind: 'refused', why: 'it has expired' };
      if (nowSeconds < claims.nbf - MAX_CLOCK_SKEW_SECONDS)
        return { kind: 'refused', why: 'it does not hold yet' };
      const gone = await goneOf(claims['kubernetes.io'], read);
      if (gone !== undefined) return { kind: 'refused', why: `${gone} is gone` };
      return { kind: 'valid', principal: principalOf(claims), audiences };
    },
  };
}

function claimOf({ metadata }: KubeObject): ObjectClaim {
  return { name: metadata.name, uid: metadata.uid ?? '' };
}

async function boundClaims(
  reference: BoundObjectReference | undefined,
  read: (kind: KindRef, name: string) => Promise<KubeObject | undefined>,
): Promise<Partial<KubernetesClaims>> {
  const { kind: kindName = '', name = '', uid = '' } = reference ?? {};
  const bound = BOUND_KINDS[kindName];
  if (reference === undefined || bound === undefined) return {};
  const object = await read(bound.kind, name);
  if (object === undefined) throw notFound(bound.kind, name);
  if (uid !== '' && uid !== object.metadata.uid)
    throw conflict(
      bound.kind,
      name,
      `the UID in the bound object reference (${uid}) does not match the UID in record. The object might have been deleted and then recreated`,
    );
  return { [bound.claim]: claimOf(object) };
}

/** @returns what of the objects that a token is bound to is not there any more */
async function goneOf(
  claims: KubernetesClaims,
  read: (kind: KindRef, namespace: string, name: string) => Promise<KubeObject | undefined>,
): Promise<string | undefined> {
  const bound: [string, KindRef, ObjectClaim | undefined][] = [
    ['its service account', SERVICE_ACCOUNT, claims.serviceaccount],
    ['its pod', POD, claims.pod],
    ['its secret', SECRET, claims.secret],
    ['its node', NODE, claims.node],
  ];
  for (const [what, kind, claim] of bound) {
    if (claim === undefined) continue;
    const object = await read(kind, claims.namespace, claim.name);
    if (object === undefined || object.metadata.uid !== claim.uid) return what;
  }
  return undefined;
}

function principalOf(claims: Claims): Principal {
  const { namespace, serviceaccount, pod, node } = claims['kubernetes.io'];
  const extra = (name: string, value: string | undefined) =>
    value === undefined ? {} : { [`authentication.kubernetes.io/${name}`]: [value] };
  return {
    name: `system:serviceaccount:${namespace}:${serviceaccount.name}`,
    uid: serviceaccount.uid,
    groups: [
      'system:serviceaccounts',
      `system:serviceaccounts:${namespace}`,
      'system:authenticated',
    ],
    extra: {
      ...extra('credential-id', `JTI=${claims.jti}`),
      ...extra('pod-name', pod?.name),
      ...extra('pod-uid', pod?.uid),
      ...extra('node-name', node?.name),
      ...extra('node-uid', node?.uid),
    },
  };
}

/** The signature says that we wrote them; this says that they are of this form, whatever version of us did. */
function parseClaims(claims: Readonly<Record<string, unknown>>): Claims | undefined {
  const { iss, sub, aud, exp, iat, nbf, jti, 'kubernetes.io': kubernetes } = claims;
  const own = kubernetes as KubernetesClaims | undefined;
  const isGood =
    [iss, sub, jti].every((value) => typeof value === 'string') &&
    [exp, iat, nbf].every((value) => typeof value === 'number') &&
    Array.isArray(aud) &&
    typeof own?.namespace === 'string' &&
    [own.serviceaccount, own.pod, own.secret, own.node].every(
      (claim, i) =>
        (i > 0 && claim === undefined) ||
        (typeof claim?.name === 'string' && typeof claim.uid === 'string'),
    );
  return isGood ? (claims as unknown as Claims) : undefined;
}

/** `/.well-known/openid-configuration`: how others find the keys (OpenID Connect Discovery 1.0). */
export function openIdConfiguration(issuer: string, serverUrl: string): object {
  return {
    issuer,
    jwks_uri: `${serverUrl}/openid/v1/jwks`,
    response_types_supported: ['id_token'],
    subject_types_supported: ['public'],
    id_token_signing_alg_values_supported: ['ES256'],
  };
}

/** `/openid/v1/jwks`: the keys (RFC 7517). */
export function jsonWebKeys(keys: readonly PublicTokenKey[]): object {
  return {
    keys: keys.map(({ publicKey, id }) => {
      const { kty, crv, x, y } = publicKey.export({ format: 'jwk' });
      return { use: 'sig', kty, kid: id, crv, alg: 'ES256', x, y };
    }),
  };
}
