/** Event: something that happened to an object. `k8s.io/api/core/v1`. */
import type { KindDefinition } from '../../kind.ts';
import { formatAge } from '../../machinery/age.ts';
import { column, NAME_COLUMN, wideColumn } from '../../machinery/columns.ts';
import {
  int32,
  kindSchema,
  OBJECT_REFERENCE_SCHEMA,
  object,
  string,
  time,
} from '../../machinery/schema.ts';
import type { KubeObject } from '../../meta.ts';
import { validateEvent } from './event-validation.ts';
import type { ObjectReference } from './object-reference.ts';

export interface Event extends KubeObject {
  apiVersion: 'v1';
  kind: 'Event';
  involvedObject: ObjectReference;
  reason?: string;
  message?: string;
  source?: { component?: string; host?: string };
  firstTimestamp?: string | null;
  lastTimestamp?: string | null;
  count?: number;
  type?: string;
  eventTime?: string | null;
  series?: { count?: number; lastObservedTime?: string };
  action?: string;
  related?: ObjectReference;
  reportingComponent?: string;
  reportingInstance?: string;
}

/** Upstream's default (`--event-ttl`). */
const EVENT_TTL_MS = 3_600_000;

const SCHEMA = kindSchema(
  'Event',
  'Something that happened to an object. Kept for a while only.',
  {
    involvedObject: OBJECT_REFERENCE_SCHEMA,
    reason: string('What happened, in one CamelCase word.'),
    message: string('What happened, for people.'),
    source: object('EventSource', {
      component: string('The program that reports.'),
      host: string('The node it runs on.'),
    }),
    firstTimestamp: time('When it was first seen.'),
    lastTimestamp: time('When it was last seen.'),
    count: int32('How often it was seen.'),
    type: string('Normal or Warning.'),
    eventTime: time('When it was first seen, with microseconds.'),
    series: object('EventSeries', {
      count: int32('How often it was seen.'),
      lastObservedTime: time('When it was last seen.'),
    }),
    action: string('What was done about it.'),
    related: OBJECT_REFERENCE_SCHEMA,
    reportingComponent: string('The controller that reports.'),
    reportingInstance: string('Which instance of it.'),
  },
  ['involvedObject'],
);

function lastSeen(event: Event, nowMs: number): string {
  return formatAge(
    event.series?.lastObservedTime ??
      event.lastTimestamp ??
      event.eventTime ??
      event.firstTimestamp,
    nowMs,
  );
}

function formatObject(event: Event): string {
  const { kind, name } = event.involvedObject;
  return `${(kind ?? '').toLowerCase()}/${name ?? ''}`;
}

function formatSource(event: Event): string {
  const component = event.source?.component || event.reportingComponent || '';
  const host = event.source?.host || event.reportingInstance || '';
  return host === '' ? component : `${component}, ${host}`;
}

export const EVENT: KindDefinition<Event> = {
  group: '',
  version: 'v1',
  kind: 'Event',
  resource: 'events',
  singular: 'event',
  namespaced: true,
  shortNames: ['ev'],
  categories: [],
  subresources: [],
  schema: SCHEMA,
  expiresAfterMs: EVENT_TTL_MS,
  setDefaults: (event) => event,
  validate: validateEvent,
  columns: [
    column('Last Seen', 'Time since it was last seen.', lastSeen),
    column('Type', 'Normal or Warning.', (event) => event.type ?? ''),
    column('Reason', 'What happened, in a word.', (event) => event.reason ?? ''),
    column('Object', 'What it happened to.', formatObject),
    wideColumn('Subobject', 'Which part of it.', (event) => event.involvedObject.fieldPath ?? ''),
    wideColumn('Source', 'Who reports.', formatSource),
    column('Message', 'What happened.', (event) => (event.message ?? '').trim()),
    wideColumn('First Seen', 'Time since it was first seen.', (event, nowMs) =>
      formatAge(event.firstTimestamp ?? event.eventTime, nowMs),
    ),
    wideColumn(
      'Count',
      'How often it was seen.',
      (event) => event.series?.count ?? event.count ?? 1,
    ),
    { ...NAME_COLUMN, priority: 1 },
  ],
  selectableFields: {
    'involvedObject.kind': (event) => event.involvedObject.kind ?? '',
    'involvedObject.namespace': (event) => event.involvedObject.namespace ?? '',
    'involvedObject.name': (event) => event.involvedObject.name ?? '',
    'involvedObject.uid': (event) => event.involvedObject.uid ?? '',
    'involvedObject.apiVersion': (event) => event.involvedObject.apiVersion ?? '',
    'involvedObject.resourceVersion': (event) => event.involvedObject.resourceVersion ?? '',
    'involvedObject.fieldPath': (event) => event.involvedObject.fieldPath ?? '',
    reason: (event) => event.reason ?? '',
    reportingComponent: (event) => event.reportingComponent ?? '',
    source: (event) => event.source?.component || event.reportingComponent || '',
    type: (event) => event.type ?? '',
  },
};
