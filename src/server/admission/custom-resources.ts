/** Kinds that were added: no new instance while the definition goes, and words to who brings or uses a definition. */
import {
  CUSTOM_RESOURCE_DEFINITION,
  type CustomResourceDefinition,
} from '#api/apiextensions/v1/custom-resource-definition.ts';
import { rulesOf, ruleWarnings } from '#api/apiextensions/v1/rules.ts';
import { sameJson } from '#api/machinery/json.ts';
import { methodNotAllowed, pathNotFound } from '#api/machinery/status.ts';
import { decodeEntry } from '../registry/codec.ts';
import { objectKey } from '../registry/keys.ts';
import type { AdmissionEffects, AdmissionPlugin, AdmissionReview } from './admission.ts';

export const customResources: AdmissionPlugin = {
  name: 'CustomResources',
  async review(review) {
    const { kind, operation } = review;
    if (
      kind.group === CUSTOM_RESOURCE_DEFINITION.group &&
      kind.resource === CUSTOM_RESOURCE_DEFINITION.resource
    )
      return reviewDefinition(review);
    if (kind.custom === undefined || operation === 'DELETE' || operation === 'REMOVE')
      return undefined;
    const warnings = kind.custom.warning === undefined ? [] : [kind.custom.warning];
    if (operation === 'UPDATE') return { warnings };
    const entry = await review.store.get(
      objectKey(CUSTOM_RESOURCE_DEFINITION, '', kind.custom.definition),
    );
    if (entry === undefined) throw pathNotFound();
    if (decodeEntry(entry).metadata.deletionTimestamp !== undefined)
      throw methodNotAllowed(
        kind,
        'create not allowed while custom resource definition is terminating: create',
      );
    // Compared in the same transaction: no instance slips in while the deletion begins.
    return { warnings, compares: [{ key: entry.key, modRevision: entry.modRevision }] };
  },
};

function reviewDefinition(review: AdmissionReview): AdmissionEffects | undefined {
  if (review.operation !== 'CREATE' && review.operation !== 'UPDATE') return undefined;
  const rules = rulesOf(review.object as CustomResourceDefinition);
  if (review.old !== undefined && sameJson(rules, rulesOf(review.old as CustomResourceDefinition)))
    return undefined;
  return rules.length === 0 ? undefined : { warnings: ruleWarnings(rules) };
}
