/**
 * The real kubectl against the real server over TLS: what a person types, what is answered, and the exit status.
 * One cluster for all; each test uses names of its own.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { type ServerFixture, startServerFixture } from '#server/test-server.ts';
import { type Run, runKubectl, skip } from './kubectl-runner.ts';

const MAX_OUTPUT_BYTES = 4 * 1024 * 1024;

const hasKubectl = skip === false;
const hasDiff = spawnSync('diff', ['--version'], { stdio: 'ignore' }).status === 0;
const skipDiff = hasKubectl && !hasDiff ? 'there is no diff on the PATH' : skip;

let fixture: ServerFixture;
let home: string;

function run(args: readonly string[], env: Record<string, string> = {}): Promise<Run> {
  return runKubectl(args, { home, env, maxOutputBytes: MAX_OUTPUT_BYTES });
}

/** Runs what must succeed. @returns standard output */
async function kubectl(...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await run(args);
  assert.equal(status, 0, `kubectl ${args.join(' ')}: ${stderr}`);
  return stdout;
}

/** Runs what must fail. @returns standard error */
async function kubectlFails(...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await run(args);
  assert.equal(status, 1, `kubectl ${args.join(' ')} succeeded: ${stdout}`);
  return stderr;
}

/** @returns the path of a file with this manifest */
function manifest(name: string, ...objects: readonly (object | string)[]): string {
  const path = join(home, `${name}.yaml`);
  const texts = objects.map((object) =>
    typeof object === 'string' ? object : JSON.stringify(object),
  );
  writeFileSync(path, texts.join('\n---\n'));
  return path;
}

function service(name: string, targetPort = 8080) {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace: 'default' },
    spec: { selector: { app: name }, ports: [{ protocol: 'TCP', port: 80, targetPort }] },
  };
}

const line = (text: string, start: string) =>
  text.split('\n').find((candidate) => candidate.startsWith(start)) ?? '';

before(async () => {
  if (!hasKubectl) return;
  home = mkdtempSync(join(tmpdir(), 'tulle-kubectl-'));
  fixture = await startServerFixture();
  const base64 = (text: string) => Buffer.from(text).toString('base64');
  const { admin, ca, server } = fixture;
  const cluster = { server: server.url, 'certificate-authority-data': base64(ca.certificatePem) };
  const writeConfig = (name: string, user: object) =>
    writeFileSync(
      join(home, name),
      JSON.stringify({
        apiVersion: 'v1',
        kind: 'Config',
        clusters: [{ name: 'tulle', cluster }],
        users: [{ name: 'user', user }],
        contexts: [{ name: 'tulle', context: { cluster: 'tulle', user: 'user' } }],
        'current-context': 'tulle',
      }),
      { mode: 0o600 },
    );
  writeConfig('config', {
    'client-certificate-data': base64(admin.cert),
    'client-key-data': base64(admin.key),
  });
  writeConfig('stranger', { token: 'none' });
});

after(async () => {
  if (!hasKubectl) return;
  await fixture[Symbol.asyncDispose]();
  rmSync(home, { recursive: true, force: true });
});

test('kubectl version and cluster-info find the server', { skip }, async () => {
  assert.match(await kubectl('version'), /Server Version: v1\.\d+\.\d+/);
  assert.match(
    await kubectl('cluster-info'),
    /control plane.* is running at .*https:\/\/127\.0\.0\.1/,
  );
});

test('kubectl api-resources and api-versions list what there is', { skip }, async () => {
  const resources = await kubectl('api-resources');
  assert.match(line(resources, 'services'), /^services +svc +v1 +true +Service$/);
  assert.match(line(resources, 'ippools'), /^ippools +tulle\.dev\/v1alpha1 +false +IPPool$/);
  assert.match(await kubectl('api-versions'), /^discovery\.k8s\.io\/v1$/m);
});

test('kubectl apply -f creates, leaves alone, and changes', { skip }, async () => {
  const path = manifest('apply', service('apply-a'), service('apply-b'));
  assert.equal(
    await kubectl('apply', '-f', path),
    'service/apply-a created\nservice/apply-b created\n',
  );
  assert.equal(
    await kubectl('apply', '-f', path),
    'service/apply-a unchanged\nservice/apply-b unchanged\n',
  );
  manifest('apply', service('apply-a', 9090), service('apply-b'));
  assert.equal(
    await kubectl('apply', '-f', path),
    'service/apply-a configured\nservice/apply-b unchanged\n',
  );
  assert.equal(
    await kubectl('get', 'svc', 'apply-a', '-o', 'jsonpath={.spec.ports[0].targetPort}'),
    '9090',
  );
});

