/** What a connection and its requests show of a client, read from TLS once per connection. */
import { X509Certificate } from 'node:crypto';
import type { Http2ServerRequest } from 'node:http2';
import type { TLSSocket } from 'node:tls';
import type { Clock } from '#lib/clock.ts';
import type { Credentials } from './authn.ts';

type Certificate = NonNullable<Credentials['certificate']>;

interface Shown {
  readonly certificate: Certificate;
  /** End of the certificate's validity, milliseconds since the epoch. */
  readonly notAfterMs: number;
}

export interface CredentialsReader {
  of(request: Http2ServerRequest): Credentials;
}

/** @param issuersPem whose client certificates are believed, of all that TLS holds for good */
export function createCredentialsReader(
  clock: Clock,
  issuersPem: readonly string[],
): CredentialsReader {
  const issuers = issuersPem.map((pem) => new X509Certificate(pem));
  // Decoding a certificate costs more than a small request.
  const known = new WeakMap<object, Shown | 'none'>();
  return {
    of(request) {
      const connection = connectionOf(request);
      let shown = known.get(connection);
      if (shown === undefined) {
        shown = readCertificate(request.socket as TLSSocket, issuers) ?? 'none';
        known.set(connection, shown);
      }
      const { authorization } = request.headers;
      return {
        ...(authorization === undefined ? {} : { authorization }),
        ...(shown === 'none' ? {} : { certificate: asOf(shown, clock.now()) }),
      };
    },
  };
}

/** HTTP/2 makes a new view of the socket for every request; its session is what lasts as long as the connection. */
export function connectionOf(request: Http2ServerRequest): object {
  return (request.httpVersionMajor === 2 ? request.stream.session : undefined) ?? request.socket;
}

/** A connection can outlive the certificate it began with. */
function asOf({ certificate, notAfterMs }: Shown, nowMs: number): Certificate {
  if (nowMs <= notAfterMs) return certificate;
  return { ...certificate, isTrusted: false, problem: 'CERT_HAS_EXPIRED' };
}

function readCertificate(
  socket: TLSSocket,
  issuers: readonly X509Certificate[],
): Shown | undefined {
  const certificate = socket.getPeerCertificate();
  // Without a certificate the object is empty, whatever its type says.
  if (Object.keys(certificate ?? {}).length === 0) return undefined;
  const problem = problemOf(socket, new X509Certificate(certificate.raw), issuers);
  return {
    certificate: {
      isTrusted: problem === undefined,
      ...(problem === undefined ? {} : { problem }),
      commonNames: listOf(certificate.subject?.CN),
      organizations: listOf(certificate.subject?.O),
    },
    notAfterMs: Date.parse(certificate.valid_to),
  };
}

/** An authority above ours has other branches, with people of their own who are nobody here. */
function problemOf(
  socket: TLSSocket,
  certificate: X509Certificate,
  issuers: readonly X509Certificate[],
): string | undefined {
  if (!socket.authorized) return String(socket.authorizationError ?? 'NOT_VERIFIED');
  const isOurs = issuers.some(
    (issuer) => certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey),
  );
  return isOurs ? undefined : 'NOT_OF_THIS_CLUSTER';
}

/** Node gives one value as text and several as a list. */
function listOf(value: string | readonly string[] | undefined): readonly string[] {
  if (value === undefined) return [];
  return typeof value === 'string' ? [value] : value;
}
