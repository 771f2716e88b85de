/** The selectors of a list or watch request as one filter. */
import type { KindDefinition } from '#api/kind.ts';
import {
  checkFieldSelector,
  type FieldSelector,
  matchFields,
  parseFieldSelector,
  requiredValue,
} from '#api/machinery/field-selector.ts';
import { matchLabels, parseLabelSelector, type Selector } from '#api/machinery/label-selector.ts';
import { badRequest } from '#api/machinery/status.ts';
import type { Filter } from './registry/list.ts';
import type { RequestInfo } from './request.ts';

/**
 * Reads `labelSelector` and `fieldSelector`.
 * @returns `undefined` if everything matches
 * @throws ApiError 400 for a selector that does not parse or names a field the kind does not offer
 */
export function createFilter(kind: KindDefinition, query: URLSearchParams): Filter | undefined {
  const labels = readLabels(query.get('labelSelector') ?? '');
  const fields = readFields(kind, query.get('fieldSelector') ?? '');
  if (labels.length === 0 && fields.length === 0) return undefined;
  const onlyName = requiredValue(fields, 'metadata.name');
  return {
    matches: (object) =>
      (fields.length === 0 || matchFields(fields, object, kind)) &&
      (labels.length === 0 || matchLabels(labels, object.metadata.labels)),
    ...(onlyName === undefined || onlyName === '' ? {} : { name: onlyName }),
  };
}

/**
 * The access that a request is, for who decides over it: a list or watch of one object by its name is that of this object,
 * so that a role with `resourceNames` allows it. `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`.
 * A create has no such name, whatever its query says: it would allow to make any object.
 */
export function accessOf(info: RequestInfo): RequestInfo {
  if (info.type === 'plain' || info.name !== '') return info;
  if (info.verb !== 'list' && info.verb !== 'watch') return info;
  const parsed = parseFieldSelector(info.query.get('fieldSelector') ?? '');
  // What does not parse is refused when it is answered.
  const name = parsed.ok ? requiredValue(parsed.selector, 'metadata.name') : undefined;
  return name === undefined || name === '' ? info : { ...info, name };
}

function readLabels(text: string): Selector {
  const parsed = parseLabelSelector(text);
  if (!parsed.ok) throw badRequest(`unable to parse the labelSelector: ${parsed.message}`);
  return parsed.selector;
}

function readFields(kind: KindDefinition, text: string): FieldSelector {
  const parsed = parseFieldSelector(text);
  if (!parsed.ok) throw badRequest(`unable to parse the fieldSelector: ${parsed.message}`);
  const problem = checkFieldSelector(parsed.selector, kind);
  if (problem !== undefined) throw badRequest(problem);
  return parsed.selector;
}