test('kubectl apply -f takes away what left the manifest and keeps what others set', {
  skip,
}, async () => {
  const first = service('three-way');
  const withLabel = { ...first, metadata: { ...first.metadata, labels: { mine: '1', gone: '1' } } };
  await kubectl('apply', '-f', manifest('three-way', withLabel));
  await kubectl('label', 'svc', 'three-way', 'theirs=1');
  const changed = { ...first, metadata: { ...first.metadata, labels: { mine: '2' } } };
  await kubectl('apply', '-f', manifest('three-way', changed));
  const labels = await kubectl('get', 'svc', 'three-way', '-o', 'jsonpath={.metadata.labels}');
  assert.deepEqual(JSON.parse(labels), { mine: '2', theirs: '1' });
  assert.match(
    await kubectl('get', 'svc', 'three-way', '-o', 'jsonpath={.spec.clusterIP}'),
    /^10\.96\./,
  );
});

test('kubectl diff shows what apply would change, and changes nothing', {
  skip: skipDiff,
}, async () => {
  const path = manifest('diff', service('diff'));
  await kubectl('apply', '-f', path);
  assert.equal(await kubectl('diff', '-f', path), '');
  manifest('diff', service('diff', 9090));
  const { status, stdout } = await run(['diff', '-f', path]);
  assert.equal(status, 1);
  assert.match(stdout, /^- +targetPort: 8080$/m);
  assert.match(stdout, /^\+ +targetPort: 9090$/m);
  assert.equal(
    await kubectl('get', 'svc', 'diff', '-o', 'jsonpath={.spec.ports[0].targetPort}'),
    '8080',
  );
});

test('kubectl get shows tables, wide tables, YAML, JSON and names', { skip }, async () => {
  await kubectl('apply', '-f', manifest('get', service('get')));
  const plain = await kubectl('get', 'svc', 'get');
  assert.match(plain, /^NAME +TYPE +CLUSTER-IP +EXTERNAL-IP +PORT\(S\) +AGE\n/);
  assert.match(line(plain, 'get'), /^get +ClusterIP +10\.96\.\d+\.\d+ +<none> +80\/TCP +\d+s$/);
  assert.match(await kubectl('get', 'svc', 'get', '-o', 'wide'), /SELECTOR\n.*app=get\n/);
  assert.match(await kubectl('get', 'svc', 'get', '-o', 'yaml'), /^ {2}clusterIP: 10\.96\./m);
  assert.equal(JSON.parse(await kubectl('get', 'svc', 'get', '-o', 'json')).metadata.name, 'get');
  assert.equal(await kubectl('get', 'svc', 'get', '-o', 'name'), 'service/get\n');
  assert.match(await kubectl('get', 'services', '-A'), /^kube-system +kube-dns /m);
  assert.match(
    await kubectl('get', 'svc,ippools'),
    /ippool\.tulle\.dev\/default +10\.244\.0\.0\/16/,
  );
  assert.equal(await kubectl('get', 'svc', '-l', 'no=such'), '');
  assert.equal(
    await kubectl('get', 'svc', '--field-selector', 'metadata.name=get', '-o', 'name'),
    'service/get\n',
  );
});

test('kubectl get says what does not exist', { skip }, async () => {
  assert.equal(
    await kubectlFails('get', 'svc', 'nothing'),
    'Error from server (NotFound): services "nothing" not found\n',
  );
  assert.match(
    await kubectlFails('get', 'deployments'),
    /doesn't have a resource type "deployments"/,
  );
});

test('kubectl get --chunk-size reads a list in pages', { skip }, async () => {
  const names = ['a', 'b', 'c', 'd', 'e'].map((letter) => `page-${letter}`);
  const objects = names.map((name) => ({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name, labels: { pages: 'yes' } },
  }));
  await kubectl('create', '-f', manifest('pages', ...objects));
  const listed = await kubectl('get', 'cm', '-l', 'pages=yes', '--chunk-size=2', '-o', 'name');
  assert.deepEqual(
    listed.trim().split('\n'),
    names.map((name) => `configmap/${name}`),
  );
});

test('kubectl get -w shows what comes', { skip }, async () => {
  const watched = run(['get', 'svc', '-w', '-l', 'watched=yes', '--request-timeout=4s']);
  const object = service('watched');
  const labelled = { ...object, metadata: { ...object.metadata, labels: { watched: 'yes' } } };
  await kubectl('create', '-f', manifest('watched', labelled));
  const { stdout } = await watched;
  assert.match(stdout, /^NAME +TYPE/);
  assert.match(stdout, /^watched +ClusterIP/m);
});

