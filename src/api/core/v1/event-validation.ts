/** What is wrong with an event: `pkg/apis/core/validation/events.go`. The same rules under both groups that serve events. */
import type { FieldError } from '../../kind.ts';
import { invalid, required } from '../../machinery/field-errors.ts';
import { checkPathSegmentName, checkQualifiedName } from '../../machinery/names.ts';
import { validateMeta } from '../../machinery/validate-meta.ts';
import type { Event } from './event.ts';

const MAX_WORD_LENGTH = 128;
const MAX_MESSAGE_LENGTH = 1024;
/** Where events about objects without a namespace are kept. */
const CLUSTER_EVENTS_NAMESPACES = ['default', ''];
/** The newer kind of event may be there too. */
const SYSTEM_NAMESPACE = 'kube-system';

/** Events with `eventTime` are the newer kind, which is complete; the older ones are taken as they come. */
export function validateEvent(event: Event): FieldError[] {
  if (event.involvedObject === undefined) return [required('involvedObject')];
  const isNew = (event.eventTime ?? '') !== '';
  return [
    // Named after what it is about, which need not be a DNS name.
    ...validateMeta(event.metadata, { namespaced: true, checkName: checkPathSegmentName }),
    ...validatePlace(event, isNew),
    ...(isNew ? validateNew(event) : []),
  ];
}

function validatePlace(event: Event, isNew: boolean): FieldError[] {
  const { namespace = '' } = event.metadata;
  const about = event.involvedObject.namespace ?? '';
  const mayBeAnywhere = isNew && about !== '';
  const places =
    about === '' ? [...CLUSTER_EVENTS_NAMESPACES, ...(isNew ? [SYSTEM_NAMESPACE] : [])] : [about];
  if (mayBeAnywhere || places.includes(namespace)) return [];
  return [invalid('involvedObject.namespace', about, 'does not match event.namespace')];
}

function validateNew(event: Event): FieldError[] {
  const { reportingComponent = '', message = '' } = event;
  const name = reportingComponent === '' ? undefined : checkQualifiedName(reportingComponent);
  const words = (['reportingInstance', 'action', 'reason'] as const).flatMap((field) => {
    const text = event[field] ?? '';
    if (text === '') return [required(field)];
    return text.length > MAX_WORD_LENGTH ? [tooLong(field, MAX_WORD_LENGTH)] : [];
  });
  return [
    ...(reportingComponent === '' ? [required('reportingComponent')] : []),
    ...(name === undefined ? [] : [invalid('reportingComponent', reportingComponent, name)]),
    ...words,
    ...(message.length > MAX_MESSAGE_LENGTH ? [tooLong('message', MAX_MESSAGE_LENGTH)] : []),
  ];
}

function tooLong(field: string, limit: number): FieldError {
  return invalid(field, '', `can have at most ${limit} characters`);
}
