/** Versions of the CNI specification: https://www.cni.dev/docs/spec/ */
import { CNI_ERROR, CniError } from './error.ts';

export const CNI_VERSIONS = [
  '0.1.0',
  '0.2.0',
  '0.3.0',
  '0.3.1',
  '0.4.0',
  '1.0.0',
  '1.1.0',
] as const;
export type CniVersion = (typeof CNI_VERSIONS)[number];

/** What the internal form of results follows. */
export const LATEST_CNI_VERSION = '1.1.0' satisfies CniVersion;

export const CNI_COMMANDS = ['ADD', 'DEL', 'CHECK', 'STATUS', 'GC', 'VERSION'] as const;
export type CniCommand = (typeof CNI_COMMANDS)[number];

/** The first version of the specification that knows a command, where it is not the first of all. */
const SINCE: Partial<Record<CniCommand, CniVersion>> = {
  CHECK: '0.4.0',
  STATUS: '1.1.0',
  GC: '1.1.0',
};

/**
 * Reads a version.
 * @throws CniError 1 if it is not one of {@link CNI_VERSIONS}
 */
export function parseCniVersion(text: string): CniVersion {
  const known = CNI_VERSIONS.find((version) => version === text);
  if (known !== undefined) return known;
  throw new CniError(CNI_ERROR.incompatibleVersion, 'incompatible CNI versions', {
    details: `config is "${text}", plugin supports ${JSON.stringify(CNI_VERSIONS)}`,
  });
}

/** True if `a` is the version `b` or a later one. */
export function isAtLeast(a: CniVersion, b: CniVersion): boolean {
  return CNI_VERSIONS.indexOf(a) >= CNI_VERSIONS.indexOf(b);
}

/** @throws CniError 1 if the configuration's version is older than the command */
export function requireCommandAllowed(command: CniCommand, version: CniVersion): void {
  const since = SINCE[command];
  if (since === undefined || isAtLeast(version, since)) return;
  throw new CniError(CNI_ERROR.incompatibleVersion, `config version does not allow ${command}`, {
    details: `config is "${version}", ${command} exists since "${since}"`,
  });
}

/** The answer to VERSION. @param asked the `cniVersion` of the request, if it had one */
export function encodeVersionAnswer(asked?: string): string {
  return JSON.stringify({
    cniVersion: asked ?? LATEST_CNI_VERSION,
    supportedVersions: CNI_VERSIONS,
  });
}
