/**
 * How a machine becomes a node: it shows a join token and a certificate request, and gets a client certificate for
 * `system:node:<name>` of the group `system:nodes`, which is what the API's authorization of nodes goes by.
 */
import { checkDns1123Subdomain } from '#api/machinery/names.ts';
import type { Clock } from '#lib/clock.ts';
import { ApiError, DecodeError } from '#lib/errors.ts';
import type { Store } from '#store/port.ts';
import { NODES_GROUP } from '../principal.ts';
import type { JoinCall } from '../server.ts';
import type { Ca } from './ca.ts';
import type { IssuedCertificate, Subject } from './issue.ts';
import { signCsr } from './issue.ts';
import type { Token, TokenCheck } from './tokens.ts';
import { verifyToken } from './tokens.ts';

/** The answer to a join. */
export interface JoinAnswer {
  /** The node's certificate, PEM. */
  readonly certificate: string;
}

/** Who a node is for the API. */
export function nodeSubject(nodeName: string): Subject {
  return { commonName: `system:node:${nodeName}`, organizations: [NODES_GROUP] };
}

/** Makes what the API server calls on `POST /tulle/v1/join`. */
export function createJoinHandler(options: {
  readonly ca: Ca;
  readonly store: Store;
  readonly clock?: Clock;
}): (call: JoinCall) => Promise<JoinAnswer> {
  const time = options.clock === undefined ? {} : { clock: options.clock };
  return async (call) => {
    if ('node' in call) return await renew(options.ca, call.node, { body: call.body, ...time });
    const check = await verifyToken(options.store, call.token, { usage: 'join', ...time });
    const token = acceptToken(check);
    const { nodeName, csr } = parseJoinBody(call.body);
    const issued = await issueNodeCertificate(options.ca, {
      token,
      nodeName,
      csrPem: csr,
      ...time,
    });
    return { certificate: issued.certificatePem };
  };
}

/** Signs for a node that has a certificate, for itself only. */
async function renew(
  ca: Ca,
  node: string,
  { body, ...time }: { readonly body: unknown; readonly clock?: Clock },
): Promise<JoinAnswer> {
  const { nodeName, csr } = parseJoinBody(body);
  if (nodeName !== node)
    throw new ApiError(403, 'Forbidden', `node "${node}" gets no certificate for "${nodeName}"`);
  return { certificate: (await signNode(ca, { nodeName, csrPem: csr, ...time })).certificatePem };
}

/**
 * Signs a node's certificate.
 * @param request.token a token that was checked, see {@link acceptToken}
 * @throws ApiError 422 if the name is no node's name, 400 if the request cannot be signed, 403 if the token is not for joining
 */
export async function issueNodeCertificate(
  ca: Ca,
  request: {
    readonly token: Token;
    readonly nodeName: string;
    readonly csrPem: string;
    readonly clock?: Clock;
  },
): Promise<IssuedCertificate> {
  if (!request.token.usages.includes('join'))
    acceptToken({ kind: 'not-for-this', token: request.token });
  const problem = checkDns1123Subdomain(request.nodeName);
  if (problem !== undefined) {
    const message = `nodeName: Invalid value: ${JSON.stringify(request.nodeName)}: ${problem}`;
    throw new ApiError(422, 'Invalid', message);
  }
  return await signNode(ca, request);
}

async function signNode(
  ca: Ca,
  request: { readonly nodeName: string; readonly csrPem: string; readonly clock?: Clock },
): Promise<IssuedCertificate> {
  try {
    return await signCsr(ca, request.csrPem, {
      subject: nodeSubject(request.nodeName),
      ...(request.clock === undefined ? {} : { clock: request.clock }),
    });
  } catch (error) {
    if (!(error instanceof DecodeError)) throw error;
    throw new ApiError(400, 'BadRequest', error.message, { cause: error });
  }
}

/** @throws ApiError 401 or 403 for every token but a good one, saying what to do */
export function acceptToken(check: TokenCheck): Token {
  switch (check.kind) {
    case 'valid':
      return check.token;
    case 'unknown':
      throw new ApiError(
        401,
        'Unauthorized',
        'the join token is not known to this cluster: it is of another one, was revoked, or has expired',
      );
    case 'expired': {
      const at = new Date(check.token.expiresMs ?? 0).toISOString();
      const message = `the join token "${check.token.id}" has expired at ${at}`;
      throw new ApiError(401, 'Unauthorized', message);
    }
    case 'not-for-this':
      throw new ApiError(403, 'Forbidden', `the token "${check.token.id}" is not for joining`);
  }
}

function parseJoinBody(body: unknown): { nodeName: string; csr: string } {
  const { nodeName, csr } = (body ?? {}) as { nodeName?: unknown; csr?: unknown };
  if (typeof nodeName === 'string' && typeof csr === 'string') return { nodeName, csr };
  const message =
    'the body of a join is {"nodeName": "…", "csr": "-----BEGIN CERTIFICATE REQUEST…"}';
  throw new ApiError(400, 'BadRequest', message);
}
