/**
 * The new machine's side of joining a cluster.
 *
 *     GET  /tulle/v1/ca       over TLS that is not checked: nothing secret is sent, and what comes back is
 *                             believed only if its key has the hash that the token pins
 *     POST /tulle/v1/join     over TLS checked with that certificate: token and certificate request go out
 *
 *     <directory>/ca.crt  node.crt  0644      node.key  0600, never leaves the machine
 */
import 'reflect-metadata';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Pkcs10CertificateRequestGenerator } from '@peculiar/x509';
import type { Status } from '#api/meta.ts';
import { writeFileAtomic } from '#lib/atomic-file.ts';
import type { Clock } from '#lib/clock.ts';
import { systemClock } from '#lib/clock.ts';
import { explainError, UserError } from '#lib/errors.ts';
import type { JoinToken } from './join-token.ts';
import { formatBearer, parseJoinToken, spkiFingerprint } from './join-token.ts';
import type { HttpsAnswer } from './pinned-https.ts';
import { pinnedRequest, RequestError } from './pinned-https.ts';
import type { ApiClient } from './port.ts';

export interface JoinOptions {
  /** `https://host:port` */
  readonly server: string;
  /** The whole token, with its pin. */
  readonly token: string;
  readonly nodeName: string;
  /** Where the identity is kept; made, with mode 0700, if it is missing. */
  readonly directory: string;
  readonly clock?: Clock;
  readonly signal?: AbortSignal;
}

export interface NodeIdentity {
  readonly caPath: string;
  readonly certificatePath: string;
  readonly keyPath: string;
  /** False if the machine had joined already, and nothing was sent. */
  readonly joined: boolean;
}

const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g;

/**
 * Joins the cluster once: if the directory holds an identity of this node that is still good and of the pinned CA,
 * nothing is done, and the server need not even be there.
 * @throws UserError saying what to do; {@link isServerAway} tells whether to try again without changing anything
 */
export async function joinNode(options: JoinOptions): Promise<NodeIdentity> {
  const token = parseJoinToken(options.token);
  const server = parseServer(options.server);
  const paths = pathsIn(options.directory);
  const nowMs = (options.clock ?? systemClock).now();
  if (isGoodIdentity(paths, token.caFingerprint, options.nodeName, nowMs))
    return { ...paths, joined: false };
  const caPem = await fetchCa(server, token, options.signal);
  const { keyPem, csrPem } = await newRequest();
  const certificatePem = await requestCertificate(server, { ...options, token, caPem, csrPem });
  checkCertificate(certificatePem, { what: `join "${server.origin}"`, caPem, keyPem });
  keep(options.directory, [
    [paths.keyPath, keyPem, 0o600],
    [paths.caPath, caPem, 0o644],
    [paths.certificatePath, certificatePem, 0o644],
  ]);
  return { ...paths, joined: true };
}

/**
 * Gets another certificate for a node that has joined, for which it shows the one it has, and keeps it.
 * @throws UserError if the server gives none
 */
export async function renewNode(options: {
  readonly client: Pick<ApiClient, 'raw'>;
  readonly nodeName: string;
  /** Where joining left the node's identity. */
  readonly directory: string;
}): Promise<{ certificatePem: string; keyPem: string }> {
  const { client, nodeName, directory } = options;
  const paths = pathsIn(directory);
  const { keyPem, csrPem } = await newRequest();
  const { status, body } = await client.raw('POST', '/tulle/v1/join', {
    body: { nodeName, csr: csrPem },
  });
  const { certificate, message } = parseJson(body) as { certificate?: unknown; message?: unknown };
  if (typeof certificate !== 'string')
    throw new UserError(`Cannot renew the node's certificate: ${message ?? `status ${status}`}`, {
      hint: "If it runs out first, join again with a token of 'tulle token create'.",
    });
  checkCertificate(certificate, {
    what: "renew the node's certificate",
    caPem: readFileSync(paths.caPath, 'utf8'),
    keyPem,
  });
  keep(directory, [
    [paths.keyPath, keyPem, 0o600],
    [paths.certificatePath, certificate, 0o644],
  ]);
  return { certificatePem: certificate, keyPem };
}

