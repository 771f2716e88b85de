/**
 * A node's agent writes only what is its own: its Node, its Lease, its PolicyUsage, the pods that run on it, and the blocks of addresses
 * that it holds or that nobody holds; in another node's block it only takes and gives back addresses for itself. So one stolen node certificate does not take the cluster.
 */

import type { Pod } from '#api/core/v1/pod.ts';
import { forbidden } from '#api/machinery/status.ts';
import type { KubeObject } from '#api/meta.ts';
import type { IPBlock } from '#api/tulle/v1alpha1/ip-block.ts';
import { isOwnLoan } from '#api/tulle/v1alpha1/ip-block-loan.ts';
import { qualifiedResource } from '../errors.ts';
import { nodeNameOf } from '../principal.ts';
import type { AdmissionPlugin, AdmissionReview } from './admission.ts';

/** Where nodes' leases lie. */
export const NODE_LEASE_NAMESPACE = 'kube-node-lease';

export const nodeRestriction: AdmissionPlugin = {
  name: 'NodeRestriction',
  async review(review) {
    const node = nodeNameOf(review.principal);
    if (node === undefined || review.operation === 'REMOVE') return undefined;
    const why = whyNotOwn(review, node);
    if (why !== undefined) throw forbidden(review.kind, review.name, `node "${node}" ${why}`);
    return undefined;
  },
};

/** @returns why this change is not the node's to make */
function whyNotOwn(review: AdmissionReview, node: string): string | undefined {
  const states = [review.old, review.object].filter((state) => state !== undefined);
  switch (qualifiedResource(review.kind)) {
    case 'nodes':
      return review.name === node ? undefined : 'may write only its own Node';
    case 'leases.coordination.k8s.io':
      return review.namespace === NODE_LEASE_NAMESPACE && review.name === node
        ? undefined
        : `may write only the Lease "${node}" in namespace "${NODE_LEASE_NAMESPACE}"`;
    case 'policyusages.tulle.dev':
      return review.name === node ? undefined : 'may write only the PolicyUsage of its own name';
    case 'pods':
      return states.every((pod) => nodeOfPod(pod) === node)
        ? undefined
        : 'may write only pods with its own name in spec.nodeName';
    case 'ipblocks.tulle.dev':
      return states.every((block) => ['', node].includes(nodeOfBlock(block))) ||
        borrows(review, node)
        ? undefined
        : 'may write only address blocks that are its own or belong to no node, and of others only what it borrows';
    case 'events':
    case 'events.events.k8s.io':
    // Only its status: authorization sees to that.
    case 'clusternetworkpolicies.policy.networking.k8s.io':
      return undefined;
    default:
      return 'may not write this kind';
  }
}

function borrows({ operation, old, object }: AdmissionReview, node: string): boolean {
  return (
    operation === 'UPDATE' &&
    old !== undefined &&
    object !== undefined &&
    isOwnLoan(old as IPBlock, object as IPBlock, node)
  );
}

function nodeOfPod(object: KubeObject): string {
  return (object as Pod).spec?.nodeName ?? '';
}

function nodeOfBlock(object: KubeObject): string {
  return (object as IPBlock).spec?.node ?? '';
}
