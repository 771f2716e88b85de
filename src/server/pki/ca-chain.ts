/**
 * The certificates of an authority: of its own key, and of those above it up to one that signed itself.
 *
 *     issuing (of our key) ─► intermediate … ─► root
 *     └──────── shown beside each certificate ┘ └ what clients trust
 *
 * An authority that signed itself is issuing and root in one, and nothing is shown beside its certificates.
 */
import { type KeyObject, X509Certificate } from 'node:crypto';
import { UserError } from '#lib/errors.ts';
import { CLOCK_SKEW_MS } from './certificate.ts';

export interface CaChain {
  readonly issuing: X509Certificate;
  readonly root: X509Certificate;
  /** PEM of the issuing certificate and of all above it but the root; empty if it is the root. */
  readonly shownPem: string;
}

const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g;
/** Real chains have two or three; a file of all the world's authorities is a mistake. */
const MAX_CERTIFICATES = 10;
/** `keyCertSign`, bit 5 of the first byte of the key usage's BIT STRING (RFC 5280 section 4.2.1.3). */
const KEY_CERT_SIGN = 0x04;
/** `id-ce-keyUsage`, DER. */
const KEY_USAGE_OID = Buffer.from([0x06, 0x03, 0x55, 0x1d, 0x0f]);
const SERVER_AUTH = '1.3.6.1.5.5.7.3.1';
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2';
const ANY_USAGE = '2.5.29.37.0';

/**
 * @param pem certificates in any order
 * @param publicKey of the authority's key
 * @throws UserError if there is no certificate of the key, or one of the chain cannot be used
 */
export function readCaChain(pem: string, publicKey: KeyObject, nowMs: number): CaChain {
  const certificates = parseCertificates(pem);
  const issuing = certificates.find((it) => it.publicKey.equals(publicKey));
  if (issuing === undefined)
    throw new UserError('the certificate is not of this key', {
      hint: 'Give the key and the certificate that were made together; the others of the chain may follow in the same file.',
    });
  const chain = [issuing];
  let last = issuing;
  // Each is checked before its issuer is looked for: what may not sign has not signed itself either.
  checkCertificate(last, 0, nowMs);
  while (!isSelfSigned(last)) {
    const issuer = certificates.find((it) => last.checkIssued(it) && last.verify(it.publicKey));
    if (issuer === undefined || chain.includes(issuer))
      throw new UserError(
        `the certificate "${nameOf(last)}" is of "${oneLine(last.issuer)}", whose certificate is missing`,
        {
          hint: 'Put all certificates up to the one that signed itself into the file: that one is what clients trust.',
        },
      );
    checkCertificate(issuer, chain.length, nowMs);
    chain.push(issuer);
    last = issuer;
  }
  return { issuing, root: last, shownPem: chain.slice(0, -1).map(pemOf).join('') };
}

/** @throws UserError */
function parseCertificates(pem: string): X509Certificate[] {
  const texts = pem.match(PEM_CERTIFICATE) ?? [];
  if (texts.length === 0 || texts.length > MAX_CERTIFICATES)
    throw new UserError(
      `the file has ${texts.length === 0 ? 'no certificate' : `${texts.length} certificates`}`,
      { hint: `It must hold 1 to ${MAX_CERTIFICATES}, as PEM ("-----BEGIN CERTIFICATE-----").` },
    );
  return texts.map((text, i) => {
    try {
      return new X509Certificate(text);
    } catch (cause) {
      throw new UserError(`certificate ${i + 1} of the file cannot be read`, { cause });
    }
  });
}

/** @param below how many authorities of the chain are below it */
function checkCertificate(certificate: X509Certificate, below: number, nowMs: number): void {
  const name = nameOf(certificate);
  const refuse = (why: string, hint: string) =>
    new UserError(`the certificate "${name}" ${why}`, { hint });
  if (!mayCertify(certificate))
    throw refuse(
      'may not sign certificates (key usage without keyCertSign)',
      'Have it made with "keyUsage=critical,keyCertSign,cRLSign".',
    );
  if (!certificate.ca)
    throw refuse(
      'is not of an authority (basic constraints, CA:FALSE)',
      'Have it made with "basicConstraints=critical,CA:TRUE".',
    );
  const usages = certificate.keyUsage ?? [];
  const has = (usage: string) => usages.includes(usage) || usages.includes(ANY_USAGE);
  if (usages.length > 0 && !(has(SERVER_AUTH) && has(CLIENT_AUTH)))
    throw refuse(
      'is not for servers and clients of TLS (extended key usage)',
      'Have it made without extended key usages, or with serverAuth and clientAuth.',
    );
  if (certificate.validToDate.getTime() < nowMs)
    throw refuse(
      `has run out on ${certificate.validToDate.toISOString()}`,
      'Have it renewed, or set the clock of this machine.',
    );
  if (certificate.validFromDate.getTime() > nowMs + CLOCK_SKEW_MS)
    throw refuse(
      `is valid only from ${certificate.validFromDate.toISOString()} on`,
      'Set the clock of this machine, or wait.',
    );
  const limit = pathLimitOf(certificate);
  if (limit !== undefined && below > limit)
    throw refuse(
      `allows ${limit} authorities below it, and ${below} are there`,
      'Have it, or the authority below it, made with a longer path (basic constraints, pathlen).',
    );
}

function mayCertify(certificate: X509Certificate): boolean {
  const bits = extensionValue(certificate.raw, KEY_USAGE_OID);
  // 03 length unused bits…; without the extension the key may be used for everything.
  return bits === undefined || ((bits[3] ?? 0) & KEY_CERT_SIGN) !== 0;
}

/** `id-ce-basicConstraints`, DER. */
const BASIC_CONSTRAINTS_OID = Buffer.from([0x06, 0x03, 0x55, 0x1d, 0x13]);

/** `pathLenConstraint`: SEQUENCE { BOOLEAN, INTEGER OPTIONAL }. */
function pathLimitOf(certificate: X509Certificate): number | undefined {
  const value = extensionValue(certificate.raw, BASIC_CONSTRAINTS_OID);
  // 30 length 01 01 ff 02 01 limit: a limit of more than one byte limits nothing.
  return value?.[5] === 0x02 && value[6] === 0x01 ? value[7] : undefined;
}

/** The content of an extension: what the OCTET STRING behind its OID (and `critical`) holds. Short ones only. */
function extensionValue(certificate: Buffer, oid: Buffer): Buffer | undefined {
  let at = certificate.indexOf(oid);
  if (at < 0) return undefined;
  at += oid.length;
  if (certificate[at] === 0x01) at += 3;
  const length = certificate[at + 1] ?? 0;
  if (certificate[at] !== 0x04 || length > 0x7f) return undefined;
  return certificate.subarray(at + 2, at + 2 + length);
}

function isSelfSigned(certificate: X509Certificate): boolean {
  return certificate.checkIssued(certificate) && certificate.verify(certificate.publicKey);
}

function nameOf(certificate: X509Certificate): string {
  return oneLine(certificate.subject);
}

function oneLine(name: string): string {
  return name.split('\n').join(', ');
}

export function pemOf(certificate: X509Certificate): string {
  const text = certificate.toString();
  return text.endsWith('\n') ? text : `${text}\n`;
}
