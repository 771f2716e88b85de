/** Nothing is made in a namespace that does not exist or is going; kubernetes' NamespaceLifecycle. */
import type { Namespace } from '#api/core/v1/namespace.ts';
import { NAMESPACE } from '#api/core/v1/namespace.ts';
import { forbidden, namespaceTerminating, notFound } from '#api/machinery/status.ts';
import { decodeEntry } from '../registry/codec.ts';
import { objectKey } from '../registry/keys.ts';
import type { AdmissionPlugin } from './admission.ts';

/** The cluster cannot work without these. */
export const SYSTEM_NAMESPACES = ['default', 'kube-system', 'kube-node-lease'] as const;

export const namespaceExists: AdmissionPlugin = {
  name: 'NamespaceExists',
  async review(review) {
    const { kind, namespace, name, operation } = review;
    if (operation === 'DELETE' && kind.group === '' && kind.resource === NAMESPACE.resource) {
      if (SYSTEM_NAMESPACES.some((system) => system === name))
        throw forbidden(kind, name, 'this namespace may not be deleted');
      return undefined;
    }
    if (operation !== 'CREATE' || !kind.namespaced) return undefined;
    const entry = await review.store.get(objectKey(NAMESPACE, '', namespace));
    if (entry === undefined) throw notFound(NAMESPACE, namespace);
    const found = decodeEntry(entry) as Namespace;
    if (found.metadata.deletionTimestamp !== undefined)
      throw namespaceTerminating(kind, name, namespace);
    // Compared in the same transaction: no object slips into a namespace while its deletion begins.
    return { compares: [{ key: entry.key, modRevision: entry.modRevision }] };
  },
};
