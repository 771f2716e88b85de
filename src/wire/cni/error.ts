/** Errors as a CNI plugin tells them: https://www.cni.dev/docs/spec/#error */

/** Codes 1 to 99 are the specification's; 100 and above are ours. 8 and 999 are the reference library's. */
export const CNI_ERROR = {
  incompatibleVersion: 1,
  unsupportedField: 2,
  unknownContainer: 3,
  invalidEnvironment: 4,
  io: 5,
  decode: 6,
  invalidConfig: 7,
  invalidNetns: 8,
  tryAgainLater: 11,
  notAvailable: 50,
  limitedConnectivity: 51,
  /** No address is left in any pool. */
  exhausted: 100,
  /** CHECK found that the kernel's state is not what ADD made. */
  checkFailed: 101,
  internal: 999,
} as const;

/** A failure that is told to the container runtime. */
export class CniError extends Error {
  readonly code = 'CNI' as const;
  /** One of {@link CNI_ERROR}. */
  readonly cniCode: number;
  readonly details: string | undefined;
  constructor(
    cniCode: number,
    message: string,
    options: { details?: string | undefined; cause?: unknown } = {},
  ) {
    super(message, { cause: options.cause });
    this.name = 'CniError';
    this.cniCode = cniCode;
    this.details = options.details;
  }
}

/**
 * The JSON that goes to standard output beside a non-zero exit status.
 * @param cniVersion of the request; the specification wants the configuration's own version repeated
 */
export function encodeCniError(error: CniError, cniVersion: string): string {
  return JSON.stringify({
    cniVersion,
    code: error.cniCode,
    msg: error.message,
    ...(error.details === undefined ? {} : { details: error.details }),
  });
}
