/** Who makes a request. */
export interface Principal {
  readonly name: string;
  readonly groups: readonly string[];
  /** Tells users of one name apart over time; certificates have none. */
  readonly uid?: string;
  /** What the credential says beside that. */
  readonly extra?: Readonly<Record<string, readonly string[]>>;
}

export const ANONYMOUS: Principal = {
  name: 'system:anonymous',
  groups: ['system:unauthenticated'],
};

/** The principal of what the server does by itself: bootstrap and namespace deletion. */
export const SERVER_PRINCIPAL: Principal = {
  name: 'system:apiserver',
  groups: ['system:masters', 'system:authenticated'],
};

export const MASTERS_GROUP = 'system:masters';
export const NODES_GROUP = 'system:nodes';
const NODE_USER_PREFIX = 'system:node:';

/** True for who may do everything, whatever roles say: so that no mistake in them locks everybody out. */
export function isMaster(principal: Principal): boolean {
  return principal.groups.includes(MASTERS_GROUP);
}

/** True for who has shown no credential. */
export function isAnonymous(principal: Principal): boolean {
  return principal.name === ANONYMOUS.name;
}

/** @returns the node's name if the principal is a node's agent */
export function nodeNameOf(principal: Principal): string | undefined {
  return principal.groups.includes(NODES_GROUP) && principal.name.startsWith(NODE_USER_PREFIX)
    ? principal.name.slice(NODE_USER_PREFIX.length)
    : undefined;
}