test('kubectl label and annotate set, replace only when told, and take away', {
  skip,
}, async () => {
  await kubectl('create', '-f', manifest('label', service('label')));
  await kubectl('label', 'svc', 'label', 'tier=web');
  assert.match(await kubectlFails('label', 'svc', 'label', 'tier=db'), /already has a value/);
  await kubectl('label', 'svc', 'label', 'tier=db', '--overwrite');
  assert.equal(await kubectl('get', 'svc', '-l', 'tier in (db)', '-o', 'name'), 'service/label\n');
  await kubectl('annotate', 'svc', 'label', 'note=hello');
  assert.equal(
    await kubectl('get', 'svc', 'label', '-o', 'jsonpath={.metadata.annotations.note}'),
    'hello',
  );
  await kubectl('label', 'svc', 'label', 'tier-');
  assert.equal(await kubectl('get', 'svc', 'label', '-o', 'jsonpath={.metadata.labels}'), '');
  assert.match(await kubectlFails('label', 'svc', 'label', 'a=not valid'), /invalid label value/);
});

test('kubectl patch knows three kinds of patches', { skip }, async () => {
  await kubectl('create', '-f', manifest('patch', service('patch')));
  const ports = () =>
    kubectl(
      'get',
      'svc',
      'patch',
      '-o',
      'jsonpath={range .spec.ports[*]}{.port}:{.targetPort} {end}',
    );
  await kubectl('patch', 'svc', 'patch', '-p', '{"spec":{"ports":[{"port":80,"targetPort":1}]}}');
  assert.equal(await ports(), '80:1 ');
  await kubectl('patch', 'svc', 'patch', '--type=merge', '-p', '{"spec":{"ports":[{"port":81}]}}');
  assert.equal(await ports(), '81:81 ');
  const replace = '[{"op":"replace","path":"/spec/ports/0/targetPort","value":3}]';
  await kubectl('patch', 'svc', 'patch', '--type=json', '-p', replace);
  assert.equal(await ports(), '81:3 ');
  const wrong = '[{"op":"test","path":"/spec/ports/0/targetPort","value":4}]';
  assert.notEqual(await kubectlFails('patch', 'svc', 'patch', '--type=json', '-p', wrong), '');
});

test('kubectl create -f refuses a bad manifest with what is wrong', { skip }, async () => {
  const unknown = manifest(
    'unknown',
    'apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {ports: [{porrt: 80}]}',
  );
  assert.match(
    await kubectlFails('create', '-f', unknown),
    /strict decoding error: unknown field "spec\.ports\[0\]\.porrt"/,
  );
  const range = manifest('range', {
    ...service('bad'),
    spec: { ports: [{ port: 70000, targetPort: 80 }] },
  });
  assert.equal(
    await kubectlFails('create', '-f', range),
    'The Service "bad" is invalid: spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive\n',
  );
  const type = manifest('type', { ...service('bad'), spec: { ports: [{ port: 'http' }] } });
  assert.match(
    await kubectlFails('create', '-f', type),
    /spec\.ports\[0\]\.port: Invalid value: "http": must be an integer/,
  );
  const name = manifest('name', service('Bad_Name'));
  assert.match(
    await kubectlFails('create', '-f', name),
    /metadata\.name: Invalid value: "Bad_Name"/,
  );
  assert.equal(
    await kubectl('get', 'svc', '--field-selector', 'metadata.name=bad', '-o', 'name'),
    '',
  );
});

test('kubectl create -f refuses what exists, and addresses that are taken', { skip }, async () => {
  const path = manifest('twice', service('twice'));
  await kubectl('create', '-f', path);
  assert.match(
    await kubectlFails('create', '-f', path),
    /\(AlreadyExists\).*services "twice" already exists/,
  );
  const taken = { ...service('taken'), spec: { clusterIP: '10.96.0.10', ports: [{ port: 80 }] } };
  assert.match(
    await kubectlFails('create', '-f', manifest('taken', taken)),
    /spec\.clusterIPs: Invalid value: \["10\.96\.0\.10"\]: failed to allocate IP 10\.96\.0\.10: provided IP is already allocated/,
  );
});

test('kubectl create --dry-run=server answers and stores nothing', { skip }, async () => {
  const path = manifest('dry', service('dry'));
  assert.equal(
    await kubectl('create', '-f', path, '--dry-run=server'),
    'service/dry created (server dry run)\n',
  );
  assert.match(await kubectlFails('get', 'svc', 'dry'), /NotFound/);
});

test('kubectl replace replaces', { skip }, async () => {
  await kubectl('create', '-f', manifest('replace', service('replace')));
  const before = await kubectl('get', 'svc', 'replace', '-o', 'jsonpath={.spec.clusterIP}');
  assert.equal(
    await kubectl('replace', '-f', manifest('replace', service('replace', 9))),
    'service/replace replaced\n',
  );
  assert.equal(
    await kubectl(
      'get',
      'svc',
      'replace',
      '-o',
      'jsonpath={.spec.clusterIP} {.spec.ports[0].targetPort}',
    ),
    `${before} 9`,
  );
});

