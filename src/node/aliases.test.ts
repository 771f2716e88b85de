import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Pod } from '#api/core/v1/pod.ts';
import { ALIASED_LABEL, ALIASES_ANNOTATION, aliasesOfPod, aliasMarks } from './aliases.ts';
import type { Attachment } from './attachment.ts';

const marks = (...aliases: string[]) =>
  aliasMarks({ aliases, containerId: '0123456789abcdef' } as unknown as Attachment);

test('aliasMarks() keeps what can be a name, once, and not the digits of the container', () => {
  const { labels, annotations } = marks('DB', 'db', 'my_app-1', '0123456789ab', 'a.b', '-x', 'a,b');
  assert.deepEqual(labels, { [ALIASED_LABEL]: 'true' });
  assert.deepEqual(annotations, { [ALIASES_ANNOTATION]: 'db,my_app-1' });
  assert.deepEqual(marks('0123456789ab'), { labels: {}, annotations: {} });
});

test('aliasesOfPod() reads what was written, and nothing that is no name', () => {
  const pod = (text: string): Pod => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'p', annotations: { [ALIASES_ANNOTATION]: text } },
    spec: { containers: [] },
  });
  assert.deepEqual(aliasesOfPod(pod('db,my_app-1')), ['db', 'my_app-1']);
  assert.deepEqual(aliasesOfPod(pod('a b,,x.y,ok')), ['ok']);
});
