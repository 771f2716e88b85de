/**
 * A certificate authority that the operator has, instead of one that Tulle makes: its files are checked and copied into the
 * directory where {@link openCa} finds them.
 */
import { X509Certificate } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { writeFileAtomic } from '#lib/atomic-file.ts';
import { type Clock, systemClock } from '#lib/clock.ts';
import { explainError, UserError } from '#lib/errors.ts';
import { readOptionFile } from '#lib/option-file.ts';
import { importCaKey } from './ca.ts';
import { pemOf, readCaChain } from './ca-chain.ts';

export interface GivenCa {
  /** PEM: the certificate of the key, and those above it up to one that signed itself, in any order. */
  readonly certificateFile: string;
  /** PEM, not encrypted. */
  readonly keyFile: string;
  /** Take the place of another authority: what that one signed is not believed any more. */
  readonly replaces: boolean;
}

export type TakenCa =
  /** The directory had this one already. */
  | 'same'
  | 'new'
  /** Another one was there: nodes must join again, and tokens that pin the other are of no use. */
  | 'replaced';

/**
 * @param directory where the authority is kept; made, with mode 0700, if it is missing
 * @throws UserError if the files do not serve, or the directory has another authority that is not to be replaced
 */
export async function takeGivenCa(
  given: GivenCa,
  { directory, clock = systemClock }: { readonly directory: string; readonly clock?: Clock },
): Promise<TakenCa> {
  const keyPem = readOptionFile('--ca-key', given.keyFile);
  const certificatesPem = readOptionFile('--ca-cert', given.certificateFile);
  const chain = await checkGiven(given, { keyPem, certificatesPem, nowMs: clock.now() });
  const keyPath = join(directory, 'ca.key');
  const certificatePath = join(directory, 'ca.crt');
  const taken = compareWith(keyPath, certificatePath, chain);
  if (taken === 'replaced' && !given.replaces)
    throw new UserError(
      `The data directory has another certificate authority already ("${certificatePath}")`,
      {
        hint: 'Leave --ca-cert and --ca-key out to go on with it, or add --replace-ca: every node must then join again with a new token, and every kubeconfig be made anew.',
      },
    );
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const text = `${chain.shownPem}${pemOf(chain.root)}`;
  const isThere = (path: string, content: string) =>
    existsSync(path) && readFileSync(path, 'utf8') === content;
  // Both: a crash may have come between them.
  if (isThere(certificatePath, text) && isThere(keyPath, keyPem)) return taken;
  // The certificates first: a key without its certificate would be given one that it signed itself.
  writeFileAtomic(certificatePath, text, { mode: 0o644 });
  writeFileAtomic(keyPath, keyPem, { mode: 0o600 });
  return taken;
}

type Chain = ReturnType<typeof readCaChain>;

async function checkGiven(
  { certificateFile, keyFile }: GivenCa,
  { keyPem, certificatesPem, nowMs }: { keyPem: string; certificatesPem: string; nowMs: number },
): Promise<Chain> {
  try {
    const { publicKey } = await importCaKey(keyPem);
    return readCaChain(certificatesPem, publicKey, nowMs);
  } catch (cause) {
    throw new UserError(
      `Cannot use the certificate authority of "${certificateFile}" and "${keyFile}": ${explainError(cause)}`,
      {
        hint:
          (cause instanceof UserError ? cause.hint : undefined) ??
          'Give PEM files of a certificate authority and its key.',
        // What is said already is not said again.
        ...(cause instanceof UserError ? {} : { cause }),
      },
    );
  }
}

/** An authority is its key and what clients trust; its certificates may be renewed. */
function compareWith(keyPath: string, certificatePath: string, given: Chain): TakenCa {
  if (!existsSync(keyPath) && !existsSync(certificatePath)) return 'new';
  try {
    const pem = readFileSync(certificatePath, 'utf8');
    const certificates = pem.match(/-----BEGIN[^-]*-----[^-]*-----END[^-]*-----/g) ?? [];
    const [issuing, root] = [certificates.at(0), certificates.at(-1)].map((text) =>
      text === undefined ? undefined : new X509Certificate(text).publicKey,
    );
    const isSame =
      issuing?.equals(given.issuing.publicKey) === true &&
      root?.equals(given.root.publicKey) === true;
    return isSame && existsSync(keyPath) ? 'same' : 'replaced';
  } catch {
    // What cannot be read is not this one; whoever knows that it is of no use says so with --replace-ca.
    return 'replaced';
  }
}