test('kubectl edit changes', { skip }, async () => {
  await kubectl('create', '-f', manifest('edit', service('edit')));
  const { status, stdout } = await run(['edit', 'svc', 'edit'], { EDITOR: 'sed -i s/8080/8081/' });
  assert.equal(status, 0);
  assert.equal(stdout, 'service/edit edited\n');
  assert.equal(
    await kubectl('get', 'svc', 'edit', '-o', 'jsonpath={.spec.ports[0].targetPort}'),
    '8081',
  );
});

test('kubectl delete waits until the object is gone', { skip }, async () => {
  await kubectl('create', '-f', manifest('delete', service('delete')));
  assert.match(await kubectl('delete', 'svc', 'delete'), /service "delete" deleted/);
  assert.match(await kubectlFails('get', 'svc', 'delete'), /NotFound/);
  assert.equal(await kubectl('delete', 'svc', 'delete', '--ignore-not-found'), '');
  await kubectl('create', '-f', manifest('delete', service('delete-a'), service('delete-b')));
  await kubectl('label', 'svc', 'delete-a', 'delete-b', 'delete=all');
  await kubectl('delete', 'svc', '-l', 'delete=all');
  assert.equal(await kubectl('get', 'svc', '-l', 'delete=all', '-o', 'name'), '');
});

test('kubectl delete namespace takes what is in it with it', { skip }, async () => {
  const namespace = { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'blue' } };
  const inside = { ...service('in-blue'), metadata: { name: 'in-blue', namespace: 'blue' } };
  await kubectl('apply', '-f', manifest('blue', namespace, inside));
  await kubectl('delete', 'namespace', 'blue');
  assert.match(await kubectlFails('get', 'namespace', 'blue'), /NotFound/);
  assert.equal(await kubectl('get', 'svc', '-n', 'blue', '-o', 'name'), '');
  assert.match(await kubectlFails('delete', 'namespace', 'kube-system'), /may not be deleted/);
});

test('kubectl wait waits for a condition and for an end', { skip }, async () => {
  const node = { apiVersion: 'v1', kind: 'Node', metadata: { name: 'm-wait' } };
  await kubectl('create', '-f', manifest('wait', node));
  const ready = run(['wait', '--for=condition=Ready', 'node/m-wait', '--timeout=20s']);
  const status = { status: { conditions: [{ type: 'Ready', status: 'True' }] } };
  await kubectl(
    'patch',
    'node',
    'm-wait',
    '--subresource=status',
    '--type=merge',
    '-p',
    JSON.stringify(status),
  );
  assert.deepEqual((await ready).stdout, 'node/m-wait condition met\n');
  const gone = run(['wait', '--for=delete', 'node/m-wait', '--timeout=20s']);
  await kubectl('delete', 'node', 'm-wait');
  assert.equal((await gone).status, 0);
  assert.equal(
    (await run(['wait', '--for=condition=Ready', 'svc/kubernetes', '--timeout=1s'])).status,
    1,
  );
});

test('kubectl describe shows services, pods and nodes', { skip }, async () => {
  const node = { apiVersion: 'v1', kind: 'Node', metadata: { name: 'm1' } };
  const pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'web', namespace: 'default', labels: { app: 'describe' } },
    spec: { nodeName: 'm1', containers: [{ name: 'web', image: 'busybox' }] },
  };
  await kubectl('create', '-f', manifest('describe', service('describe'), node, pod));
  assert.match(await kubectl('describe', 'svc', 'describe'), /^Selector: +app=describe$/m);
  assert.match(await kubectl('describe', 'pod', 'web'), /^Node: +m1/m);
  const described = await kubectl('describe', 'node', 'm1');
  assert.match(described, /^Name: +m1$/m);
  assert.match(described, /^ +default +web /m);
  assert.match(await kubectl('get', 'pods', '-o', 'wide'), /NAME +READY +STATUS.*NODE/);
});

test('kubectl explain shows the fields of a kind', { skip }, async () => {
  const spec = await kubectl('explain', 'service.spec');
  assert.match(spec, /^KIND: +Service$/m);
  assert.match(spec, /^ +clusterIP\t<string>$/m);
  assert.match(await kubectl('explain', 'ippool.spec.cidr'), /^FIELD: cidr <string>/m);
  assert.match(await kubectlFails('explain', 'service.spec.nothing'), /does not exist/);
});

test('kubectl with a credential that does not hold is told so', { skip }, async () => {
  const { status, stderr } = await run(['get', 'nodes'], {
    KUBECONFIG: join(home, 'stranger'),
  });
  assert.equal(status, 1);
  assert.match(stderr, /must be logged in to the server/);
});
