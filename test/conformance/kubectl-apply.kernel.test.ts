/** Server-side apply with the real kubectl: who owns what, what conflicts, and what is taken out again. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { type Kubectl, skip, startKubectl } from './kubectl-runner.ts';

let kubectl: Kubectl;

before(async () => {
  if (skip === false) kubectl = await startKubectl('apply');
});

after(() => kubectl?.[Symbol.asyncDispose]());

const ok = (...args: readonly string[]) => kubectl.ok(...args);
const run = (...args: readonly string[]) => kubectl.run(...args);
const file = (name: string, text: string) => kubectl.file(name, text);

function service(name: string, lines = ''): string {
  return file(
    `${name}.yaml`,
    `apiVersion: v1
kind: Service
metadata:
  name: ${name}
  labels:
    app: ${name}
spec:
  selector:
    app: ${name}
  ports:
  - port: 80
    targetPort: 8080
${lines}`,
  );
}

test('apply --server-side creates, changes, and takes out what is not applied any more', {
  skip,
}, async () => {
  assert.match(await ok('apply', '--server-side', '-f', service('web')), /web serverside-applied/);
  const more = service('web', '  - port: 443\n    name: tls\n    targetPort: 8443\n').replace(
    /^/,
    '',
  );
  writeFileSync(
    more,
    `apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  selector:
    app: web
  ports:
  - port: 80
    name: http
    targetPort: 8080
  - port: 443
    name: tls
    targetPort: 8443
`,
  );
  await ok('apply', '--server-side', '-f', more);
  const ports = '-o=jsonpath={.spec.ports[*].name} {.metadata.labels} {.spec.clusterIP}';
  assert.match(await ok('get', 'service', 'web', ports), /^http tls {2}10\.96\./);
  await ok('apply', '--server-side', '-f', service('web'));
  assert.match(
    await ok('get', 'service', 'web', ports),
    /^ {2}?\{"app":"web"\} 10\.96\.|^ \{"app":"web"\} 10\.96\./,
  );
  const managers = await ok('get', 'service', 'web', '--show-managed-fields', '-o', 'json');
  const { metadata } = JSON.parse(managers);
  assert.deepEqual(
    metadata.managedFields.map((entry: { manager: string; operation: string }) => [
      entry.manager,
      entry.operation,
    ]),
    [['kubectl', 'Apply']],
  );
  assert.deepEqual(metadata.managedFields[0].fieldsV1, {
    'f:metadata': { 'f:labels': { 'f:app': {} } },
    'f:spec': {
      'f:ports': {
        'k:{"port":80,"protocol":"TCP"}': { '.': {}, 'f:port': {}, 'f:targetPort': {} },
      },
      'f:selector': {},
    },
  });
});

test('a field that somebody else set is a conflict that can be forced', { skip }, async () => {
  await ok('apply', '--server-side', '-f', service('shop'));
  await ok(
    'patch',
    'service',
    'shop',
    '-p',
    '{"spec":{"selector":{"app":"other"}}}',
    '--field-manager=ops',
  );
  const refused = await run('apply', '--server-side', '-f', service('shop'));
  assert.equal(refused.status, 1);
  assert.match(
    refused.stderr,
    /Apply failed with 1 conflict: conflict with "ops" using v1.*: \.spec\.selector/s,
  );
  await ok('apply', '--server-side', '--force-conflicts', '-f', service('shop'));
  assert.equal(await ok('get', 'service', 'shop', '-o=jsonpath={.spec.selector.app}'), 'shop');
});

test('an object that was applied by the client goes over to the server without a conflict', {
  skip,
}, async () => {
  await ok('apply', '-f', service('old'));
  const moved = join(kubectl.home, 'moved.yaml');
  writeFileSync(
    moved,
    'apiVersion: v1\nkind: Service\nmetadata:\n  name: old\n  labels:\n    app: moved\nspec:\n  selector:\n    app: old\n  ports:\n  - port: 80\n    targetPort: 9090\n',
  );
  await ok('apply', '--server-side', '-f', moved);
  const jsonpath = '-o=jsonpath={.metadata.labels.app} {.spec.ports[0].targetPort}';
  assert.equal(await ok('get', 'service', 'old', jsonpath), 'moved 9090');
  // What the client's apply had set belongs to the server's now, and goes when it is applied no more.
  const bare = file(
    'bare.yaml',
    'apiVersion: v1\nkind: Service\nmetadata:\n  name: old\nspec:\n  selector:\n    app: old\n  ports:\n  - port: 80\n',
  );
  await ok('apply', '--server-side', '-f', bare);
  assert.equal(await ok('get', 'service', 'old', '-o=jsonpath={.metadata.labels}'), '');
});

test('diff --server-side shows what would change, and nothing when nothing would', {
  skip,
}, async () => {
  await ok('apply', '--server-side', '-f', service('diffed'));
  const same = await run('diff', '--server-side', '-f', service('diffed'));
  assert.equal(same.status, 0, same.stdout + same.stderr);
  const changed = service('diffed', '  sessionAffinity: ClientIP\n');
  const { status, stdout, stderr } = await run('diff', '--server-side', '-f', changed);
  assert.equal(status, 1, stderr);
  assert.match(stdout, /\+ {2}sessionAffinity: ClientIP/);
  assert.equal(await ok('get', 'service', 'diffed', '-o=jsonpath={.spec.sessionAffinity}'), 'None');
});

test('apply --server-side --subresource=status writes the status alone', { skip }, async () => {
  const pod = file(
    'pod.yaml',
    'apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\nspec:\n  containers:\n  - name: c\n    image: i\n',
  );
  await ok('apply', '--server-side', '-f', pod);
  const status = file(
    'status.yaml',
    'apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\nspec:\n  nodeName: n1\nstatus:\n  message: hello\n',
  );
  await ok('apply', '--server-side', '--subresource=status', '--field-manager=s', '-f', status);
  assert.equal(
    await ok('get', 'pod', 'p', '-o=jsonpath={.status.message}{.spec.nodeName}'),
    'hello',
  );
  const { metadata } = JSON.parse(await ok('get', 'pod', 'p', '--show-managed-fields', '-o=json'));
  const entry = metadata.managedFields.find((one: { manager: string }) => one.manager === 's');
  assert.equal(entry.subresource, 'status');
  assert.deepEqual(entry.fieldsV1, { 'f:status': { 'f:message': {} } });
});

test('what is wrong with a configuration is said', { skip }, async () => {
  const twice = service('bad', '  - port: 80\n');
  const { status, stderr } = await run('apply', '--server-side', '-f', twice);
  assert.equal(status, 1);
  assert.match(stderr, /duplicate entries for key/);
  const dry = await ok('apply', '--server-side', '--dry-run=server', '-f', service('never'));
  assert.match(dry, /never serverside-applied \(server dry run\)/);
  assert.equal((await run('get', 'service', 'never')).status, 1);
});