function pathsIn(directory: string): Omit<NodeIdentity, 'joined'> {
  return {
    caPath: join(directory, 'ca.crt'),
    certificatePath: join(directory, 'node.crt'),
    keyPath: join(directory, 'node.key'),
  };
}

/** Each file is whole; a crash between them leaves files that do not belong together, which the next join sees. */
function keep(directory: string, files: readonly (readonly [string, string, number])[]): void {
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    for (const [path, text, mode] of files) writeFileAtomic(path, text, { mode });
  } catch (cause) {
    throw new UserError(
      `Cannot keep the node's certificate in "${directory}": ${explainError(cause)}`,
      { hint: 'Give a directory that this user may write to, on a disk with space.', cause },
    );
  }
}

/** True if the join failed only because the server did not answer or could not now: the same call may work later. */
export function isServerAway(error: unknown): boolean {
  if (!(error instanceof UserError) || !(error.cause instanceof RequestError)) return false;
  return TLS_HINTS.every(([pattern]) => !pattern.test(codeOf(error.cause)));
}

function parseServer(text: string): URL {
  const url = URL.parse(text);
  if (url === null || url.protocol !== 'https:' || url.hostname === '')
    throw new UserError(`Cannot join "${text}": that is no address of a server`, {
      hint: 'Give it as "https://host:port".',
    });
  return url;
}

/** Whether the files are a certificate of this node with its key, of the pinned CA, and not run out. */
function isGoodIdentity(
  paths: { caPath: string; certificatePath: string; keyPath: string },
  caFingerprint: string,
  nodeName: string,
  nowMs: number,
): boolean {
  try {
    const ca = new X509Certificate(readFileSync(paths.caPath));
    const chain = certificatesOf(readFileSync(paths.certificatePath, 'utf8'));
    const [certificate] = chain;
    const key = createPrivateKey(readFileSync(paths.keyPath));
    return (
      certificate !== undefined &&
      spkiFingerprint(ca) === caFingerprint &&
      nowMs < ca.validToDate.getTime() &&
      nowMs < certificate.validToDate.getTime() &&
      isChainOf(chain, ca) &&
      certificate.checkPrivateKey(key) &&
      certificate.subject.split('\n').includes(`CN=system:node:${nodeName}`)
    );
  } catch {
    // Missing, unreadable or not a certificate: all of it means that there is no identity yet, and joining makes one.
    return false;
  }
}

async function fetchCa(
  server: URL,
  token: JoinToken,
  signal: AbortSignal | undefined,
): Promise<string> {
  const url = new URL('/tulle/v1/ca', server);
  const answer = await ask(url, { method: 'GET', caPem: undefined, signal });
  if (answer.status !== 200)
    throw refused(server, answer, 'Check that this is the address of a Tulle server.');
  for (const pem of answer.body.match(PEM_CERTIFICATE) ?? []) {
    // Only this one is trusted, whatever else came with it.
    if (isPinnedCa(pem, token.caFingerprint)) return `${pem}\n`;
  }
  throw new UserError(
    `Cannot join "${server.origin}": it is not the server that the token is for (no certificate has the pinned key ${token.caFingerprint})`,
    {
      hint: "Check the server's address, and make a new token there with 'tulle token create'. If both are right, somebody is in between.",
    },
  );
}

function isPinnedCa(pem: string, caFingerprint: string): boolean {
  try {
    const certificate = new X509Certificate(pem);
    return certificate.ca && spkiFingerprint(certificate) === caFingerprint;
  } catch {
    // Not a certificate after all; the caller says what is missing.
    return false;
  }
}

/** A certificate and those of the authorities between it and the CA; more of them than this are no chain. */
const MAX_CHAIN = 10;

function certificatesOf(pem: string): X509Certificate[] {
  return (pem.match(PEM_CERTIFICATE) ?? [])
    .slice(0, MAX_CHAIN)
    .map((it) => new X509Certificate(it));
}

/** Whether each is signed by the next, and the last by the CA. */
function isChainOf(chain: readonly X509Certificate[], ca: X509Certificate): boolean {
  return chain.every((certificate, i) => {
    const issuer = chain[i + 1] ?? ca;
    return issuer.ca && certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
  });
}

