import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Event as CoreEvent } from '../../core/v1/event.ts';
import { formatFieldError } from '../../machinery/field-errors.ts';
import { createTable } from '../../machinery/table.ts';
import { EVENTS_EVENT, type Event } from './event.ts';

const META = { name: 'a', namespace: 'default', creationTimestamp: '2026-01-01T00:00:00Z' };
const REGARDING = { kind: 'Pod', namespace: 'default', name: 'p' };
const GOOD: Event & Record<string, unknown> = {
  apiVersion: 'events.k8s.io/v1',
  kind: 'Event',
  metadata: META,
  eventTime: '2026-01-01T00:00:00.000000Z',
  regarding: REGARDING,
  reason: 'Started',
  action: 'Start',
  type: 'Normal',
  note: 'Started it',
  reportingController: 'example.com/agent',
  reportingInstance: 'agent-m1',
  series: { count: 2, lastObservedTime: '2026-01-01T00:09:00.000000Z' },
};
const complaints = (event: Event, old?: Event) =>
  EVENTS_EVENT.validate(event, old).map(formatFieldError).join('\n');

test('EVENTS_EVENT is the core event with other names, both ways', () => {
  const { storedAs } = EVENTS_EVENT;
  assert.ok(storedAs !== undefined);
  const core = {
    apiVersion: 'v1',
    kind: 'Event',
    metadata: {
      ...META,
      managedFields: [
        { manager: 'm', operation: 'Apply', apiVersion: 'v1', fieldsV1: { 'f:message': {} } },
      ],
    },
    involvedObject: REGARDING,
    message: 'Started it',
    source: { component: 'agent', host: 'm1' },
    firstTimestamp: '2026-01-01T00:00:00Z',
    lastTimestamp: '2026-01-01T00:09:00Z',
    count: 3,
    type: 'Normal',
    reportingComponent: 'agent',
  };
  const here = storedAs.fromStored(core as unknown as CoreEvent);
  assert.deepEqual(here, {
    apiVersion: 'events.k8s.io/v1',
    kind: 'Event',
    metadata: {
      ...META,
      managedFields: [
        {
          ...{ manager: 'm', operation: 'Apply', apiVersion: 'events.k8s.io/v1' },
          fieldsV1: { 'f:note': {} },
        },
      ],
    },
    regarding: REGARDING,
    note: 'Started it',
    deprecatedSource: { component: 'agent', host: 'm1' },
    deprecatedFirstTimestamp: '2026-01-01T00:00:00Z',
    deprecatedLastTimestamp: '2026-01-01T00:09:00Z',
    deprecatedCount: 3,
    type: 'Normal',
    reportingController: 'agent',
  });
  assert.deepEqual(storedAs.toStored(here), core);
});

test('EVENTS_EVENT wants new events complete, and without the old fields', () => {
  assert.equal(complaints(GOOD), '');
  for (const [more, complaint] of [
    [{ eventTime: undefined }, 'eventTime: Required value'],
    [{ type: 'Odd' }, 'type: Invalid value: "": has invalid value: Odd'],
    [{ action: undefined }, 'action: Required value'],
    [{ reportingController: '' }, 'reportingController: Required value'],
    [{ reportingController: 'a b' }, /^reportingController: Invalid value: "a b": name part/],
    [{ reportingInstance: 'x'.repeat(129) }, /^reportingInstance: .*at most 128 characters$/],
    [{ note: 'x'.repeat(1025) }, /^note: .*at most 1024 characters$/],
    [{ series: { count: 1 } }, /^series\.count: .*at least 2\nseries\.lastObservedTime: Required/],
    [{ deprecatedCount: 1 }, 'deprecatedCount: Invalid value: "": needs to be unset'],
    [{ deprecatedSource: { host: 'm' } }, /^deprecatedSource: .*needs to be unset$/],
    [
      { regarding: undefined, metadata: { ...META, namespace: 'other' } },
      'regarding.namespace: Invalid value: "": does not match event.namespace',
    ],
    [{ regarding: undefined, metadata: { ...META, namespace: 'kube-system' } }, ''],
  ] as const) {
    const said = complaints({ ...GOOD, ...more } as Event);
    if (typeof complaint === 'string') assert.equal(said, complaint, JSON.stringify(more));
    else assert.match(said, complaint, JSON.stringify(more));
  }
});

test('EVENTS_EVENT lets only the series of an event go on', () => {
  const later = { ...GOOD, series: { count: 3, lastObservedTime: '2026-01-01T00:10:00.000000Z' } };
  assert.equal(complaints(later, GOOD), '');
  assert.match(complaints({ ...GOOD, note: 'else' }, GOOD), /^note: .*field is immutable$/);
  assert.match(
    complaints({ ...GOOD, regarding: { name: 'q' } }, GOOD),
    /^regarding: .*field is immutable$/,
  );
});

test('EVENTS_EVENT shows the columns of the core event, and selects by its own names', () => {
  const [row] = createTable(EVENTS_EVENT, [GOOD], {
    nowMs: Date.parse('2026-01-01T00:10:00Z'),
  }).rows;
  assert.deepEqual(row?.cells.slice(0, 4), ['60s', 'Normal', 'Started', 'pod/p']);
  const fields = EVENTS_EVENT.selectableFields;
  assert.equal(fields['regarding.name']?.(GOOD), 'p');
  assert.equal(fields.reportingController?.(GOOD), 'example.com/agent');
  assert.equal(fields['involvedObject.name'], undefined);
});
