/** Who makes a request: the subject of a verified client certificate, the owner of a token, or nobody. */
import { unauthorized } from '#api/machinery/status.ts';
import { ANONYMOUS, type Principal } from './principal.ts';

/** What the transport knows of the client. */
export interface Credentials {
  /** Missing if the client showed no certificate. */
  readonly certificate?: {
    /** Whether the certificate is of one of our authorities, is valid now, and is for clients. */
    readonly isTrusted: boolean;
    /** Why it is not trusted. */
    readonly problem?: string;
    /** The subject's common names (CN): the user. */
    readonly commonNames: readonly string[];
    /** The subject's organizations (O): the groups. */
    readonly organizations: readonly string[];
  };
  /** The `Authorization` header. */
  readonly authorization?: string;
}

export interface Authenticated {
  readonly principal: Principal;
  /** A join token that was shown but not yet checked: whoever handles joining does that. */
  readonly joinToken?: string;
  /** Any other token, shown and not yet checked: the principal is known only when it is. */
  readonly bearer?: string;
}

/** Where, and only where, a join token is a credential. */
export const JOIN_PATH = '/tulle/v1/join';

/**
 * Authenticates a request.
 * @returns {@link ANONYMOUS} if it carries no credential
 * @throws ApiError 401 if it carries one that does not hold: such a client must not quietly become anonymous
 */
export function authenticate(credentials: Credentials, path: string): Authenticated {
  const { authorization, certificate } = credentials;
  if (authorization !== undefined) {
    const token = /^Bearer +([\x21-\x7e]+)$/i.exec(authorization)?.[1];
    if (token === undefined)
      throw unauthorized('Unauthorized: the Authorization header is no bearer token');
    return path === JOIN_PATH
      ? { principal: ANONYMOUS, joinToken: token }
      : { principal: ANONYMOUS, bearer: token };
  }
  if (certificate === undefined) return { principal: ANONYMOUS };
  if (!certificate.isTrusted)
    throw unauthorized(
      `Unauthorized: the client certificate is not accepted: ${certificate.problem ?? 'it is not signed by this cluster'}`,
    );
  const [name = '', ...others] = certificate.commonNames;
  if (name === '' || others.length > 0)
    throw unauthorized('Unauthorized: the client certificate must have exactly one common name');
  return {
    principal: { name, groups: [...certificate.organizations, 'system:authenticated'] },
  };
}
