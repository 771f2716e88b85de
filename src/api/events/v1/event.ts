/**
 * Event of `events.k8s.io/v1`: the same stored objects as the core group's, with newer names for some fields, and stricter
 * about what is written. `k8s.io/api/events/v1`.
 */
import { type Event as CoreEvent, EVENT } from '../../core/v1/event.ts';
import { validateEvent } from '../../core/v1/event-validation.ts';
import type { ObjectReference } from '../../core/v1/object-reference.ts';
import type { FieldError, KindDefinition } from '../../kind.ts';
import { immutable, invalid, required } from '../../machinery/field-errors.ts';
import { isObject, sameJson } from '../../machinery/json.ts';
import { checkDns1123Subdomain } from '../../machinery/names.ts';
import { kindSchema } from '../../machinery/schema.ts';
import type { KubeObject } from '../../meta.ts';

export interface Event extends KubeObject {
  apiVersion: 'events.k8s.io/v1';
  kind: 'Event';
  eventTime?: string | null;
  regarding?: ObjectReference;
  note?: string;
  reportingController?: string;
}

/** Names of fields here, and in the core group. All others are the same. */
const RENAMED: readonly (readonly [here: string, core: string])[] = [
  ['regarding', 'involvedObject'],
  ['note', 'message'],
  ['reportingController', 'reportingComponent'],
  ['deprecatedSource', 'source'],
  ['deprecatedFirstTimestamp', 'firstTimestamp'],
  ['deprecatedLastTimestamp', 'lastTimestamp'],
  ['deprecatedCount', 'count'],
];
const TO_CORE = new Map(RENAMED);
const FROM_CORE = new Map(RENAMED.map(([here, core]) => [core, here] as const));
const API_VERSION = 'events.k8s.io/v1';
const TYPES = ['Normal', 'Warning'];
const MIN_SERIES_COUNT = 2;

const SCHEMA = kindSchema(
  'Event',
  'Something that happened to an object. Kept for a while only. The same as the Event of v1.',
  Object.fromEntries(
    Object.entries(EVENT.schema.fields)
      .filter(([name]) => !['apiVersion', 'kind', 'metadata'].includes(name))
      .map(([name, field]) => [FROM_CORE.get(name) ?? name, field]),
  ),
  ['eventTime'],
);

function toCore(event: KubeObject): CoreEvent {
  const core = renamed(event, TO_CORE, 'v1') as CoreEvent;
  // There it is never missing.
  return { ...core, involvedObject: core.involvedObject ?? {} };
}

function fromCore(event: KubeObject): KubeObject {
  return renamed(event, FROM_CORE, API_VERSION);
}

/** Renames the fields, and in the notes of who manages them. */
function renamed(
  event: KubeObject,
  names: ReadonlyMap<string, string>,
  apiVersion: string,
): KubeObject {
  const rename = (fields: object, prefix = '') =>
    Object.fromEntries(
      Object.entries(fields).map(([name, value]) => {
        const other = names.get(name.slice(prefix.length));
        return [other === undefined ? name : prefix + other, value];
      }),
    );
  const { managedFields } = event.metadata;
  const entries = managedFields?.map((entry) =>
    isObject(entry) && isObject(entry.fieldsV1)
      ? { ...entry, apiVersion, fieldsV1: rename(entry.fieldsV1, 'f:') }
      : entry,
  );
  return {
    ...rename(event),
    apiVersion,
    metadata: {
      ...event.metadata,
      ...(entries === undefined ? {} : { managedFields: entries }),
    },
  } as KubeObject;
}

function validate(event: Event, old: Event | undefined): FieldError[] {
  const core = toCore(event);
  const before = old === undefined ? undefined : toCore(old);
  const errors = [
    ...validateEvent(core),
    ...(before === undefined ? validateNew(core) : validateChange(core, before)),
  ];
  return errors.map((error) => ({ ...error, field: fieldHere(error.field) }));
}

function validateNew(event: CoreEvent): FieldError[] {
  const unset = (field: string, isSet: boolean) =>
    isSet ? [invalid(field, '', 'needs to be unset')] : [];
  const { component = '', host = '' } = event.source ?? {};
  const { type = '' } = event;
  const wrongName = checkDns1123Subdomain(event.metadata.name ?? '');
  return [
    ...(wrongName === undefined ? [] : [invalid('metadata.name', event.metadata.name, wrongName)]),
    ...validateSeries(event),
    ...((event.eventTime ?? '') === '' ? [required('eventTime')] : []),
    ...(TYPES.includes(type) ? [] : [invalid('type', '', `has invalid value: ${type}`)]),
    ...unset('firstTimestamp', (event.firstTimestamp ?? '') !== ''),
    ...unset('lastTimestamp', (event.lastTimestamp ?? '') !== ''),
    ...unset('count', (event.count ?? 0) !== 0),
    ...unset('source', component !== '' || host !== ''),
  ];
}

/** Only the series goes on. */
function validateChange(event: CoreEvent, old: CoreEvent): FieldError[] {
  const fixed = [
    ...([
      'involvedObject',
      'reason',
      'message',
      'source',
      'firstTimestamp',
      'lastTimestamp',
    ] as const),
    ...(['count', 'type', 'eventTime', 'action', 'related'] as const),
    ...(['reportingComponent', 'reportingInstance'] as const),
  ];
  return [
    ...(sameJson(event.series, old.series) ? [] : validateSeries(event)),
    ...fixed.flatMap((field) =>
      sameJson(event[field], old[field]) ? [] : [immutable(field, event[field])],
    ),
  ];
}

function validateSeries({ series }: CoreEvent): FieldError[] {
  if (series === undefined) return [];
  return [
    ...((series.count ?? 0) < MIN_SERIES_COUNT
      ? [invalid('series.count', '', `should be at least ${MIN_SERIES_COUNT}`)]
      : []),
    ...((series.lastObservedTime ?? '') === '' ? [required('series.lastObservedTime')] : []),
  ];
}

/** `involvedObject.namespace` is `regarding.namespace` here. */
function fieldHere(path: string): string {
  const [first = '', ...rest] = path.split('.');
  return [FROM_CORE.get(first) ?? first, ...rest].join('.');
}

export const EVENTS_EVENT: KindDefinition<Event> = {
  ...{ group: 'events.k8s.io', version: 'v1', kind: 'Event', resource: 'events' },
  ...{ singular: 'event', namespaced: true, shortNames: ['ev'], categories: [], subresources: [] },
  schema: SCHEMA,
  storedAs: { kind: EVENT, toStored: toCore, fromStored: fromCore },
  ...(EVENT.expiresAfterMs === undefined ? {} : { expiresAfterMs: EVENT.expiresAfterMs }),
  setDefaults: (event) => event,
  validate,
  columns: EVENT.columns.map((column) => ({
    ...column,
    value: (event, nowMs) => column.value(toCore(event), nowMs),
  })),
  selectableFields: Object.fromEntries(
    Object.entries(EVENT.selectableFields).map(([path, field]) => [
      fieldHere(path),
      (event: Event) => field(toCore(event)),
    ]),
  ),
};
