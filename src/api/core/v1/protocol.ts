/** The transport protocols that services, policies and endpoints may name. `k8s.io/api/core/v1.Protocol`. */
export type Protocol = 'TCP' | 'UDP' | 'SCTP';

export const PROTOCOLS: readonly Protocol[] = ['TCP', 'UDP', 'SCTP'];