async function newRequest(): Promise<{ keyPem: string; csrPem: string }> {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256' };
  const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  // Without a subject: the server decides it, from the name in the call.
  const csr = await Pkcs10CertificateRequestGenerator.create({
    keys,
    signingAlgorithm: { name: 'ECDSA', hash: 'SHA-256' },
  });
  const der = Buffer.from(await crypto.subtle.exportKey('pkcs8', keys.privateKey));
  const key = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  return {
    keyPem: key.export({ format: 'pem', type: 'pkcs8' }).toString(),
    csrPem: csr.toString('pem'),
  };
}

async function requestCertificate(
  server: URL,
  options: {
    readonly token: JoinToken;
    readonly nodeName: string;
    readonly caPem: string;
    readonly csrPem: string;
    readonly signal?: AbortSignal;
  },
): Promise<string> {
  const answer = await ask(new URL('/tulle/v1/join', server), {
    method: 'POST',
    caPem: options.caPem,
    headers: {
      authorization: `Bearer ${formatBearer(options.token)}`,
      'content-type': 'application/json',
    },
    body: JSON.stringify({ nodeName: options.nodeName, csr: options.csrPem }),
    signal: options.signal,
  });
  if (answer.status < 200 || answer.status > 299) {
    const tokenIsBad = answer.status === 401 || answer.status === 403;
    throw refused(
      server,
      answer,
      tokenIsBad
        ? "Make a new token on the server with 'tulle token create'."
        : 'Correct what the server says, and join again.',
    );
  }
  const { certificate } = parseJson(answer.body) as { certificate?: unknown };
  if (typeof certificate === 'string') return certificate;
  throw new UserError(`Cannot join "${server.origin}": its answer holds no certificate`, {
    hint: 'Check that server and node are of the same version of Tulle.',
  });
}

/** What the server signed must be usable before it replaces anything. */
function checkCertificate(
  certificatePem: string,
  with_: { readonly what: string; readonly caPem: string; readonly keyPem: string },
): void {
  try {
    const chain = certificatesOf(certificatePem);
    const [certificate] = chain;
    if (certificate === undefined || !isChainOf(chain, new X509Certificate(with_.caPem)))
      throw new Error('the CA has not signed it');
    if (!certificate.checkPrivateKey(createPrivateKey(with_.keyPem)))
      throw new Error('it is for another key');
  } catch (cause) {
    throw new UserError(
      `Cannot ${with_.what}: the server's certificate is of no use: ${explainError(cause)}`,
      { hint: 'Check that server and node are of the same version of Tulle.', cause },
    );
  }
}

/** Errors of TLS that trying again does not mend, and what does. */
const TLS_HINTS: readonly (readonly [RegExp, string])[] = [
  [/ALTNAME/, "Use a name or address that is in the server's certificate."],
  [/CERT_(NOT_YET_VALID|HAS_EXPIRED)/, "Set this machine's and the server's clock."],
  [
    /SELF_SIGNED|UNABLE_TO|SIGNATURE/,
    "The server's own certificate is not of the cluster's CA: somebody is in between, or its certificate must be made anew.",
  ],
];

async function ask(url: URL, options: Parameters<typeof pinnedRequest>[1]): Promise<HttpsAnswer> {
  try {
    return await pinnedRequest(url, options);
  } catch (cause) {
    if (!(cause instanceof RequestError)) throw cause;
    const tls = TLS_HINTS.find(([pattern]) => pattern.test(codeOf(cause)));
    throw new UserError(`Cannot reach the server "${url.origin}": ${cause.message}`, {
      hint: tls?.[1] ?? 'Check that the server runs, and that its address and port are right.',
      cause,
    });
  }
}

function codeOf(error: unknown): string {
  return error instanceof RequestError ? (error.code ?? '') : '';
}

function refused(server: URL, answer: HttpsAnswer, hint: string): UserError {
  const { message } = parseJson(answer.body) as Partial<Status>;
  const said = message ?? `status ${answer.status}`;
  // A server that cannot now (starting, disk full) is as good as away.
  const cause = answer.status >= 500 ? new RequestError(new Error(said)) : undefined;
  return new UserError(`Cannot join "${server.origin}": ${said}`, { hint, cause });
}

/** @returns an empty object for what is no JSON object */
function parseJson(text: string): object {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? value : {};
  } catch {
    // Not JSON: a proxy's page, perhaps. The status says enough.
    return {};
  }
}
