/** Who makes a request. */
export interface Principal {
  readonly name: string;
  readonly groups: readonly string[];
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

/** @returns the node's name if the principal is a node's agent */
export function nodeNameOf(principal: Principal): string | undefined {
  return principal.groups.includes(NODES_GROUP) && principal.name.startsWith(NODE_USER_PREFIX)
    ? principal.name.slice(NODE_USER_PREFIX.length)
    : undefined;
}
