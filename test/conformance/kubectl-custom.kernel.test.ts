/** Kinds that are added while the server runs, with the real kubectl. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { routeDefinition, tierDefinition } from '#api/apiextensions/v1/samples.ts';
import { type Kubectl, skip, startKubectl } from './kubectl-runner.ts';

let kubectl: Kubectl;

before(async () => {
  if (skip !== false) return;
  kubectl = await startKubectl('custom');
  const definitions = {
    apiVersion: 'v1',
    kind: 'List',
    items: [routeDefinition(), tierDefinition()],
  };
  const { status, stderr } = await kubectl.run(
    'apply',
    '-f',
    kubectl.file('crds.json', JSON.stringify(definitions)),
  );
  assert.equal(status, 0, stderr);
  assert.match(
    stderr,
    /Warning: this CEL rule is not evaluated: v1 spec\.rules\[\*\]: self\.weight > 0/,
  );
  await kubectl.ok('wait', '--for=condition=Established', '--timeout=10s', 'crd', '--all');
});

after(() => kubectl?.[Symbol.asyncDispose]());

function route(name: string, spec: object, version = 'v1'): string {
  const object = {
    apiVersion: `net.example.org/${version}`,
    kind: 'WeaveRoute',
    metadata: { name },
    spec,
  };
  return kubectl.file(`${name}.json`, JSON.stringify(object));
}

test('an added kind is listed, explained and found by all its names', { skip }, async () => {
  const resources = await kubectl.ok('api-resources', '--api-group=net.example.org');
  assert.match(resources, /weaveroutes +wr +net\.example\.org\/v1 +true +WeaveRoute/);
  assert.match(await kubectl.ok('get', 'crd'), /weaveroutes\.net\.example\.org +20/);
  assert.match(await kubectl.ok('explain', 'wr.spec.hostnames'), /Names that the route is for/);
  await kubectl.ok('apply', '-f', route('names', { hostnames: ['a.example'] }));
  for (const name of [
    'wr',
    'weaveroute',
    'weaveroutes',
    'weaveroutes.net.example.org',
    'weaveroutes.v1beta1.net.example.org',
    'weave',
  ])
    assert.match(
      await kubectl.ok('get', name, '-o', 'name'),
      /weaveroute\.net\.example\.org\/names/,
      name,
    );
});

test('objects of an added kind are pruned, defaulted, printed and checked', { skip }, async () => {
  await kubectl.ok(
    'apply',
    '-f',
    route('shop', { hostnames: ['shop.example'], rules: [{ name: 'r' }] }),
  );
  assert.match(
    await kubectl.ok('get', 'wr', 'shop'),
    /NAME +HOSTNAMES +REPLICAS +READY +AGE\nshop +\["shop\.example"\] +1 +\d+s/,
  );
  assert.match(await kubectl.ok('get', 'wr', 'shop', '-o', 'wide'), /MODE/);
  assert.equal(
    await kubectl.ok('get', 'wr', 'shop', '-o=jsonpath={.spec.rules[0].weight}{.spec.mode}'),
    '1Open',
  );
  const bad: [string, object, RegExp][] = [
    [
      'a',
      { replicas: 99 },
      /spec\.replicas: Invalid value: 99: spec\.replicas in body should be less than or equal to 10/,
    ],
    ['b', { replicsa: 1 }, /unknown field "spec\.replicsa" \(did you mean "replicas"\?\)/],
    ['c', { rules: [{ name: 'x' }, { name: 'x' }] }, /Duplicate value/],
    ['d', { mode: 'Ajar' }, /Unsupported value: "Ajar": supported values: "Open", "Closed"/],
  ];
  for (const [name, spec, expected] of bad) {
    const { status, stderr } = await kubectl.run('create', '-f', route(name, spec));
    assert.equal(status, 1);
    assert.match(stderr, expected);
  }
  assert.equal(
    await kubectl.ok('get', 'wr', '--field-selector=spec.mode=Closed', '-o', 'name'),
    '',
  );
});

test('all versions show the same objects, the old one with a warning', { skip }, async () => {
  const { stderr } = await kubectl.run(
    'apply',
    '-f',
    route('versions', { replicas: 2 }, 'v1beta1'),
  );
  assert.match(stderr, /Warning: net\.example\.org\/v1beta1 WeaveRoute is deprecated/);
  for (const version of ['v1', 'v1beta1'])
    assert.equal(
      await kubectl.ok(
        'get',
        `weaveroutes.${version}.net.example.org`,
        'versions',
        '-o=jsonpath={.apiVersion} {.spec.replicas}',
      ),
      `net.example.org/${version} 2`,
    );
});

test('status and scale are apart from the rest', { skip }, async () => {
  await kubectl.ok('apply', '-f', route('scaled', { replicas: 2 }));
  await kubectl.ok('scale', 'wr/scaled', '--replicas=5');
  assert.equal(
    await kubectl.ok('get', 'wr', 'scaled', '-o=jsonpath={.spec.replicas} {.metadata.generation}'),
    '5 2',
  );
  const refused = await kubectl.run('scale', 'wr/scaled', '--replicas=50');
  assert.match(refused.stderr, /less than or equal to 10/);
  const status = '{"status":{"replicas":4},"spec":{"replicas":1}}';
  await kubectl.ok('patch', 'wr', 'scaled', '--subresource=status', '--type=merge', '-p', status);
  assert.equal(
    await kubectl.ok('get', 'wr', 'scaled', '-o=jsonpath={.spec.replicas} {.status.replicas}'),
    '5 4',
  );
  const strategic = await kubectl.run('patch', 'wr', 'scaled', '--type=strategic', '-p', '{}');
  assert.match(strategic.stderr, /strategic|unknown format/);
});

test('server-side apply merges lists of an added kind by their keys', { skip }, async () => {
  await kubectl.ok(
    'apply',
    '--server-side',
    '--field-manager=a',
    '-f',
    route('ssa', { rules: [{ name: 'x', weight: 2 }] }),
  );
  await kubectl.ok(
    'apply',
    '--server-side',
    '--field-manager=b',
    '-f',
    route('ssa', { rules: [{ name: 'y', weight: 3 }] }),
  );
  assert.equal(await kubectl.ok('get', 'wr', 'ssa', '-o=jsonpath={.spec.rules[*].name}'), 'x y');
  const { stderr } = await kubectl.run(
    'apply',
    '--server-side',
    '--field-manager=b',
    '-f',
    route('ssa', { rules: [{ name: 'x', weight: 9 }] }),
  );
  assert.match(
    stderr,
    /conflict with "a" using net\.example\.org\/v1: \.spec\.rules\[name="x"\]\.weight/,
  );
});

test('a changed definition is served at once, and a deleted one goes with its objects', {
  skip,
}, async () => {
  const tier = {
    apiVersion: 'policy.networking.k8s.io/v1alpha2',
    kind: 'ClusterTier',
    metadata: { name: 't' },
    spec: { priority: 1, subject: { namespaces: {} }, networks: ['10.0.0.0/8'] },
  };
  const path = kubectl.file('tier.json', JSON.stringify(tier));
  await kubectl.ok('apply', '-f', path);
  const patch =
    '[{"op":"add","path":"/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/note","value":{"type":"string"}}]';
  await kubectl.ok(
    'patch',
    'crd',
    'clustertiers.policy.networking.k8s.io',
    '--type=json',
    '-p',
    patch,
  );
  await kubectl.ok('patch', 'clustertier', 't', '--type=merge', '-p', '{"spec":{"note":"n"}}');
  assert.equal(await kubectl.ok('get', 'ct', 't', '-o=jsonpath={.spec.note}'), 'n');
  await kubectl.ok('delete', 'crd', 'clustertiers.policy.networking.k8s.io');
  assert.equal((await kubectl.run('get', 'clustertiers.policy.networking.k8s.io')).status, 1);
  const { entries } = await kubectl.fixture.store.list('/registry/policy.networking.k8s.io/');
  assert.deepEqual(entries, []);
});
